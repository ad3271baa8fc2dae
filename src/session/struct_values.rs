//! The whole session as one struct of the application: each field is the value under its name.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::RESERVED;
use super::messagepack::{MAX_DEPTH, map_len, skip_value, str_bytes};
use super::nil_fields::{NIL, absent_fields, read_with_nils};
use super::{Session, value_codec};
use crate::error::{Error, Kind};

/// Used in errors instead of a key.
const WHOLE: &str = "(all of them)";

impl Session {
    /// Returns all values as one `T`, each field from the value of its name. Returns `None` if there is no value at all.
    ///
    /// Fields that may be missing must be an `Option` or have `#[serde(default)]`. Values without a field are ignored.
    ///
    /// # Limits
    ///
    /// `Some(())` and `()` are stored alike, and serde does not say which of them a field under `#[serde(flatten)]` expects. If the
    /// flattened fields of one struct have both, `Some(())` is read as `None`.
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if the values are not a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    /// #[serde(default)]
    /// struct Visitor {
    ///     user: Option<String>,
    ///     visits: u64,
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// let mut visitor: Visitor = session.get_all()?.unwrap_or_default();
    /// visitor.visits += 1;
    /// session.set_all(&visitor)?;
    /// assert_eq!(session.get::<u64>("visits")?, Some(1)); // the same values, one by one
    /// assert!(!session.has("user")); // `None` is not a value
    /// assert_eq!(session.get_all()?, Some(visitor));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn get_all<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let entries: Vec<(String, Bytes)> = self.visible_entries();
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.iter().any(|(_, value)| value == NIL) {
            if let Some(whole) = read_with_nils(&entries) {
                return Ok(Some(whole));
            }
        }
        let internal = || Error::new(Kind::Internal("a session of four gigabytes"));
        let length = |length: usize| u32::try_from(length).map_err(|_| internal());
        let mut map = Vec::new();
        rmp::encode::write_map_len(&mut map, length(entries.len())?).map_err(|_| internal())?;
        for (key, value) in &entries {
            rmp::encode::write_str_len(&mut map, length(key.len())?).map_err(|_| internal())?;
            map.extend_from_slice(key.as_bytes());
            map.extend_from_slice(value);
        }
        value_codec::decode(WHOLE, &map).map(Some)
    }

    /// Stores each field of `value` under its name. A field that is `None`, or that `skip_serializing_if` skips, is deleted.
    /// Other values stay, and so do skipped fields of a struct with `#[serde(flatten)]`, because serde does not name them. A struct
    /// with the same fields that [`get_all`](Self::get_all) reads is equal to `value`.
    ///
    /// Fields that are equal to their stored value are not changes. So two requests that change different fields do not
    /// overwrite each other on a server-side store. For a counter use [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// [`is_value`](Error::is_value) if `value` is not a struct or a map with string keys, or if one of its fields cannot
    /// be [set](Self::set). [`is_head_sent`](Error::is_head_sent) if the response is on its way. On an error, nothing is
    /// changed.
    ///
    /// # Examples
    ///
    /// ```
    /// #[derive(serde::Serialize)]
    /// struct Visitor {
    ///     name: Option<String>,
    ///     visits: u64,
    /// }
    ///
    /// # hyper_session::__example(|session| {
    /// session.set("name", "ada")?;
    /// session.set_all(&Visitor { name: None, visits: 1 })?;
    /// assert!(!session.has("name"));
    /// assert_eq!(session.get("visits")?, Some(1));
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn set_all<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        let bytes = value_codec::encode(WHOLE, value)?;
        let not_a_map = || Error::new(Kind::Encode { key: WHOLE.to_owned() });
        let (len, mut rest) = map_len(&bytes).ok_or_else(not_a_map)?;
        let absent = absent_fields(value);
        if let Some(key) = absent.iter().find(|key| key.starts_with(RESERVED)) {
            return Err(Error::new(Kind::ReservedKey { key: key.clone() }));
        }
        let mut fields: BTreeMap<&str, _> = absent.iter().map(|name| (name.as_str(), None)).collect();
        for _ in 0..len {
            let (key, value) = str_bytes(rest).ok_or_else(not_a_map)?;
            let key = std::str::from_utf8(key).map_err(|_| not_a_map())?;
            rest = skip_value(value, MAX_DEPTH).ok_or_else(not_a_map)?;
            if key.starts_with(RESERVED) {
                return Err(Error::new(Kind::ReservedKey { key: key.to_owned() }));
            }
            let value = value.get(..value.len() - rest.len()).unwrap_or_default();
            if value != NIL || !absent.contains(key) {
                fields.insert(key, Some(bytes.slice_ref(value)));
            }
        }
        self.put_all(fields)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::__example;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Shop {
        user: Option<String>,
        cart: Vec<u32>,
        #[serde(default)]
        coupon: Option<String>,
    }

    /// The name of the user that the session is bound to.
    #[derive(Serialize)]
    struct Reserved {
        #[serde(rename = "\u{1}s", skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
    }

    #[test]
    fn a_reserved_field_is_refused_also_if_it_is_skipped() {
        __example(|session| {
            session.login("ada")?;
            for subject in [None, Some("bob".to_owned())] {
                assert!(session.set_all(&Reserved { subject }).unwrap_err().is_value());
            }
            assert_eq!(session.subject().as_deref(), Some("ada"));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_struct_and_single_values_are_one_format() {
        __example(|session| {
            assert_eq!(session.get_all::<Shop>()?, None);
            session.set("cart", [1, 2])?;
            session.set("other", true)?;
            session.set_flash("notice", "hello")?;
            let shop = session.get_all::<Shop>()?.unwrap();
            assert_eq!(shop, Shop { user: None, cart: vec![1, 2], coupon: None });
            session.set_all(&Shop { user: Some("Ada".into()), coupon: Some("X".into()), ..shop })?;
            assert_eq!(session.get_str("user")?.unwrap(), "Ada");
            session.set_all(&Shop { user: None, cart: vec![], coupon: None })?;
            assert_eq!(session.keys(), ["cart", "other"]);
            assert!(session.peek::<String>("notice")?.is_some(), "flash values are not part of it");
            Ok(())
        })
        .unwrap();
    }

    /// Otherwise no example and none of these tests would check anything.
    #[test]
    fn examples_are_run() {
        let mut runs = 0;
        __example(|_| {
            runs += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(runs, 1);
    }

    /// A field that the struct leaves out is absent afterwards, and not the value from before.
    #[test]
    fn b19_a_skipped_field_does_not_keep_its_former_value() {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        struct Profile {
            #[serde(skip_serializing_if = "Option::is_none")]
            nickname: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty", rename = "tags")]
            labels: Vec<u8>,
            visits: u64,
        }
        impl Default for Profile {
            fn default() -> Self {
                Self { nickname: None, labels: Vec::new(), visits: 1 }
            }
        }
        __example(|session| {
            session.set("other", true)?;
            let full = Profile { nickname: Some("Ada".into()), labels: vec![1], visits: 2 };
            for profile in [full.clone(), Profile::default(), full, Profile::default()] {
                session.set_all(&profile)?;
                assert_eq!(session.get_all::<Profile>()?, Some(profile));
            }
            assert_eq!(session.keys(), ["other", "visits"]);
            Ok(())
        })
        .unwrap();
    }

    /// A field is left out only if its absence reads back as the same value.
    #[test]
    fn b19_every_kind_of_nil_reads_back() {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Unit;
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Nothing(Option<u8>);
        // A field may be any kind of nil, the doubtful ones too.
        #[allow(clippy::option_option)]
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Nils {
            json: serde_json::Value,
            unit: (),
            named: Unit,
            newtype: Nothing,
            none: Option<u8>,
            some: Option<u8>,
            some_none: Option<Option<u8>>,
            some_unit: Option<()>,
            none_unit: Option<()>,
        }
        let nils = Nils {
            json: serde_json::Value::Null,
            unit: (),
            named: Unit,
            newtype: Nothing(None),
            none: None,
            some: Some(1),
            some_none: Some(None),
            some_unit: Some(()),
            none_unit: None,
        };
        __example(|session| {
            session.set("none", 7)?;
            session.set_all(&nils)?;
            assert_eq!(session.get_all()?, Some(nils.clone()));
            assert!(!session.has("none") && !session.has("none_unit"));
            assert!(session.has("some_none") && session.has("json"));
            // All of them together, as a map: here, too, only `None` is absent.
            let map = BTreeMap::from([("x", None), ("some", Some(2))]);
            session.set_all(&map)?;
            assert!(!session.has("x") && session.has("unit"));
            Ok(())
        })
        .unwrap();
    }

    /// In a struct with `#[serde(flatten)]`, too, where serde asks for a value without saying of which type.
    #[test]
    fn b19_nils_of_flattened_fields_read_back() {
        #[allow(clippy::option_option)]
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Inner {
            some_unit: Option<()>,
            some_none: Option<Option<u8>>,
            none: Option<()>,
            json: serde_json::Value,
            city: String,
        }
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Outer {
            some_unit_outside: Option<()>,
            name: String,
            #[serde(flatten)]
            inner: Inner,
        }
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Units {
            #[serde(flatten)]
            inner: Unit,
        }
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Unit {
            unit: (),
            none: Option<u8>,
        }
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Map {
            name: String,
            #[serde(flatten)]
            others: BTreeMap<String, serde_json::Value>,
        }
        let json = serde_json::Value::Null;
        let inner = Inner {
            some_unit: Some(()),
            some_none: Some(None),
            none: None,
            json: json.clone(),
            city: "London".into(),
        };
        let outer = Outer { some_unit_outside: Some(()), name: "Ada".into(), inner };
        let units = Units { inner: Unit { unit: (), none: None } };
        let map =
            Map { name: "Ada".into(), others: BTreeMap::from([("x".into(), json), ("y".into(), 1.into())]) };
        __example(|session| {
            session.set_all(&outer)?;
            assert_eq!(session.get_all()?, Some(outer.clone()));
            assert!(!session.has("none"));
            Ok(())
        })
        .unwrap();
        __example(|session| {
            session.set_all(&units)?;
            assert_eq!(session.get_all()?, Some(units.clone()));
            Ok(())
        })
        .unwrap();
        __example(|session| {
            session.set_all(&map)?;
            assert_eq!(session.get_all()?, Some(map.clone()));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn b19_a_nil_that_is_the_only_value_reads_back() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Consent {
            given: Option<()>,
        }
        __example(|session| {
            session.set_all(&Consent { given: Some(()) })?;
            assert_eq!(session.get_all()?, Some(Consent { given: Some(()) }));
            session.set_all(&Consent { given: None })?;
            assert_eq!(session.get_all::<Consent>()?, None, "there is no value at all");
            Ok(())
        })
        .unwrap();
    }

    /// A struct may be in an `Option` or in a struct of its own.
    #[test]
    fn b19_a_skipped_field_of_a_wrapped_struct_is_deleted() {
        #[derive(Serialize)]
        struct Wrapped(Shop);
        let shop = || Shop { user: None, cart: vec![], coupon: None };
        for wraps in [false, true] {
            __example(|session| {
                let set = |shop| {
                    if wraps { session.set_all(&Wrapped(shop)) } else { session.set_all(&Some(shop)) }
                };
                set(Shop { user: Some("Ada".into()), ..shop() })?;
                assert!(session.has("user"));
                set(shop())?;
                assert_eq!(session.keys(), ["cart"]);
                Ok(())
            })
            .unwrap();
        }
    }

    /// A nil that was set with `set` reads as `None` if the field has no other reading.
    #[test]
    fn b19_a_nil_that_was_set_alone_is_none() {
        __example(|session| {
            session.set("user", None::<String>)?;
            session.set("cart", [1])?;
            let shop = session.get_all::<Shop>()?.unwrap();
            assert_eq!(shop, Shop { user: None, cart: vec![1], coupon: None });
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn what_is_no_struct_changes_nothing() {
        __example(|session| {
            session.set("cart", "no list")?;
            let error = session.get_all::<Shop>().unwrap_err();
            assert!(error.is_value() && !format!("{error:?}").contains("no list"), "{error:?}");
            assert!(session.set_all(&7).unwrap_err().is_value());
            assert!(session.set_all(&BTreeMap::from([(1, 2)])).unwrap_err().is_value());
            let reserved = BTreeMap::from([("a", 1), ("\u{1}fnotice", 2)]);
            assert!(session.set_all(&reserved).unwrap_err().is_value());
            assert_eq!(session.keys(), ["cart"]);
            Ok(())
        })
        .unwrap();
    }
}
