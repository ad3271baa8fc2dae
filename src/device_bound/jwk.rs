//! The public key of a device as a JSON Web Key (RFC 7517, RFC 7518 section 6.2).

use super::json_object::Object;
use crate::crypto::{COORDINATE_LEN, PublicKey, decode_base64url_array};

/// Reads the key. `None` for any other key than a public one on P-256, and for a point that is not on the curve.
pub(super) fn read(jwk: &Object) -> Option<PublicKey> {
    let is_p256 = jwk.text("kty") == Some("EC") && jwk.text("crv") == Some("P-256");
    // A client that sends its private key has made a mistake that must not be built upon.
    if !is_p256 || jwk.has("d") {
        return None;
    }
    PublicKey::from_coordinates(&coordinate(jwk, "x")?, &coordinate(jwk, "y")?)
}

//= RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate for the curve specified
//# in the "crv" parameter."
fn coordinate(jwk: &Object, name: &str) -> Option<[u8; COORDINATE_LEN]> {
    decode_base64url_array(jwk.text(name)?.as_bytes())
}
