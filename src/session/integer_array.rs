//! Arrays of unsigned integers, which both formats of a payload can hold: bytes have no form in JSON.

use std::ops::Deref;

use bytes::Bytes;
use rmp::Marker;

use crate::error::{Error, Kind};

/// Encodes `numbers`.
pub(super) fn write(numbers: &[u64]) -> Result<Bytes, Error> {
    let failed = |_| Error::new(Kind::Internal("a list of numbers that could not be written"));
    let mut bytes = Vec::with_capacity(1 + 9 * numbers.len());
    rmp::encode::write_array_len(&mut bytes, u32::try_from(numbers.len()).unwrap_or(u32::MAX))
        .map_err(failed)?;
    for number in numbers {
        rmp::encode::write_uint(&mut bytes, *number).map_err(failed)?;
    }
    Ok(bytes.into())
}

/// At most `N` unsigned integers, on the stack.
pub(super) struct Numbers<const N: usize> {
    all: [u64; N],
    len: usize,
}

impl<const N: usize> Deref for Numbers<N> {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        self.all.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> Numbers<N> {
    pub(super) const fn none() -> Self {
        Self { all: [0; N], len: 0 }
    }

    /// Reads all numbers of an array. Returns `None` if it is not an array of at most `N` unsigned integers; these numbers are
    /// then of no use.
    #[inline]
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Option<()> {
        let (&marker, mut rest) = bytes.split_first()?;
        let Marker::FixArray(len) = Marker::from_u8(marker) else { return None };
        self.len = len.into();
        for number in self.all.get_mut(..self.len)? {
            (*number, rest) = match rest.split_first()? {
                // Most of the numbers, because names are hashes.
                (&U64, after) => {
                    let (number, after) = after.split_first_chunk()?;
                    (u64::from_be_bytes(*number), after)
                }
                (&marker, after) => read_shorter(marker, after)?,
            };
        }
        rest.is_empty().then_some(())
    }
}

/// Reads an array of at most `N` unsigned integers.
#[inline]
pub(super) fn read<const N: usize>(bytes: &[u8]) -> Option<Numbers<N>> {
    let mut numbers = Numbers::none();
    numbers.fill(bytes).map(|()| numbers)
}

/// The marker of a number of eight bytes.
const U64: u8 = 0xcf;

fn read_shorter(marker: u8, after: &[u8]) -> Option<(u64, &[u8])> {
    let width = match Marker::from_u8(marker) {
        Marker::FixPos(number) => return Some((number.into(), after)),
        Marker::U8 => 1,
        Marker::U16 => 2,
        Marker::U32 => 4,
        _ => return None,
    };
    let (number, after) = after.split_at_checked(width)?;
    Some((number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), after))
}
