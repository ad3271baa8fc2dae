//! Arrays of unsigned integers, which both formats of a payload can hold: bytes have no form in JSON.

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

/// The unsigned integers of an array, one after the other. They end early if one of them cannot be read.
///
/// Their number is not counted: a payload was only accepted because each of its arrays has as many items as it says.
pub(super) struct Numbers<'a> {
    rest: &'a [u8],
}

impl Numbers<'_> {
    /// Returns true if all numbers were returned.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Numbers<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let number;
        (number, self.rest) = match self.rest.split_first_chunk::<9>() {
            // Most of the numbers, because names are hashes.
            Some(([U64, number @ ..], after)) => (u64::from_be_bytes(*number), after),
            _ => read_shorter(self.rest)?,
        };
        Some(number)
    }
}

/// Reads an array of at most 15 numbers. Returns `None` if it is not such an array.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<Numbers<'_>> {
    let (&marker, rest) = bytes.split_first()?;
    matches!(Marker::from_u8(marker), Marker::FixArray(_)).then_some(Numbers { rest })
}

/// The marker of a number of eight bytes.
const U64: u8 = 0xcf;

fn read_shorter(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&marker, after) = bytes.split_first()?;
    Some(match Marker::from_u8(marker) {
        Marker::FixPos(number) => (number.into(), after),
        Marker::U8 => {
            let (number, after) = after.split_first_chunk()?;
            (u8::from_be_bytes(*number).into(), after)
        }
        Marker::U16 => {
            let (number, after) = after.split_first_chunk()?;
            (u16::from_be_bytes(*number).into(), after)
        }
        Marker::U32 => {
            let (number, after) = after.split_first_chunk()?;
            (u32::from_be_bytes(*number).into(), after)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_width_are_read_and_a_shortened_array_ends_early() {
        let numbers = [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
        let bytes = write(&numbers).unwrap();
        let mut read_back = read(&bytes).unwrap();
        assert!(!read_back.is_complete());
        assert!(read_back.by_ref().eq(numbers));
        assert!(read_back.is_complete());
        for len in 1..bytes.len() {
            let mut cut = read(&bytes[..len]).unwrap();
            let found = cut.by_ref().count();
            assert!(
                found < numbers.len() && read(&bytes[..len]).unwrap().eq(numbers.into_iter().take(found))
            );
        }
    }

    #[test]
    fn nothing_else_is_an_array_of_numbers() {
        for other in [&b""[..], b"\x01", b"\x81\x01\x01", b"\xdc\0\x01\x01", b"\xa1x", b"\xc0"] {
            assert!(read(other).is_none(), "{other:?}");
        }
        for item in [&b"\xff"[..], b"\xc0", b"\xa1x", b"\xd3\0\0\0\0\0\0\0\x01", b"\x91\x01"] {
            let array = [&b"\x92\x05"[..], item].concat();
            let mut numbers = read(&array).unwrap();
            assert_eq!((numbers.next(), numbers.next()), (Some(5), None), "{item:?}");
            assert!(!numbers.is_complete());
        }
    }
}
