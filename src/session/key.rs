//! Names of values: strings, or constants that know the type of their value.

use std::fmt;
use std::marker::PhantomData;

use crate::error::{Error, Kind};

/// Keys that begin with U+0001 are reserved for the crate. Applications cannot use them.
pub(super) const RESERVED: char = '\u{1}';

/// Under this key a session keeps its subject.
pub(super) const SUBJECT: &str = "\u{1}s";

/// Under this key a revocable session keeps its [`Lineage`](super::lineage::Lineage).
pub(super) const LINEAGE: &str = "\u{1}r";

/// Under this key a session keeps the names of its labels.
pub(super) const LABELS: &str = "\u{1}n";

/// Under this key a session keeps its [`Lifetime`](super::Lifetime).
pub(super) const LIFETIME: &str = "\u{1}l";

/// Under this key a session keeps the time and the method of its subject's authentication.
pub(super) const AUTHENTICATION: &str = "\u{1}a";

/// Under this key a session keeps the description of its device.
pub(super) const DESCRIPTION: &str = "\u{1}d";

/// Under this key a session keeps the secrets of its form tokens. Not bookkeeping: a visitor whose form is protected has a
/// session.
pub(super) const CSRF_SECRETS: &str = "\u{1}c";

/// Under this key a session keeps the device that it is bound to.
pub(super) const BINDING: &str = "\u{1}b";

/// Returns true for a key whose value is about the session, and is not a part of its contents: a session with nothing else
/// is empty.
#[inline]
pub(super) fn is_bookkeeping(key: &[u8]) -> bool {
    const KEYS: [&str; 6] = [LIFETIME, AUTHENTICATION, BINDING, DESCRIPTION, LINEAGE, LABELS];
    // Most keys are the application's.
    key.first() == Some(&1) && KEYS.iter().any(|bookkeeping| bookkeeping.as_bytes() == key)
}

/// The keys of flash values begin like this, except in stores that share sessions with Astra.
pub(super) const FLASH: &str = "\u{1}f";

/// Returns true for a key whose value is neither a flash value nor bookkeeping.
pub(super) fn is_lasting(key: &[u8]) -> bool {
    !is_bookkeeping(key) && !key.starts_with(FLASH.as_bytes())
}

/// The name of a value, and its type: write both once.
///
/// A [`Session`](crate::Session) takes a string or a `Key` wherever it takes a key. Both name the same value:
/// `session.get(USER)` and `session.get::<UserId>("user")` read one value.
///
/// # Examples
///
/// ```
/// use hyper_session::Key;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
/// struct UserId(u64);
///
/// const USER: Key<UserId> = Key::new("user");
/// const VISITS: Key<u64> = Key::new("visits");
///
/// # hyper_session::__example(|session| {
/// session.set(USER, UserId(7))?;
/// assert_eq!(session.get(USER)?, Some(UserId(7))); // no type to repeat, and none to get wrong
/// assert_eq!(session.update(VISITS, |old| old.unwrap_or(0) + 1)?, 1);
/// assert!(session.delete(USER)?);
///
/// assert_eq!(session.get::<u64>("visits")?, Some(1)); // the same value, by its name
/// # Ok(())
/// # }).unwrap();
/// ```
///
/// A value of another type does not compile:
///
/// ```compile_fail
/// # use hyper_session::Key;
/// const VISITS: Key<u64> = Key::new("visits");
/// # hyper_session::__example(|session| {
/// session.set(VISITS, "three")?;
/// # Ok(())
/// # }).unwrap();
/// ```
pub struct Key<T> {
    name: &'static str,
    // Neither owns nor borrows a `T`, so a key is `Send` and `Sync` for any `T`.
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Creates a key with this name. Names that start with U+0001 are reserved, and refused when a value is written.
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

/// The name of a value of a session: a reference to any string, or a [`Key`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a session value",
    note = "pass a `&str`, or a `Key`"
)]
pub trait AsKey: Copy + sealed::Name {}

/// The name of a value that can be read as a `T`.
#[diagnostic::on_unimplemented(message = "`{Self}` does not name a session value of type `{T}`")]
pub trait ReadKey<T>: AsKey {}

/// The name of a value that can be set to a `V`. For a [`Key<T>`](Key), that is a `T` or a `&T`. For a string, it is any
/// type.
#[diagnostic::on_unimplemented(message = "the session value named by `{Self}` cannot be set to a `{V}`")]
pub trait WriteKey<V>: AsKey {}

impl<S: AsRef<str> + ?Sized> AsKey for &S {}
impl<S: AsRef<str> + ?Sized, T> ReadKey<T> for &S {}
impl<S: AsRef<str> + ?Sized, V> WriteKey<V> for &S {}

impl<T> AsKey for Key<T> {}
impl<T> ReadKey<T> for Key<T> {}
impl<T> WriteKey<T> for Key<T> {}
impl<T> WriteKey<&T> for Key<T> {}
// Only references, so that callers do not allocate a `String`.
impl WriteKey<&str> for Key<String> {}

mod sealed {
    #[allow(unnameable_types)] // this seals the trait
    pub trait Name {
        /// Returns the name.
        fn as_key(&self) -> &str;
    }

    impl<S: AsRef<str> + ?Sized> Name for &S {
        fn as_key(&self) -> &str {
            (**self).as_ref()
        }
    }

    impl<T> Name for super::Key<T> {
        fn as_key(&self) -> &str {
            self.name
        }
    }
}

/// Refuses a reserved key.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if key.starts_with(RESERVED) {
        Err(Error::new(Kind::ReservedKey { key: key.to_owned() }))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::__example;

    const NAME: Key<String> = Key::new("name");
    const CART: Key<Vec<u32>> = Key::new("cart");

    #[test]
    fn a_key_and_its_name_are_one_value() {
        __example(|session| {
            session.set(CART, vec![1, 2])?;
            let copy = session.get(CART)?.unwrap();
            session.set(CART, &copy)?;
            assert_eq!(session.get::<Vec<u32>>("cart")?, Some(vec![1, 2]));
            session.set(NAME, "Ada")?;
            assert_eq!(session.get_str(NAME)?.unwrap(), "Ada");
            assert!(session.has(NAME) && session.has("name") && session.has(&String::from("name")));
            session.set_flash(NAME, "Welcome")?;
            assert_eq!(
                (session.peek(NAME)?, session.flash(NAME)?),
                (Some("Welcome".into()), Some("Welcome".into()))
            );
            assert_eq!(session.flash(NAME)?, None);
            assert!(session.delete(NAME)? && !session.delete("name")?);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_reserved_name_is_refused_where_it_is_written() {
        const RESERVED: Key<u8> = Key::new("\u{1}f");
        __example(|session| {
            assert!(session.set(RESERVED, 1).unwrap_err().is_value());
            assert!(session.delete(RESERVED).unwrap_err().is_value());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_key_is_sent_and_shared_whatever_it_names() {
        fn shareable<T: Send + Sync + Copy + fmt::Debug>(_: T) {}
        shareable(Key::<std::rc::Rc<u8>>::new("rc"));
        assert_eq!(format!("{NAME:?}"), "Key(\"name\")");
    }
}
