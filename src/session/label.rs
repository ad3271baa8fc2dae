//! Labels: names under which an application can end sessions later.

use super::Session;
use crate::crypto::label_name;
use crate::error::{Error, Kind};

/// A namespace is one word that the application chooses.
const MAX_NAMESPACE: usize = 64;
/// The longest label is the URL of an issuer with a session id.
const MAX_VALUE: usize = 4096;

impl Session {
    /// Labels the session with `value`, so that [`CookieStore::end_labelled`](crate::CookieStore::end_labelled) can end it.
    ///
    /// A session can have labels in at most four namespaces, and one label in each. A second label in the same namespace
    /// replaces the first one. Labels stay when the session is regenerated, when it is cleared, and when the same subject logs in
    /// again. They end with the session. If another subject logs in, only the labels of this request go on to its session.
    ///
    /// The token holds a hash of the label (18 bytes), not its text.
    ///
    /// # Security
    ///
    /// Call it in the request of the login, before or after [`login`](Self::login). A copy of the cookie from before the label
    /// does not have it, and ending the label does not end that copy.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the store does not keep revocations, because the label would have no effect.
    /// [`is_value`](Error::is_value) if `namespace` is empty, longer than 64 bytes or contains a zero byte, if `value` is
    /// empty or longer than 4096 bytes, or if the session has labels in four other namespaces.
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Examples
    ///
    /// The session at an OpenID Connect provider, which back-channel logout names:
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// let (issuer, sid) = ("https://id.example", "08a5019c");
    /// session.login("user-42")?;
    /// session.label("oidc", &format!("{issuer}#{sid}"))?;
    /// assert!(session.keys().is_empty()); // labels are not values
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn label(&self, namespace: &str, value: &str) -> Result<(), Error> {
        if !self.inner.circumstances.revocable {
            return Err(Error::config(
                "labels need a cookie store with revocations: call revocations() on its builder",
            ));
        }
        check_label(namespace, value)?;
        self.lock_open()?.label(label_name(namespace, value))
    }
}

/// Refuses an invalid label.
pub(crate) fn check_label(namespace: &str, value: &str) -> Result<(), Error> {
    let namespaced = (1..=MAX_NAMESPACE).contains(&namespace.len()) && !namespace.contains('\0');
    if namespaced && (1..=MAX_VALUE).contains(&value.len()) { Ok(()) } else { Err(Error::new(Kind::Label)) }
}

#[cfg(test)]
mod tests {
    use super::super::__example;

    #[test]
    fn labels_are_bounded_and_no_values() {
        __example(|session| {
            for (namespace, value) in [("", "x"), ("a\0", "x"), ("a", ""), (&*"n".repeat(65), "x")] {
                assert!(session.label(namespace, value).unwrap_err().is_value(), "{namespace:?}");
            }
            assert!(session.label("a", &"v".repeat(4097)).unwrap_err().is_value());
            for namespace in ["a", "b", "c", "d", "a", "b"] {
                session.label(namespace, "x")?;
            }
            assert!(session.label("e", "x").unwrap_err().is_value());
            assert!(session.is_empty() && session.keys().is_empty());
            assert_eq!(session.get_all::<std::collections::BTreeMap<String, u8>>()?, None);
            Ok(())
        })
        .unwrap();
    }
}
