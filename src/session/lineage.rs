//! The data in a session that makes it revocable: its position in the log, and the names by which revocations refer to it.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use super::integer_array::{self, Numbers};
use super::key::{LABELS, LINEAGE, SUBJECT};
use super::messagepack::str_bytes;
use super::{Payload, SessionId};
use crate::crypto::{NAMESPACE_LEN, subject_name};
use crate::error::{Error, Kind};

/// How many labels a session may have.
pub(super) const MAX_LABELS: usize = 4;

/// The name of a group of sessions in a revocation: a hash of a subject or of a label.
pub(crate) type Name = [u8; 16];

/// The names of a session's labels.
pub(crate) struct Labels<'a>(Option<&'a [u8]>);

impl Labels<'_> {
    #[inline]
    pub(crate) fn names(&self) -> impl Iterator<Item = Name> {
        let mut numbers = self.0.and_then(integer_array::read);
        std::iter::from_fn(move || name(numbers.as_mut()?))
    }
}

/// A position in the log of revocations. A session is older than every revocation after its position.
///
/// Positions count within one incarnation of the log. A log in memory has a new incarnation after each start. A position of
/// an earlier incarnation is before all positions of the present one.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, Revocations};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyper_session::Error> {
/// let store = CookieStore::builder(AppKey::generate()?).revocations(Revocations::in_memory()).build()?;
/// let before = store.revocation_position().await?;
/// store.end_sessions_of("user-42").await?;
/// assert_ne!(store.revocation_position().await?, before);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

impl Position {
    /// The position before all revocations.
    const FIRST: Self = Self { incarnation: 0, sequence: 0 };

    /// The position with the longest encoding, for checking whether a session fits before its position is known.
    pub(crate) const LONGEST: Self = Self { incarnation: u64::MAX, sequence: u64::MAX };
}

/// The data by which a revocation finds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The position at its login, or at its beginning if it has no login.
    pub(crate) position: Position,
    /// The subject that it was bound to at the login.
    pub(crate) owner: Option<Name>,
    /// The id that it had at the login. `None`: the id that it has now.
    pub(crate) root: Option<SessionId>,
}

impl Lineage {
    /// Encodes the lineage as an array of integers, which both formats of a payload can hold: incarnation and sequence of
    /// the position, then the halves of the owner and of the root, if there are any. Without an owner the root is left out,
    /// because only sessions with a login are revoked by their root.
    fn to_bytes(self) -> Result<Bytes, Error> {
        let Self { position, owner, root } = self;
        let mut numbers = SmallVec::<[u64; 6]>::new();
        numbers.extend([position.incarnation, position.sequence]);
        if let Some(owner) = owner {
            numbers.extend(halves(owner));
            numbers.extend(root.into_iter().flat_map(|root| halves(root.to_bytes())));
        }
        integer_array::write(&numbers)
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut numbers = integer_array::read(bytes)?;
        let position = Position { incarnation: numbers.next()?, sequence: numbers.next()? };
        let owner = name(&mut numbers);
        let root = name(&mut numbers).map(SessionId::from_bytes);
        numbers.is_complete().then_some(Self { position, owner, root })
    }
}

/// Adds `name` to the labels of `stored`, instead of the label of the same namespace if there is one.
///
/// # Errors
///
/// [`is_value`](Error::is_value) if there are too many labels.
pub(super) fn with_label(stored: Option<&[u8]>, name: Name) -> Result<Bytes, Error> {
    let mut labels: SmallVec<[Name; MAX_LABELS]> = Labels(stored).names().collect();
    let same_namespace = |label: &Name| label.iter().zip(name).take(NAMESPACE_LEN).all(|(a, b)| *a == b);
    let there = labels.iter().position(same_namespace);
    if let Some(label) = there.and_then(|at| labels.get_mut(at)) {
        *label = name;
    } else if labels.len() >= MAX_LABELS {
        return Err(Error::new(Kind::Label));
    } else {
        labels.push(name);
    }
    labels_to_bytes(labels)
}

/// Returns the labels of `stored` that are among `names`, or `None` if there are none.
pub(super) fn labels_among(stored: Option<&[u8]>, names: &[Name]) -> Result<Option<Bytes>, Error> {
    let labels: SmallVec<[Name; MAX_LABELS]> =
        Labels(stored).names().filter(|label| names.contains(label)).collect();
    if labels.is_empty() { Ok(None) } else { labels_to_bytes(labels).map(Some) }
}

/// Returns true if a label is in both lists.
pub(super) fn share_label(one: Option<&[u8]>, other: &[u8]) -> bool {
    Labels(one).names().any(|name| Labels(Some(other)).names().any(|label| label == name))
}

/// Returns an empty list of labels.
pub(super) fn no_labels() -> Result<Bytes, Error> {
    labels_to_bytes(SmallVec::new())
}

/// Returns the name of the sessions of an encoded subject.
pub(super) fn name_of_subject(encoded: &[u8]) -> Option<Name> {
    let (text, _) = str_bytes(encoded)?;
    std::str::from_utf8(text).ok().map(subject_name)
}

