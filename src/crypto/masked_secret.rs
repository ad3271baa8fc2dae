//! A secret that is shown masked: each text of it is different, so that compression beside it reveals nothing (BREACH).

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{Random, base64url};
use crate::error::Error;

/// 128 random bits.
const SECRET_LEN: usize = 16;

/// Generates a secret, as text.
pub(crate) fn generate(random: &impl Random) -> Result<String, Error> {
    let mut secret = [0; SECRET_LEN];
    random.fill(&mut secret)?;
    Ok(base64url::encode(&secret))
}

/// Returns base64url of a mask, drawn for this call, and of the secret of this text under it; `None` if the text is not that of
/// a secret.
pub(crate) fn mask(secret: &str, random: &impl Random) -> Result<Option<String>, Error> {
    let Some(secret) = read::<SECRET_LEN>(secret) else { return Ok(None) };
    let mut mask = [0; SECRET_LEN];
    random.fill(&mut mask)?;
    Ok(Some(base64url::encode([mask, xor(secret, mask)].as_flattened())))
}

/// Returns true if `text` is the secret of this text under a mask. The comparison takes the same time for each text of the
/// right length.
pub(crate) fn is_masked(text: &str, secret: &str) -> bool {
    let masked = read::<{ 2 * SECRET_LEN }>(text);
    let (Some(masked), Some(secret)) = (masked, read::<SECRET_LEN>(secret)) else { return false };
    let (mask, hidden) = masked.split_at(SECRET_LEN);
    let unmasked: Vec<u8> = mask.iter().zip(hidden).map(|(a, b)| a ^ b).collect();
    verify_slices_are_equal(&unmasked, &secret).is_ok()
}

fn read<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    if text.len() != base64url::encoded_len(LEN) {
        return None;
    }
    base64url::decode(text.as_bytes())?.try_into().ok()
}

fn xor(a: [u8; SECRET_LEN], mut b: [u8; SECRET_LEN]) -> [u8; SECRET_LEN] {
    b.iter_mut().zip(a).for_each(|(b, a)| *b ^= a);
    b
}

#[cfg(test)]
mod tests {
    use super::super::{NoRandom, SystemRandom};
    use super::*;

    #[test]
    fn masked_texts_differ_and_show_nothing_of_the_secret() {
        let (secret, other) = (generate(&SystemRandom).unwrap(), generate(&SystemRandom).unwrap());
        assert_eq!(secret.len(), 22);
        let one = mask(&secret, &SystemRandom).unwrap().unwrap();
        let two = mask(&secret, &SystemRandom).unwrap().unwrap();
        assert_ne!(one, two);
        assert_eq!(one.len(), 43);
        assert!(is_masked(&one, &secret) && is_masked(&two, &secret) && !is_masked(&one, &other));
        assert!(!one.contains(&secret));
    }

    #[test]
    fn any_other_text_is_refused() {
        let secret = generate(&SystemRandom).unwrap();
        let good = mask(&secret, &SystemRandom).unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert!(!is_masked(std::str::from_utf8(&bad).unwrap(), &secret), "{at}");
        }
        let long = format!("{good}A");
        for bad in ["", &good[1..], &long, &secret, &format!("{}=", &good[1..]), &"\u{e9}".repeat(21)] {
            assert!(!is_masked(bad, &secret), "{bad:?}");
        }
        assert_eq!(mask("no secret", &SystemRandom).unwrap(), None);
        assert!(mask(&secret, &NoRandom).unwrap_err().is_random());
        assert!(generate(&NoRandom).unwrap_err().is_random());
    }
}
