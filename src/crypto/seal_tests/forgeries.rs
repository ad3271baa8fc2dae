//! Forgeries: tokens that are altered, cut, extended, spliced or invented.

use super::fixture::{
    APP_KEY, EPOCH, NAME, NONCE, PLAINTEXT, cached, keys, open_raw, refuses_all, sealer, session_plaintext,
};
use super::independent::{Keys, encode};
use crate::crypto::envelope::{HEADER_LEN, MAC_LEN, OVERHEAD, TAG_LEN};
use crate::crypto::seal::{Sealer, Unsealed, hmac_sign};
use crate::event::Refusal;

#[test]
fn t02_every_flipped_bit_is_refused() {
    for len in [0, 1, 16, 41, 300] {
        let token = keys().seal(NONCE, &vec![b'x'; len]);
        let sealer = sealer();
        let flipped = (0..token.len() * 8).map(|bit| {
            let mut token = token.clone();
            token[bit / 8] ^= 1 << (bit % 8);
            encode(&token).into_bytes()
        });
        assert_eq!(refuses_all(&sealer, flipped), (69 + len) * 8);
        assert_eq!(open_raw(&sealer, &token).unwrap(), vec![b'x'; len]);
    }
}

#[test]
fn t02_every_other_character_is_refused() {
    // Lengths that leave zero, two and four unused bits in the last character.
    for len in [0, 1, 2, 40] {
        let text = encode(&keys().seal(NONCE, &PLAINTEXT[..len])).into_bytes();
        let changed = (0..text.len()).flat_map(|at| {
            let text = &text;
            (1..=255).map(move |difference| {
                let mut text = text.clone();
                text[at] ^= difference;
                text
            })
        });
        assert_eq!(refuses_all(&sealer(), changed), text.len() * 255);
    }
}

#[test]
fn t03_t70_every_truncation_is_refused() {
    for len in [0, 1, 40] {
        let token = keys().seal(NONCE, &PLAINTEXT[..len]);
        let text = encode(&token).into_bytes();
        let cuts = (0..token.len()).flat_map(|at| [&token[..at], &token[token.len() - at..]]);
        let cuts = cuts.map(|cut| encode(cut).into_bytes());
        assert_eq!(refuses_all(&sealer(), cuts), 2 * token.len());
        let cuts = (0..text.len()).flat_map(|at| [text[..at].to_vec(), text[text.len() - at..].to_vec()]);
        assert_eq!(refuses_all(&sealer(), cuts), 2 * text.len());
        // A byte is missing anywhere, not only at the ends.
        let gaps = (0..token.len()).map(|at| [&token[..at], &token[at + 1..]].concat());
        assert_eq!(refuses_all(&sealer(), gaps.map(|gap| encode(&gap).into_bytes())), token.len());
    }
}

#[test]
fn t70_every_extension_is_refused() {
    for len in [0, 1, 2, 40] {
        let token = keys().seal(NONCE, &PLAINTEXT[..len]);
        let text = encode(&token).into_bytes();
        for byte in 0..=255 {
            let raw = [[&token[..], &[byte]].concat(), [&[byte], &token[..]].concat()];
            refuses_all(&sealer(), raw.map(|token| encode(&token).into_bytes()));
            refuses_all(&sealer(), [[&text[..], &[byte]].concat(), [&[byte], &text[..]].concat()]);
        }
        for zeros in 2..=80 {
            refuses_all(&sealer(), [encode(&[&token[..], &vec![0; zeros]].concat()).into_bytes()]);
        }
        refuses_all(&sealer(), [text.repeat(2), encode(&token.repeat(2)).into_bytes()]);
    }
}

#[test]
fn t02_halves_of_two_tokens_are_refused() {
    let one = keys().seal(NONCE, PLAINTEXT);
    let others = [
        keys().seal(*b"other nonce.", PLAINTEXT),
        keys().seal(NONCE, b"forty other bytes that no reader may see"),
        keys().seal(NONCE, b"fewer bytes"),
        Keys::new(APP_KEY, "session", NAME, EPOCH + 1).seal(NONCE, PLAINTEXT),
    ];
    for other in &others {
        let mut spliced = 0;
        for at in 0..one.len().max(other.len()) {
            let (a, b) = (at.min(one.len()), at.min(other.len()));
            for token in [[&one[..a], &other[b..]].concat(), [&other[..b], &one[a..]].concat()] {
                // Up to the first difference, a splice equals one of the two.
                if token != one && token != *other {
                    spliced += refuses_all(&sealer(), [encode(&token).into_bytes()]);
                }
            }
        }
        assert!(spliced >= 64, "{spliced}");
    }
}

#[test]
fn t02_fields_of_two_tokens_are_refused() {
    let tokens = [
        keys().seal(NONCE, PLAINTEXT),
        keys().seal(*b"other nonce.", b"forty other bytes that no reader may see"),
    ];
    let fields = [0..9, 9..21, 21..61, 61..77, 77..109];
    let mut refused = 0;
    for choice in 0..1 << fields.len() {
        let mixed: Vec<u8> = fields
            .iter()
            .enumerate()
            .flat_map(|(at, field)| &tokens[choice >> at & 1][field.clone()])
            .copied()
            .collect();
        if !tokens.contains(&mixed) {
            refused += refuses_all(&sealer(), [encode(&mixed).into_bytes()]);
        }
    }
    // Of 32 choices four make one of the two tokens: version, key id and epoch are the same.
    assert_eq!(refused, 28);
}

