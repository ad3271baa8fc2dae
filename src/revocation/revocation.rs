//! One revocation: its key, and the position from which it counts.

use std::fmt;

use crate::crypto::{Random, label_name, subject_name};
use crate::error::Error;
use crate::session::{Name, SessionId, check_label};

/// The key under which a revocation is looked up: 128 bits of a name, as two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u64; 2]);

/// Distinguishes the id of a session from a root of the same bytes: a session's first id is both.
const ROOT: u128 = 0x726f_6f74_206f_6620_6120_7365_7373_696f;
const EVERYTHING: Key = Key([0, 0]);

impl Key {
    /// Returns the key of the session with this id, and of no later id of the same login.
    #[inline]
    pub(super) fn of_id(id: SessionId) -> Self {
        Self::of_name(id.to_bytes())
    }

    /// Returns the key of the session that had this id at its login, with all later ids.
    #[inline]
    pub(super) fn of_root(root: SessionId) -> Self {
        Self::of_name((u128::from_be_bytes(root.to_bytes()) ^ ROOT).to_be_bytes())
    }

    /// Returns the key of the sessions of a subject, or of the sessions with a label.
    #[inline]
    pub(super) fn of_name(name: Name) -> Self {
        let name = u128::from_be_bytes(name);
        #[allow(clippy::cast_possible_truncation)] // both halves are used
        Self([(name >> 64) as u64, name as u64])
    }

    pub(super) fn is_everything(self) -> bool {
        self == EVERYTHING
    }
}

/// The position from which on a key is revoked, in one word.
///
/// ```text
/// bit 63     forever: whatever the position of the session
/// bit 62     beside bit 63, superseded: the session continues under another id
///            without it, retired: the same, and this id is valid for another minute; for four more minutes it counts as
///            superseded
/// bits 0..62 the position
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

const FOREVER: u64 = 1 << 63;
const SUPERSEDED: u64 = 1 << 62;

/// The largest possible position.
pub(super) const MAX_POSITION: u64 = SUPERSEDED - 1;

impl Mark {
    pub(super) fn at(position: u64) -> Self {
        Self(position.min(MAX_POSITION))
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) fn position(self) -> u64 {
        self.0 & MAX_POSITION
    }

    pub(super) fn is_superseded(self) -> bool {
        self.0 & SUPERSEDED != 0
    }

    /// Returns true if the id is valid for another minute. For four more minutes it counts as superseded, and then never again.
    pub(super) fn is_retired(self) -> bool {
        self.0 & (FOREVER | SUPERSEDED) == SUPERSEDED
    }

    /// Returns true if this ends a session with this position.
    #[inline]
    pub(super) fn ends(self, position: u64) -> bool {
        self.0 & FOREVER != 0 || self.position() > position
    }

    /// Combines two revocations of one key. A key that was ended for good is not merely superseded.
    pub(super) fn and(self, other: Self) -> Self {
        let flags = (self.0 | other.0) & FOREVER | self.0 & other.0 & SUPERSEDED;
        Self(self.position().max(other.position()) | flags)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forever = self.0 & FOREVER != 0;
        write!(f, "Mark({}, forever: {forever}, superseded: {})", self.position(), self.is_superseded())
    }
}

/// A revocation as a [`RevocationLog`](super::RevocationLog) keeps it: 25 opaque bytes.
///
/// It holds hashes and random ids, so that a log does not name users.
///
/// ```text
/// offset  bytes  field
///      0     16  the name: of a session, a subject, a label, or zeros for everything
///     16      1  flags: 1 whatever the session's position, 3 the session continues under another id, 2 it does, and its
///                present id is valid for another minute, and for four more minutes it counts as superseded
///     17      8  the position that it had when it was first written, if it was written again; if the highest bit is set,
///                63 random bits of the call that wrote it; otherwise zero. Big-endian.
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revocation {
    key: Key,
    flags: u8,
    /// Zero, or with [`OF_CALL`], if it counts from its position in the log.
    original: u64,
}

/// Positions do not have this bit.
const OF_CALL: u64 = 1 << 63;

const FLAG_FOREVER: u8 = 1;
const FLAG_SUPERSEDED: u8 = 2;

impl Revocation {
    /// The number of its bytes.
    pub const LEN: usize = 25;

    pub(crate) fn of_id(id: SessionId, superseded: bool) -> Self {
        Self::named(Key::of_id(id), FLAG_FOREVER | if superseded { FLAG_SUPERSEDED } else { 0 })
    }

    /// Revokes the id in a minute: its session continues under another id, and requests with this one are on their way.
    pub(crate) fn retiring_id(id: SessionId) -> Self {
        Self::named(Key::of_id(id), FLAG_SUPERSEDED)
    }

    pub(crate) fn of_root(root: SessionId, superseded: bool) -> Self {
        Self::named(Key::of_root(root), FLAG_FOREVER | if superseded { FLAG_SUPERSEDED } else { 0 })
    }

