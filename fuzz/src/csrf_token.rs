//! Tokens of forms, as a browser brings them back.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hyper_session::{Error, testing};

use crate::run;
use crate::unseal::builder;

/// The masks that this check hides the secret under are bytes of the input, so that it knows each token that is genuine.
///
/// A text is accepted if and only if it is the one spelling of a mask and of the secret under it. Up to 32 bytes of the input
/// change the genuine token, and the bytes behind them are added; without any, it stays.
pub fn csrf_token(data: &[u8]) {
    let store = builder().build().unwrap();
    let mut verdict = None;
    let filled = run(testing::with_session(http::Request::new(()), &store, |session| {
        let genuine = session.csrf_token()?;
        let refusal = session.verify_csrf("").expect_err("no token at all");
        let secret = secret_of(&genuine).expect("a token of the documented form");
        let mut text = genuine.into_bytes();
        for (byte, change) in text.iter_mut().zip(data) {
            *byte ^= change;
        }
        text.extend(data.iter().skip(text.len()));
        for text in [&text, data] {
            let Ok(text) = std::str::from_utf8(text) else { continue };
            let accepted = match session.verify_csrf(text) {
                Ok(()) => true,
                Err(error) => {
                    assert!(error.is_forgery());
                    assert_eq!(
                        format!("{error} {error:?}"),
                        format!("{refusal} {refusal:?}"),
                        "says something of the token"
                    );
                    false
                }
            };
            assert_eq!(accepted, secret_of(text) == Some(secret), "{text:?}");
            verdict = Some(accepted);
        }
        Ok::<_, Error>(())
    }));
    assert!(filled.is_ok() && (verdict.is_some() || std::str::from_utf8(data).is_err()));
}

/// The secret under the mask of a token, by other hands.
fn secret_of(text: &str) -> Option<[u8; 16]> {
    let bytes: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(std::array::from_fn(|at| bytes[at] ^ bytes[16 + at]))
}
