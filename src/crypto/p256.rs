//! Public keys on P-256, and ES256 signatures (ECDSA with SHA-256, RFC 7518 section 3.4).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};

/// A point on P-256 in the compressed form of SEC 1: the parity of y, then x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; Self::LEN]);

/// The number of bytes of a coordinate.
pub(crate) const COORDINATE_LEN: usize = 32;

/// The number of bytes of a signature: r, then s.
pub(crate) const SIGNATURE_LEN: usize = 64;

impl PublicKey {
    pub(crate) const LEN: usize = 1 + COORDINATE_LEN;

    /// Returns the key with these coordinates. `None` if they are not a point of the curve.
    pub(crate) fn from_coordinates(x: &[u8; COORDINATE_LEN], y: &[u8; COORDINATE_LEN]) -> Option<Self> {
        let mut uncompressed = [0; 1 + 2 * COORDINATE_LEN];
        let point = std::iter::once(&4).chain(x).chain(y);
        uncompressed.iter_mut().zip(point).for_each(|(to, from)| *to = *from);
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed).ok()?;
        Some(Self::of(y.last()? & 1 == 1, x))
    }

    /// Returns the key with this x, whose y is odd or even. [`verify`](Self::verify) refuses everything under a key that is
    /// not a point of the curve.
    pub(crate) fn of(y_is_odd: bool, x: &[u8; COORDINATE_LEN]) -> Self {
        let mut bytes = [2 + u8::from(y_is_odd); Self::LEN];
        let [_, rest @ ..] = &mut bytes;
        rest.copy_from_slice(x);
        Self(bytes)
    }

    /// Returns whether y is odd, and x.
    pub(crate) fn parts(&self) -> (bool, [u8; COORDINATE_LEN]) {
        let [form, x @ ..] = self.0;
        (form == 3, x)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns true if `signature` is a signature of `message` under this key.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0)
            .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn coordinates(pair: &EcdsaKeyPair) -> ([u8; 32], [u8; 32]) {
        let point = pair.public_key().as_ref();
        (point[1..33].try_into().unwrap(), point[33..].try_into().unwrap())
    }

    #[test]
    fn a_key_verifies_its_own_signatures_and_no_others() {
        let pair = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut seen = [false; 2];
        // With both parities of y.
        while seen != [true; 2] {
            let (one, other) = (pair(), pair());
            let (x, y) = coordinates(&one);
            let key = PublicKey::from_coordinates(&x, &y).unwrap();
            let (odd, x_again) = key.parts();
            assert_eq!((key, x), (PublicKey::of(odd, &x), x_again));
            seen[usize::from(odd)] = true;
            let sign = |pair: &EcdsaKeyPair| -> [u8; SIGNATURE_LEN] {
                pair.sign(&SystemRandom::new(), b"message").unwrap().as_ref().try_into().unwrap()
            };
            let signature = sign(&one);
            assert!(key.verify(b"message", &signature));
            assert!(!key.verify(b"massage", &signature));
            assert!(!key.verify(b"message", &sign(&other)));
            assert!(!PublicKey::of(!odd, &x).verify(b"message", &signature));
            for at in [0, 31, 32, 63] {
                let mut altered = signature;
                altered[at] ^= 1;
                assert!(!key.verify(b"message", &altered), "{at}");
            }
        }
    }

    // The classic forgeries of ECDSA: r or s is zero, or at least the order of the group.
    #[test]
    fn degenerate_signatures_are_refused() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = coordinates(&pair);
        let key = PublicKey::from_coordinates(&x, &y).unwrap();
        let order = *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
        let mut one = [0; 32];
        one[31] = 1;
        for r in [[0; 32], one, order, [0xff; 32]] {
            for s in [[0; 32], order, [0xff; 32]] {
                let signature: [u8; SIGNATURE_LEN] = [r, s].as_flattened().try_into().unwrap();
                assert!(!key.verify(b"", &signature));
            }
        }
    }

    #[test]
    fn points_that_are_not_on_the_curve_are_no_keys() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = coordinates(&pair);
        let mut wrong = y;
        wrong[5] ^= 4;
        assert_eq!(PublicKey::from_coordinates(&x, &wrong), None);
        assert_eq!(PublicKey::from_coordinates(&[0; 32], &[0; 32]), None);
        assert_eq!(PublicKey::from_coordinates(&[0xff; 32], &y), None);
        assert!(!PublicKey::of(false, &[0xff; 32]).verify(b"", &[1; SIGNATURE_LEN]));
    }
}