#[test]
fn t01_t67_what_was_never_sealed_is_refused() {
    let session = session_plaintext(b"\x81\xa4user\xa3ada");
    let json =
        br#"{"user":"ada","admin":true,"padding":"so that it is as long as a token may be at the least"}"#;
    let astra =
        b"v5hWsgz0ePdWhLcWlEJcsNm-eM0ZTOQTW9F9_bICgorm5ymElFwI8z6ChWNsmKkf_y_AfZlMZj8cy1uvj-ERjRSaCKXq0aoX\
        soUQQmA2Sozzc-pduHcA1QPrM2oMa42RNsEy7I7WYqEN4eGxBZ1YfGFcVITRCmPdFnLh8zO4dQ==";
    let header = keys().header(NONCE);
    let texts = [
        b"".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        json.to_vec(),
        encode(json).into_bytes(),
        session.clone(),
        encode(&session).into_bytes(),
        astra.to_vec(),
        // The plaintext instead of the ciphertext, with room for tag and signature.
        encode(&[&header[..], &session].concat()).into_bytes(),
        encode(&[&header[..], &session, &[0; 48]].concat()).into_bytes(),
        vec![0; 4096],
        vec![b'A'; 100_000],
    ];
    assert_eq!(refuses_all(&sealer(), texts), 12);
}

#[test]
fn t02_the_signature_is_checked_before_the_ciphertext() {
    let keys = keys();
    let token = keys.seal(NONCE, PLAINTEXT);
    let (signed, mac) = token.split_at(token.len() - MAC_LEN);
    let signed_by = |key: &[u8], message: &[u8]| [signed, &hmac_sign(key, message)].concat();
    let swapped: Vec<u8> = [&mac[16..], &mac[..16]].concat();

    // The ciphertext is from the right key, but the signature is not.
    let wrong = [
        [signed, &[0; MAC_LEN]].concat(),
        [signed, &[0xff; MAC_LEN]].concat(),
        [signed, &swapped].concat(),
        signed_by(&keys.encrypt, signed),
        signed_by(APP_KEY, signed),
        signed_by(&[], signed),
        signed_by(&Keys::new(APP_KEY, "session", "other", EPOCH).mac, signed),
        signed_by(&keys.mac, &signed[HEADER_LEN..]),
        signed_by(&keys.mac, &signed[..signed.len() - TAG_LEN]),
        signed_by(&keys.mac, PLAINTEXT),
        signed_by(&keys.mac, b""),
        signed.to_vec(),
    ];
    let sealer = sealer();
    let wrong = wrong.map(|token| encode(&token).into_bytes());
    assert_eq!(refuses_all(&sealer, wrong), 12);
    assert_eq!(cached(&sealer), [0_u32; 0]);
    assert_eq!(open_raw(&sealer, &signed_by(&keys.mac, signed)).unwrap(), PLAINTEXT);
}

// Only a holder of the signing key gets here. The cipher refuses tokens that the signature accepts.
#[test]
fn t02_signed_but_altered_ciphertexts_are_refused() {
    let keys = keys();
    let token = keys.seal(NONCE, PLAINTEXT);
    let signed = &token[..token.len() - MAC_LEN];
    let sealer = sealer();
    for bit in 0..signed.len() * 8 {
        let mut signed = signed.to_vec();
        signed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => Refusal::Version,
            1..5 => Refusal::UnknownKey,
            _ => Refusal::Ciphertext,
        };
        assert_eq!(open_raw(&sealer, &keys.sign(&signed)), Err(expected), "bit {bit}");
    }

    let header = keys.header(NONCE);
    let other_hour = Keys::new(APP_KEY, "session", NAME, EPOCH + 1);
    let other_name = Keys::new(APP_KEY, "session", "other", EPOCH);
    for (what, body) in [
        ("no associated data", keys.encrypt(NONCE, b"", PLAINTEXT)),
        ("part of the header", keys.encrypt(NONCE, &header[..9], PLAINTEXT)),
        ("another nonce", keys.encrypt([1; 12], &header, PLAINTEXT)),
        ("the key of another hour", other_hour.encrypt(NONCE, &header, PLAINTEXT)),
        ("the key of another name", other_name.encrypt(NONCE, &header, PLAINTEXT)),
        ("no encryption", [PLAINTEXT, &[0; TAG_LEN]].concat()),
    ] {
        let token = keys.sign(&[header.clone(), body].concat());
        assert_eq!(open_raw(&sealer, &token), Err(Refusal::Ciphertext), "{what}");
    }
}

#[test]
fn t03_short_tags_and_signatures_are_refused() {
    let keys = keys();
    for len in [0, 1, 40] {
        let token = keys.seal(NONCE, &PLAINTEXT[..len]);
        let (signed, mac) = token.split_at(token.len() - MAC_LEN);
        for tag in 0..TAG_LEN {
            // Signed again, so that only the length of the GCM tag is wrong.
            let token = keys.sign(&signed[..signed.len() - TAG_LEN + tag]);
            let expected = if token.len() < OVERHEAD { Refusal::Length } else { Refusal::Ciphertext };
            assert_eq!(open_raw(&sealer(), &token), Err(expected), "{len}, {tag}");
        }
        for cut in 0..MAC_LEN {
            let token = [signed, &mac[..cut]].concat();
            let expected = if token.len() < OVERHEAD { Refusal::Length } else { Refusal::Signature };
            assert_eq!(open_raw(&sealer(), &token), Err(expected), "{len}, {cut}");
        }
    }
}

#[test]
fn t01_t04_a_refusal_has_no_room_for_plaintext() {
    let open: fn(&Sealer, &[u8]) -> Result<Unsealed, Refusal> = Sealer::open;
    let token = encode(&keys().sign(&[keys().header(NONCE), vec![0; 56]].concat()));
    assert_eq!(open(&sealer(), token.as_bytes()).err(), Some(Refusal::Ciphertext));
    assert_eq!(size_of::<Refusal>(), 1);
}