    pub(crate) fn of_owner(owner: Name) -> Self {
        Self::named(Key::of_name(owner), 0)
    }

    /// As [`by_call`](Self::by_call), with these bits.
    #[cfg(test)]
    pub(super) fn by_this_call(self, call: u64) -> Self {
        Self { original: call | OF_CALL, ..self }
    }

    /// Revokes the same, and differs from the revocations of all other calls. If the reply of a log is lost, the log may have it
    /// twice, and the caller must recognize its own.
    pub(super) fn by_call(self, random: &dyn Random) -> Result<Self, Error> {
        let mut call = [0; 8];
        random.fill(&mut call)?;
        Ok(Self { original: u64::from_be_bytes(call) | OF_CALL, ..self })
    }

    pub(super) fn of_subject(subject: &str) -> Self {
        Self::of_owner(subject_name(subject))
    }

    pub(super) fn of_label(namespace: &str, value: &str, forever: bool) -> Result<Self, Error> {
        check_label(namespace, value)?;
        let key = Key::of_name(label_name(namespace, value));
        Ok(Self::named(key, if forever { FLAG_FOREVER } else { 0 }))
    }

    pub(super) fn of_everything() -> Self {
        Self::named(EVERYTHING, 0)
    }

    fn named(key: Key, flags: u8) -> Self {
        Self { key, flags, original: 0 }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Returns true if this ends only the sessions with lower positions.
    pub(super) fn counts_by_position(&self) -> bool {
        self.flags == 0
    }

    /// Returns its meaning, if the log has it at `position`.
    pub(super) fn mark(&self, position: u64) -> Mark {
        let counts_from_here = self.original == 0 || self.original & OF_CALL != 0;
        let position = if counts_from_here { position } else { self.original };
        let forever = if self.flags & FLAG_FOREVER == 0 { 0 } else { FOREVER };
        let superseded = if self.flags & FLAG_SUPERSEDED == 0 { 0 } else { SUPERSEDED };
        Mark(Mark::at(position).0 | forever | superseded)
    }

    /// Returns the revocation that `mark` came from, to be written again.
    pub(super) fn again(key: Key, mark: Mark) -> Self {
        let forever = if mark.0 & FOREVER == 0 { 0 } else { FLAG_FOREVER };
        let superseded = if mark.is_superseded() { FLAG_SUPERSEDED } else { 0 };
        Self { key, flags: forever | superseded, original: mark.position() }
    }

    /// Returns true if this revokes the session with the id `id`. The id from its login also ends the ids that the session was
    /// given since.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hyper_session::revocation::{Revocation, RevocationLog};
    ///
    /// /// Returns the positions at which the sessions of `subject` were revoked.
    /// async fn positions(log: &impl RevocationLog, subject: &str) -> Result<Vec<u64>, hyper_session::Error> {
    ///     let page = log.read(0, Duration::ZERO).await?; // the first one
    ///     let named = page.entries.iter().filter(|entry| entry.revocation.names_subject(subject));
    ///     Ok(named.map(|entry| entry.position).collect())
    /// }
    /// # let zeros = Revocation::from_bytes(&[0; Revocation::LEN]).unwrap();
    /// # assert!(zeros.names_everything() && !zeros.names_subject("ada") && !zeros.names_label("a", "b"));
    /// ```
    pub fn names_session(&self, id: SessionId) -> bool {
        self.key == Key::of_id(id) || self.key == Key::of_root(id)
    }

    /// Returns true if this revokes the sessions of `subject`.
    pub fn names_subject(&self, subject: &str) -> bool {
        self.key == Key::of_name(subject_name(subject))
    }

    /// Returns true if this revokes the sessions with this label.
    pub fn names_label(&self, namespace: &str, value: &str) -> bool {
        self.key == Key::of_name(label_name(namespace, value))
    }

    /// Returns true if this revokes all sessions.
    pub fn names_everything(&self) -> bool {
        self.key.is_everything()
    }

    /// Returns the bytes to keep.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let [high, low] = self.key.0;
        let fields = high.to_be_bytes().into_iter().chain(low.to_be_bytes());
        let fields = fields.chain([self.flags]).chain(self.original.to_be_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads the bytes of [`to_bytes`](Self::to_bytes). Returns `None` if the length is wrong, or a flag is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::revocation::Revocation;
    ///
    /// let bytes = [1; Revocation::LEN];
    /// let revocation = Revocation::from_bytes(&bytes).unwrap();
    /// assert_eq!(revocation.to_bytes(), bytes);
    /// assert!(Revocation::from_bytes(&bytes[1..]).is_none());
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (&flags, original) = rest.split_first()?;
        let original = u64::from_be_bytes(original.try_into().ok()?);
        let known = flags & !(FLAG_FOREVER | FLAG_SUPERSEDED) == 0;
        known.then(|| Self { key: Key::of_name(*key), flags, original })
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, _] = self.key.0;
        f.debug_struct("Revocation")
            .field("name", &format_args!("{:08x}..", high >> 32))
            .field("flags", &self.flags)
            .field("original", &self.original)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_again_means_the_same(name in any::<[u8; 16]>(), flags in 0..4_u8, position in 1..MAX_POSITION, later in 1..MAX_POSITION) {
            let first = Revocation { key: Key::of_name(name), flags, original: 0 };
            let mark = first.mark(position);
            let again = Revocation::again(first.key(), mark);
            prop_assert_eq!(again.mark(later), mark);
            prop_assert_eq!(Revocation::from_bytes(&again.to_bytes()), Some(again));
        }

        #[test]
        fn two_revocations_end_what_either_ends(a in any::<u64>(), b in any::<u64>(), position in 0..MAX_POSITION) {
            let (a, b) = (Mark::from_bits(a), Mark::from_bits(b));
            prop_assert_eq!(a.and(b).ends(position), a.ends(position) || b.ends(position));
            prop_assert_eq!(a.and(b), b.and(a));
        }
    }

