//! Published vectors (Wycheproof, RFC 4231, RFC 5869) for the primitives that seal, open and derive.

use serde::{Deserialize, Deserializer, de::Error as _};
use wycheproof::{TestResult, aead, hkdf, mac};

use super::derive::hkdf_sha256;
use super::envelope::{MAC_LEN, TAG_LEN};
use super::seal::{gcm_open, gcm_seal, hmac_sign, hmac_verify};

/// Bytes in lower-case hexadecimal in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let (pairs, rest) = text.as_bytes().as_chunks();
        let bytes = pairs.iter().map(|&[high, low]| {
            let byte = digit(high)? << 4 | digit(low)?;
            u8::try_from(byte).ok()
        });
        match bytes.collect() {
            Some(bytes) if rest.is_empty() => Ok(Self(bytes)),
            _ => Err(D::Error::custom("not lower-case hexadecimal")),
        }
    }
}

/// The number of vectors that were checked. Each test states its numbers, so that a file that is not read, or read as
/// empty, is a failure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    valid: usize,
    invalid: usize,
    skipped: usize,
}

impl Ran {
    /// Counts the vector. Returns true if it has to succeed.
    fn count(&mut self, result: TestResult) -> bool {
        // None of the sets in use has an "acceptable" vector, for which both results would be right.
        assert_ne!(result, TestResult::Acceptable);
        let valid = !result.must_fail();
        *(if valid { &mut self.valid } else { &mut self.invalid }) += 1;
        valid
    }
}

#[test]
fn t02_t03_t04_wycheproof_aes_256_gcm() {
    let mut ran = Ran::default();
    for group in aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups {
        for test in group.tests {
            // Sizes in bits. The token format has one size of each.
            let ours = (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 8 * TAG_LEN);
            if !ours {
                ran.skipped += 1;
                continue;
            }
            let nonce = test.nonce.as_slice().try_into().unwrap();
            let valid = ran.count(test.result);

            let mut body = [test.ct.as_slice(), &test.tag].concat();
            assert_eq!(gcm_open(&test.key, nonce, &test.aad, &mut body), valid, "{}", test.tc_id);
            let plaintext = &body[..test.pt.len()];
            if valid {
                assert_eq!(plaintext, &*test.pt, "{}", test.tc_id);
            } else if !test.pt.is_empty() {
                // A token that does not open must not have been decrypted where the caller could read it.
                assert_ne!(plaintext, &*test.pt, "{}", test.tc_id);
            }

            let mut body = test.pt.to_vec();
            let tag = gcm_seal(&test.key, nonce, &test.aad, &mut body);
            // The invalid vectors of these sizes have a false tag for a true ciphertext, or the reverse.
            assert_eq!((body, &tag[..]) == (test.ct.to_vec(), &test.tag), valid, "{}", test.tc_id);
        }
    }
    assert_eq!(ran, Ran { valid: 39, invalid: 27, skipped: 250 });
}

#[test]
fn t02_t03_wycheproof_hmac_sha256() {
    let mut ran = Ran::default();
    for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let whole = group.tag_size == 8 * MAC_LEN;
            // A truncated tag never verifies, whether or not its vector counts as valid.
            let valid = whole && test.result == TestResult::Valid;
            assert_eq!(hmac_verify(&test.key, &test.msg, &test.tag), valid, "{}", test.tc_id);
            if whole {
                assert_eq!(ran.count(test.result), valid);
                assert_eq!(test.tag[..] == hmac_sign(&test.key, &test.msg), valid, "{}", test.tc_id);
            } else {
                ran.skipped += 1;
            }
        }
    }
    assert_eq!(ran, Ran { valid: 33, invalid: 54, skipped: 87 });
}

#[test]
fn t02_wycheproof_hkdf_sha256() {
    let mut ran = Ran::default();
    for group in hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            let valid = ran.count(test.result);
            let mut out = vec![0; test.size];
            // The invalid vectors ask for more than 255 blocks.
            assert_eq!(hkdf_sha256(&test.salt, &test.ikm, &test.info, &mut out), valid, "{}", test.tc_id);
            if valid {
                assert_eq!(out, *test.okm, "{}", test.tc_id);
            }
        }
    }
    assert_eq!(ran, Ran { valid: 83, invalid: 3, skipped: 0 });
}

#[derive(Deserialize)]
struct Rfc<T> {
    tests: Vec<T>,
}

#[test]
fn t02_rfc_4231_hmac_sha256() {
    #[derive(Deserialize)]
    struct Case {
        key: Hex,
        data: Hex,
        tag: Hex,
    }
    let file = include_str!("../../tests/vectors/rfc4231_hmac_sha256.json");
    let cases = serde_json::from_str::<Rfc<Case>>(file).unwrap().tests;
    let mut cut = 0;
    for Case { key, data, tag } in &cases {
        let ours = hmac_sign(&key.0, &data.0);
        assert_eq!(ours[..tag.0.len()], tag.0);
        // Case 5 has a tag of 128 bits, which is correct but truncated, and so refused.
        let whole = tag.0.len() == MAC_LEN;
        cut += usize::from(!whole);
        assert_eq!(hmac_verify(&key.0, &data.0, &tag.0), whole);
    }
    assert_eq!((cases.len(), cut), (7, 1));
}

#[test]
fn t02_rfc_5869_hkdf_sha256() {
    #[derive(Deserialize)]
    struct Case {
        ikm: Hex,
        salt: Hex,
        info: Hex,
        prk: Hex,
        okm: Hex,
    }
    let file = include_str!("../../tests/vectors/rfc5869_hkdf_sha256.json");
    let cases = serde_json::from_str::<Rfc<Case>>(file).unwrap().tests;
    for case in &cases {
        let mut okm = vec![0; case.okm.0.len()];
        assert!(hkdf_sha256(&case.salt.0, &case.ikm.0, &case.info.0, &mut okm));
        assert_eq!(okm, case.okm.0);
        // Extraction is HMAC under the salt (RFC 5869 section 2.2).
        assert_eq!(hmac_sign(&case.salt.0, &case.ikm.0)[..], case.prk.0);
    }
    assert_eq!(cases.len(), 3);
}

#[test]
fn hexadecimal_is_read_strictly() {
    let read = |text: &str| serde_json::from_value::<Hex>(text.into()).ok().map(|hex| hex.0);
    assert_eq!(read("00a9ff"), Some(vec![0x00, 0xa9, 0xff]));
    assert_eq!(read(""), Some(vec![]));
    for bad in ["0", "0g", "0A", "+1", " 1", "é"] {
        assert_eq!(read(bad), None, "{bad:?}");
    }
}
