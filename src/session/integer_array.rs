//! Arrays of unsigned integers, which both formats of a payload can hold: bytes have no form in JSON.

use bytes::Bytes;
use rmp::Marker;
use smallvec::SmallVec;

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

/// Reads an array of at most `N` unsigned integers, without allocating.
#[inline]
pub(super) fn read<const N: usize>(bytes: &[u8]) -> Option<SmallVec<[u64; N]>>
where
    [u64; N]: smallvec::Array<Item = u64>,
{
    let (&marker, mut rest) = bytes.split_first()?;
    let Marker::FixArray(len) = Marker::from_u8(marker) else { return None };
    let mut numbers = SmallVec::new();
    if usize::from(len) > N {
        return None;
    }
    for _ in 0..len {
        let (&marker, after) = rest.split_first()?;
        let width = match Marker::from_u8(marker) {
            Marker::FixPos(number) => {
                numbers.push(number.into());
                rest = after;
                continue;
            }
            Marker::U8 => 1,
            Marker::U16 => 2,
            Marker::U32 => 4,
            // Most of the numbers, because names are hashes.
            Marker::U64 => {
                let (number, after) = after.split_first_chunk()?;
                numbers.push(u64::from_be_bytes(*number));
                rest = after;
                continue;
            }
            _ => return None,
        };
        let (number, after) = after.split_at_checked(width)?;
        numbers.push(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        rest = after;
    }
    rest.is_empty().then_some(numbers)
}
