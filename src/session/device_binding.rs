//! The device that a session is bound to: its public key, and since when.

use std::sync::Arc;

use bytes::Bytes;

use super::circumstances::DeviceCheck;
use super::key::BINDING;
use super::{Payload, Session, integer_array};
use crate::clock::Timestamp;
use crate::crypto::PublicKey;
use crate::error::Error;

/// The state of a session's binding to a device: see [`Session::binding`].
///
/// # Examples
///
/// See the guide [`device_bound`](crate::guide::device_bound#asking-for-more-where-a-session-is-not-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Binding {
    /// There is no session, or it is not bound: the browser cannot do that, or has not done it yet.
    Unbound,
    /// The session is bound, and the request comes from its device, or the session was bound less than a minute ago: until then,
    /// the browser may not have the bound cookie.
    #[non_exhaustive]
    Bound {
        /// When it was bound.
        since: Timestamp,
    },
    /// The session is bound, and the store does not check that the request comes from its device:
    /// [`device_bound`](crate::store::Builder::device_bound) is not set, or
    /// [`answer_only`](crate::DeviceBound::answer_only) is.
    #[non_exhaustive]
    Unchecked {
        /// When it was bound.
        since: Timestamp,
    },
    /// The request came with a bound session, and without a valid proof that it comes from its device. The session is empty, or has
    /// the values that the handler has set since. After a [`login`](Session::login) it is [`Unbound`](Self::Unbound).
    Lapsed,
}

impl Binding {
    /// Returns true for [`Bound`](Self::Bound).
    pub const fn is_bound(self) -> bool {
        matches!(self, Self::Bound { .. })
    }
}

/// The value under the reserved key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceBinding {
    pub(crate) key: PublicKey,
    pub(crate) since: Timestamp,
}

/// A value under the reserved key that this release cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl DeviceBinding {
    /// Encodes the binding as an array of integers: since, 1 if the y of the key is odd and otherwise 0, then its x in four
    /// words.
    fn to_bytes(self) -> Result<Bytes, Error> {
        let (odd, x) = self.key.parts();
        let mut numbers = [self.since.as_unix(), odd.into(), 0, 0, 0, 0];
        for (word, bytes) in numbers.iter_mut().skip(2).zip(x.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        integer_array::write(&numbers)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut numbers = integer_array::read(bytes)?;
        let since = Timestamp::from_unix(numbers.next()?);
        let odd @ (0 | 1) = numbers.next()? else { return None };
        let mut x = [0; 32];
        for bytes in x.chunks_exact_mut(8) {
            bytes.copy_from_slice(&numbers.next()?.to_be_bytes());
        }
        numbers.is_complete().then(|| Self { key: PublicKey::of(odd == 1, &x), since })
    }
}

impl Payload {
    /// Returns the device that the session is bound to, or `None` if it is not bound.
    ///
    /// # Errors
    ///
    /// If there is a binding that this release cannot read. The session must then not be used as an unbound one.
    pub(crate) fn device_binding(&self) -> Result<Option<DeviceBinding>, Unreadable> {
        let Some(range) = self.find_reserved(BINDING) else { return Ok(None) };
        DeviceBinding::from_bytes(self.slice(range)).map(Some).ok_or(Unreadable)
    }
}

impl Session {
    /// Returns whether the session is bound to a device, so that only this device can use it.
    ///
    /// A store binds sessions if it has the option [`device_bound`](crate::store::Builder::device_bound). A handler can ask
    /// for a second factor where a browser cannot bind its session.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{Binding, Session};
    ///
    /// // A binding shows that the device is there, and not that its user is: the password was asked for before.
    /// fn needs_second_factor(session: &Session, amount: u64) -> bool {
    ///     amount > if session.binding().is_bound() { 500 } else { 50 }
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// assert_eq!(session.binding(), Binding::Unbound);
    /// assert!(needs_second_factor(session, 100));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    #[doc(alias = "dbsc")]
    pub fn binding(&self) -> Binding {
        let check = self.inner.circumstances.device;
        match self.raw(BINDING).map(|value| DeviceBinding::from_bytes(&value)) {
            None if check == DeviceCheck::Failed && self.subject().is_none() => Binding::Lapsed,
            None => Binding::Unbound,
            Some(Some(DeviceBinding { since, .. })) if check == DeviceCheck::Unchecked => {
                Binding::Unchecked { since }
            }
            Some(Some(DeviceBinding { since, .. })) => Binding::Bound { since },
            Some(None) => Binding::Lapsed,
        }
    }

    /// Binds the session to the device that holds `key`, unless it is bound when it is saved.
    pub(crate) fn bind_device(&self, key: PublicKey) -> Result<(), Error> {
        let value = DeviceBinding { key, since: self.now() }.to_bytes()?;
        let first = value.clone();
        // A step and not a value: of two devices that register at the same time, the first one stays.
        let step = Arc::new(move |old: Option<&[u8]>| Ok(old.is_none().then(|| first.clone())));
        self.lock_open()?.bind_device(step, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{__example, PayloadFormat};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_binding_survives_both_formats(since in any::<u64>(), odd in any::<bool>(), x in any::<[u8; 32]>()) {
            let binding = DeviceBinding { key: PublicKey::of(odd, &x), since: Timestamp::from_unix(since) };
            let bytes = binding.to_bytes().unwrap();
            prop_assert_eq!(DeviceBinding::from_bytes(&bytes), Some(binding));
            let values = [(BINDING, Some(&*bytes)), ("a", Some(&b"\x01"[..]))];
            let payload = Payload::merge(None, values.into_iter()).unwrap();
            for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
                let bytes = Bytes::copy_from_slice(&payload.to_format(format).unwrap());
                let read = Payload::parse(bytes).unwrap();
                prop_assert_eq!(read.device_binding(), Ok(Some(binding)));
            }
        }

        #[test]
        fn reading_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = DeviceBinding::from_bytes(&bytes);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_unbound() {
        for bytes in [&b"\x90"[..], b"\xc0", b"\x96\x01\x02\x01\x01\x01\x01", b"\x95\x01\x01\x01\x01\x01"] {
            let values = [(BINDING, Some(bytes)), ("a", Some(&b"\x01"[..]))];
            let payload = Payload::merge(None, values.into_iter()).unwrap();
            assert_eq!(payload.device_binding(), Err(Unreadable), "{bytes:?}");
        }
    }

    #[test]
    fn only_a_checked_binding_counts() {
        let since = Timestamp::from_unix(7);
        assert!(Binding::Bound { since }.is_bound());
        for binding in [Binding::Unbound, Binding::Unchecked { since }, Binding::Lapsed] {
            assert!(!binding.is_bound(), "{binding:?}");
        }
    }

    #[test]
    fn a_binding_ends_with_its_subject_and_not_with_a_login_of_the_same() {
        let key = PublicKey::of(true, &[7; 32]);
        __example(|session| {
            session.login("ada")?;
            session.bind_device(key)?;
            assert!(session.binding().is_bound() && session.keys().is_empty());
            session.login("ada")?;
            session.reauthenticate()?;
            assert!(session.binding().is_bound());
            session.login("bob")?;
            assert_eq!(session.binding(), Binding::Unbound);
            session.bind_device(key)?;
            session.clear()?;
            assert_eq!(session.binding(), Binding::Unbound);
            Ok(())
        })
        .unwrap();
    }
}
