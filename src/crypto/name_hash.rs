//! The name of a subject or a label in a revocation: a hash, so that a log of revocations does not name users.

use super::server_token::hashed_id;

const SUBJECT_DOMAIN: &[u8] = b"hyper-session revoked subject v1\0";
const LABEL_DOMAIN: &[u8] = b"hyper-session revoked label v1\0";
const NAMESPACE_DOMAIN: &[u8] = b"hyper-session label namespace v1\0";

/// The number of bytes at the start of a label's name that identify its namespace.
pub(crate) const NAMESPACE_LEN: usize = 4;

/// Returns the name of the sessions of `subject`.
pub(crate) fn subject_name(subject: &str) -> [u8; 16] {
    hashed_id(SUBJECT_DOMAIN, "", subject.as_bytes())
}

/// Returns the name of the sessions with this label. Labels of one namespace begin with the same four bytes, so that a
/// session can replace a label without keeping its text. `namespace` must not contain a zero byte.
pub(crate) fn label_name(namespace: &str, value: &str) -> [u8; 16] {
    let mut name = hashed_id(LABEL_DOMAIN, namespace, value.as_bytes());
    let space = hashed_id(NAMESPACE_DOMAIN, namespace, b"");
    name.iter_mut().zip(space).take(NAMESPACE_LEN).for_each(|(to, from)| *to = from);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_kind_namespace_and_value() {
        let names = [
            subject_name("ada"),
            subject_name("adb"),
            label_name("", "ada"),
            label_name("oidc", "ada"),
            label_name("oidc", "adb"),
            label_name("oid", "cada"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{at}");
        }
        assert_eq!(label_name("oidc", "a")[..NAMESPACE_LEN], label_name("oidc", "b")[..NAMESPACE_LEN]);
        assert_ne!(label_name("oidc", "a")[..NAMESPACE_LEN], label_name("saml", "a")[..NAMESPACE_LEN]);
    }
}