fn labels_to_bytes(labels: SmallVec<[Name; MAX_LABELS]>) -> Result<Bytes, Error> {
    let numbers: SmallVec<[u64; 2 * MAX_LABELS]> = labels.into_iter().flat_map(halves).collect();
    integer_array::write(&numbers)
}

impl Payload {
    /// Returns the lineage.
    #[inline]
    pub(crate) fn lineage(&self) -> Lineage {
        let stored = self.find_reserved(LINEAGE).and_then(|range| Lineage::from_bytes(self.slice(range)));
        stored.unwrap_or_else(|| self.first_lineage())
    }

    /// Returns the lineage of a session that was sealed before revocation was switched on: it is at the first position, and
    /// belongs to its subject.
    #[cold]
    fn first_lineage(&self) -> Lineage {
        let subject = self.find_reserved(SUBJECT).and_then(|_| self.subject());
        Lineage {
            position: Position::FIRST,
            owner: subject.map(|subject| subject_name(&subject)),
            root: None,
        }
    }

    /// Returns the names of its labels.
    #[inline]
    pub(crate) fn labels(&self) -> Labels<'_> {
        Labels(self.find_reserved(LABELS).map(|range| self.slice(range)))
    }

    /// Returns the same values for a session that is given another id than `id` by a store without revocations. If a store
    /// with revocations began it, a logout there must still find its copies from before.
    pub(crate) fn keeping_root(self, id: SessionId) -> Result<Self, Error> {
        if self.find_reserved(LINEAGE).is_none() {
            return Ok(self);
        }
        let lineage = self.lineage();
        self.with_lineage(&Lineage { root: lineage.root.or(Some(id)), ..lineage }, None)
    }

    /// Returns the same values with another lineage, and with the labels of `labelled` if there are none.
    pub(crate) fn with_lineage(&self, lineage: &Lineage, labelled: Option<&Self>) -> Result<Self, Error> {
        let lineage = lineage.to_bytes()?;
        let labels = match self.find_reserved(LABELS) {
            Some(_) => None,
            None => labelled.and_then(|labelled| labelled.get(LABELS)),
        };
        let labels = labels.as_deref().map(|labels| (LABELS, Some(labels)));
        Self::merge(Some(self), labels.into_iter().chain([(LINEAGE, Some(&*lineage))]))
    }
}

fn halves(name: Name) -> [u64; 2] {
    let name = u128::from_be_bytes(name);
    #[allow(clippy::cast_possible_truncation)] // the lower half is wanted
    [(name >> 64) as u64, name as u64]
}

/// Reads the name whose halves are the next two numbers.
#[inline]
fn name(numbers: &mut Numbers<'_>) -> Option<Name> {
    let (high, low) = (numbers.next()?, numbers.next()?);
    Some((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.incarnation, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PayloadFormat;
    use super::*;
    use proptest::prelude::*;

    fn lineage() -> impl Strategy<Value = Lineage> {
        let position =
            any::<(u64, u64)>().prop_map(|(incarnation, sequence)| Position { incarnation, sequence });
        (position, any::<Option<[u8; 16]>>(), any::<Option<[u8; 16]>>()).prop_map(
            |(position, owner, root)| {
                let root = root.filter(|_| owner.is_some()).map(SessionId::from_bytes);
                Lineage { position, owner, root }
            },
        )
    }

    proptest! {
        #[test]
        fn a_lineage_and_labels_survive_both_formats(lineage in lineage(), names in proptest::collection::vec(any::<[u8; 16]>(), 0..4)) {
            let mut labels = None;
            for name in &names {
                labels = Some(with_label(labels.as_deref(), *name).unwrap());
            }
            let empty = Payload::merge(None, [("a", Some(&b"\x01"[..]))].into_iter()).unwrap();
            let labelled = labels.map(|labels| Payload::merge(None, [(LABELS, Some(&*labels))].into_iter()).unwrap());
            let payload = empty.with_lineage(&lineage, labelled.as_ref()).unwrap();
            for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
                let bytes = Bytes::copy_from_slice(&payload.to_format(format).unwrap());
                let read = Payload::parse(bytes).unwrap();
                prop_assert_eq!(read.lineage(), lineage);
                prop_assert!(read.labels().names().eq(names.iter().copied()));
                prop_assert!(!read.is_empty());
            }
        }

        #[test]
        fn reading_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Lineage::from_bytes(&bytes);
            let _ = Labels(Some(&bytes)).names().count();
        }
    }

    #[test]
    fn no_handler_sees_the_keys() {
        assert!([LINEAGE, LABELS].iter().all(|key| key.starts_with(super::super::key::RESERVED)));
    }

    #[test]
    fn one_label_of_a_namespace_and_four_namespaces() {
        let name = |space: u8, value: u8| {
            let mut name = [value; 16];
            name[0] = space;
            name[1..4].fill(0);
            name
        };
        let mut labels = None;
        for space in 0..4 {
            labels = Some(with_label(labels.as_deref(), name(space, 1)).unwrap());
        }
        assert!(with_label(labels.as_deref(), name(4, 1)).is_err(), "a fifth");
        let replaced = with_label(labels.as_deref(), name(2, 9)).unwrap();
        assert!(Labels(Some(&replaced)).names().eq([name(0, 1), name(1, 1), name(2, 9), name(3, 1)]));
    }
}
