//! Proofs of other implementations and of the standards, and all that is not a proof.

use serde_json::{Value, json};

use super::*;
use crate::crypto::encode_base64url;

fn vector(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn key(jwk: &Value) -> PublicKey {
    jwk::read(&Object::read(jwk.to_string().as_bytes()).unwrap()).unwrap()
}

// dbsc-toolkit's vectors: tests/vectors/dbsc/README.md.
#[test]
fn the_registration_of_another_implementation_is_read_and_verified() {
    let vector = vector(include_str!("../../tests/vectors/dbsc/registration.json"));
    let proof = Proof::read(vector["secureSessionResponse"].as_str().unwrap()).unwrap();
    assert_eq!(proof.challenge, vector["challenge"].as_str().unwrap());
    assert_eq!(proof.key, Some(key(&vector["publicKeyJwk"])));
    assert!(proof.is_signed_by(&proof.key.unwrap()));
}

#[test]
fn the_refresh_of_another_implementation_is_read_and_verified() {
    let vector = vector(include_str!("../../tests/vectors/dbsc/refresh.json"));
    let proof = Proof::read(vector["secureSessionResponse"].as_str().unwrap()).unwrap();
    assert_eq!((&*proof.challenge, proof.key), (vector["challenge"].as_str().unwrap(), None));
    let device = key(&vector["storedPublicKeyJwk"]);
    assert!(proof.is_signed_by(&device));
    assert!(!proof.is_signed_by(&PublicKey::of(true, &[7; 32])), "another device");
    let Proof { key, challenge, signed, signature } = proof;
    let altered = [signed, b" "].concat();
    assert!(!Proof { key, challenge, signed: &altered, signature }.is_signed_by(&device), "another text");
}

// The proofs of the specification: tests/vectors/dbsc/README.md.
#[test]
fn the_examples_of_the_specification_are_read() {
    let vector = vector(include_str!("../../tests/vectors/dbsc/specification.json"));
    let response = &vector["fields"]["response"];
    let proof = Proof::read(response["text"].as_str().unwrap()).unwrap();
    assert_eq!((&*proof.challenge, proof.key), (response["jti"].as_str().unwrap(), None));

    let (header, payload) = (&vector["proof"]["header"], &vector["proof"]["payload"]);
    let text = compact(&header.to_string(), &payload.to_string());
    let proof = Proof::read(&text).unwrap();
    assert_eq!(proof.challenge, payload["jti"].as_str().unwrap());
    assert_eq!(proof.key, Some(key(&header["jwk"])));
    assert!(!proof.is_signed_by(&key(&header["jwk"])), "a signature of ones");
}

// RFC 7515 appendix A.3: an ES256 signature by the RFC's key. Its type is not that of a proof, so it is not read as one.
#[test]
fn the_example_of_the_rfc_is_verified_and_is_no_proof() {
    let text = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let jwk = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let (signed, signature) = text.rsplit_once('.').unwrap();
    let signature: [u8; SIGNATURE_LEN] = decode_base64url(signature.as_bytes()).unwrap().try_into().unwrap();
    assert!(key(&jwk).verify(signed.as_bytes(), &signature));
    assert!(Proof::read(text).is_none());
}

fn compact(header: &str, payload: &str) -> String {
    let part = |text: &str| encode_base64url(text.as_bytes());
    format!("{}.{}.{}", part(header), part(payload), encode_base64url(&[1; SIGNATURE_LEN]))
}

const HEADER: &str = r#"{"alg":"ES256","typ":"dbsc+jwt"}"#;
const PAYLOAD: &str = r#"{"jti":"c"}"#;

#[test]
fn only_what_the_protocol_sends_is_read() {
    assert!(Proof::read(&compact(HEADER, PAYLOAD)).is_some());
    // Members that a later draft may add.
    let more = r#"{"alg":"ES256","typ":"dbsc+jwt","kid":"1","b":[1,{"c":null}],"n":1.5}"#;
    assert!(
        Proof::read(&compact(more, r#"{"jti":"c","aud":"https://example.com","iat":1,"sub":{}}"#)).is_some()
    );

    for header in [
        "{}",
        "[]",
        "",
        "null",
        r#"{"alg":"ES256"}"#,
        r#"{"typ":"dbsc+jwt"}"#,
        r#"{"alg":"none","typ":"dbsc+jwt"}"#,
        r#"{"alg":"es256","typ":"dbsc+jwt"}"#,
        r#"{"alg":"ES384","typ":"dbsc+jwt"}"#,
        r#"{"alg":"RS256","typ":"dbsc+jwt"}"#,
        r#"{"alg":["ES256"],"typ":"dbsc+jwt"}"#,
        r#"{"alg":"ES256","typ":"JWT"}"#,
        r#"{"alg":"ES256","typ":"DBSC+JWT"}"#,
        r#"{"alg":"ES256","alg":"ES256","typ":"dbsc+jwt"}"#,
        r#"{"alg":"ES256","typ":"dbsc+jwt","crit":[]}"#,
        r#"{"alg":"ES256","typ":"dbsc+jwt","jwk":null}"#,
        r#"{"alg":"ES256","typ":"dbsc+jwt","jwk":"k"}"#,
        r#"{"alg":"ES256","typ":"dbsc+jwt","jwk":{}}"#,
        r#"{"alg":"ES256","typ":"dbsc+jwt"} x"#,
    ] {
        assert!(Proof::read(&compact(header, PAYLOAD)).is_none(), "{header}");
    }
    for payload in ["{}", "[]", "", r#"{"jti":1}"#, r#"{"jti":null}"#, r#"{"jti":"a","jti":"a"}"#, r#""jti""#]
    {
        assert!(Proof::read(&compact(HEADER, payload)).is_none(), "{payload}");
    }
}

#[test]
fn a_proof_of_the_longest_text_is_read_and_no_longer_one() {
    let padded = |header: usize, payload: usize| {
        let header = format!("{HEADER}{}", " ".repeat(header));
        compact(&header, &format!("{PAYLOAD}{}", " ".repeat(payload)))
    };
    for (len, read) in [(MAX_LEN, true), (MAX_LEN + 1, false), (MAX_LEN + 2, false)] {
        let mut paddings = (0..3).flat_map(|header| (0..MAX_LEN).map(move |payload| (header, payload)));
        let text = paddings
            .find_map(|(header, payload)| Some(padded(header, payload)).filter(|text| text.len() == len));
        assert_eq!(Proof::read(&text.unwrap()).is_some(), read, "{len}");
    }
}

#[test]
fn other_forms_of_a_signature_are_not_read() {
    let good = compact(HEADER, PAYLOAD);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let sized = |len: usize| format!("{signed}.{}", encode_base64url(&vec![1; len]));
    assert!(Proof::read(&sized(64)).is_some());
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{good}="),
        format!("{good} "),
        format!("{header}=.{payload}.{signature}"),
        sized(0),
        sized(63),
        sized(65),
        // A signature in DER, as other libraries write it, is refused.
        sized(70),
        format!("{good}{}", " ".repeat(MAX_LEN)),
    ] {
        assert!(Proof::read(&bad).is_none(), "{bad}");
    }
}

#[test]
fn only_public_keys_on_p256_are_keys() {
    let good = vector(include_str!("../../tests/vectors/dbsc/registration.json"))["publicKeyJwk"].clone();
    let changed = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    let read = |jwk: &Value| jwk::read(&Object::read(jwk.to_string().as_bytes()).unwrap());
    assert!(read(&good).is_some());
    assert!(read(&changed("kid", json!("1"))).is_some());
    let x = good["x"].as_str().unwrap();
    for bad in [
        changed("kty", json!("RSA")),
        changed("kty", json!("OKP")),
        changed("crv", json!("P-384")),
        changed("crv", json!("secp256k1")),
        changed("d", json!("AAAA")),
        changed("x", json!(format!("{x}="))),
        changed("x", json!(x[1..])),
        changed("x", json!(format!("AA{x}"))),
        changed("x", json!(1)),
        changed("y", good["x"].clone()),
        changed("y", json!("")),
    ] {
        assert!(read(&bad).is_none(), "{bad}");
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("y");
    assert!(read(&without).is_none());
}