    struct Fixed(u64);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
            bytes.copy_from_slice(&self.0.to_be_bytes());
            Ok(())
        }
    }

    #[test]
    fn revocations_by_two_calls_differ_and_count_from_their_positions() {
        for revocation in
            [Revocation::of_owner([7; 16]), Revocation::of_root(SessionId::from_bytes([7; 16]), true)]
        {
            let by = |call: u64| revocation.by_call(&Fixed(call)).unwrap();
            assert_ne!(by(1), by(2));
            for call in [0, 1, u64::MAX] {
                assert_eq!(by(call).mark(5), revocation.mark(5));
                assert_eq!(Revocation::from_bytes(&by(call).to_bytes()), Some(by(call)));
            }
        }
    }

    #[test]
    fn an_id_and_a_root_of_the_same_bytes_are_two_keys() {
        let id = SessionId::from_bytes([9; 16]);
        assert_ne!(Key::of_id(id), Key::of_root(id));
    }

    #[test]
    fn each_bit_of_an_id_counts_in_its_keys() {
        let ids = (0..128).map(|bit| 1_u128 << bit).chain([0]);
        let ids = ids.map(|number| SessionId::from_bytes(number.to_be_bytes()));
        let keys: std::collections::HashSet<Key> =
            ids.flat_map(|id| [Key::of_id(id), Key::of_root(id)]).collect();
        assert_eq!(keys.len(), 2 * 129);
    }

    #[test]
    fn of_two_revocations_of_an_id_the_stricter_one_counts() {
        let id = SessionId::from_bytes([9; 16]);
        let [ended, superseded, retired] =
            [Revocation::of_id(id, false), Revocation::of_id(id, true), Revocation::retiring_id(id)]
                .map(|revocation| revocation.mark(5));
        let kind = |mark: Mark| (mark.ends(MAX_POSITION), mark.is_superseded(), mark.is_retired());
        assert_eq!(
            [ended, superseded, retired].map(kind),
            [(true, false, false), (true, true, false), (false, true, true)]
        );
        for (one, two, both) in [
            (ended, ended, ended),
            (ended, superseded, ended),
            (ended, retired, ended),
            (superseded, superseded, superseded),
            (superseded, retired, superseded),
            (retired, retired, retired),
        ] {
            assert_eq!([one.and(two), two.and(one)], [both; 2], "{one:?} and {two:?}");
        }
        let subject = |position| Revocation::of_owner([9; 16]).mark(position);
        assert_eq!([subject(5).and(subject(9)), subject(9).and(subject(5))], [subject(9); 2]);
        assert_eq!([4, 5].map(|position| subject(5).ends(position)), [true, false]);
    }

    #[test]
    fn a_revocation_names_what_it_revokes_and_nothing_else() {
        let id = SessionId::from_bytes([9; 16]);
        let label = Revocation::of_label("device", "7", false).unwrap();
        let (subject, everything) = (Revocation::of_subject("ada"), Revocation::of_everything());
        for (revocation, expected) in [
            (Revocation::of_id(id, false), [true, false, false, false]),
            (Revocation::of_root(id, true), [true, false, false, false]),
            (subject, [false, true, false, false]),
            (label, [false, false, true, false]),
            (everything, [false, false, false, true]),
        ] {
            let named = [
                revocation.names_session(id),
                revocation.names_subject("ada"),
                revocation.names_label("device", "7"),
                revocation.names_everything(),
            ];
            assert_eq!(named, expected, "{revocation:?}");
        }
    }

    #[test]
    fn unknown_flags_are_not_read() {
        let mut bytes = Revocation::of_everything().to_bytes();
        assert!(Revocation::from_bytes(&bytes).is_some_and(|read| read.key().is_everything()));
        bytes[16] = 4;
        assert!(Revocation::from_bytes(&bytes).is_none());
    }
}
