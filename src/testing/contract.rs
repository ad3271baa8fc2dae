//! The test suite for the contract of backends.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::crypto::{Random as _, SystemRandom};
use crate::id::EntryId;
use crate::join::join;
use crate::store::{Backend, Replaced, Stored};

/// Checks `backend` against the [contract](Backend#contract) of backends, with separate entries under random ids.
///
/// `now` is the present moment as the backend sees it: the machine's time for a backend that expires entries by its own
/// clock.
///
/// The suite makes all of its calls on this one handle, many of them concurrently. It cannot see what other processes with the
/// same storage see. It leaves entries in the backend.
///
/// # Panics
///
/// If the backend breaks the contract, with a description.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// # fn main() {
/// use hyper_session::store::Memory;
/// use hyper_session::{Clock, SystemClock, testing};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// testing::check_backend(&Memory::new(), SystemClock.now()).await;
/// # });
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[allow(clippy::panic)] // reports a failed check
pub async fn check_backend<B: Backend>(backend: &B, now: Timestamp) {
    let suite = Suite { backend, now, started: Instant::now() };
    suite.created_once().await;
    suite.ids_are_opaque().await;
    suite.replaced_only_as_expected().await;
    suite.replaced_with_its_deadline().await;
    suite.touched_without_a_rewrite().await;
    suite.renewed_as_it_was_seen().await;
    suite.kept_for_a_slow_request().await;
    suite.repeated_is_done().await;
    suite.deleted_for_good().await;
    suite.expired_is_gone().await;
    suite.values_are_opaque().await;
    suite.one_winner().await;
    suite.deadlines_bring_nothing_back().await;
    suite.reading_frees_nothing().await;
}

/// A step that happens only now and then is found if it is tried often enough.
const ROUNDS: usize = 20;

struct Suite<'a, B> {
    backend: &'a B,
    now: Timestamp,
    started: Instant,
}

#[allow(clippy::expect_used)] // reports a failed check
impl<B: Backend> Suite<'_, B> {
    fn id() -> EntryId {
        let mut id = [0; 16];
        SystemRandom.fill(&mut id).expect("random bytes for the test's ids");
        EntryId::from_bytes(id)
    }

    fn entry(&self, value: &[u8]) -> Stored {
        Stored {
            value: Bytes::copy_from_slice(value),
            expires: self.now.saturating_add(Duration::from_secs(600)),
        }
    }

    async fn value(&self, id: EntryId) -> Option<Bytes> {
        self.backend.fetch(id, self.now).await.expect("fetch").map(|stored| stored.value)
    }

    async fn create(&self, id: EntryId, value: &[u8]) -> bool {
        self.backend.create(id, self.entry(value), self.now).await.expect("create")
    }

    async fn replace(&self, id: EntryId, expected: &[u8], value: Option<&[u8]>) -> Replaced {
        let entry = value.map(|value| self.entry(value));
        self.backend.replace(id, Bytes::copy_from_slice(expected), entry, self.now).await.expect("replace")
    }

    async fn created_once(&self) {
        let id = Self::id();
        assert_eq!(self.value(id).await, None, "an entry that was not created");
        assert!(self.create(id, b"one").await, "create of a new id must succeed");
        assert!(!self.create(id, b"two").await, "create of an id that exists must fail");
        assert_eq!(self.value(id).await.as_deref(), Some(&b"one"[..]), "a failed create must not write");
        assert_eq!(self.value(Self::id()).await, None, "entries of other ids must not show");
    }

    async fn replaced_only_as_expected(&self) {
        let id = Self::id();
        assert_eq!(self.replace(id, b"", Some(b"x")).await, Replaced::Missing, "replace must not create");
        assert_eq!(self.value(id).await, None, "a replace that found nothing must not write");
        self.create(id, b"one").await;
        match self.replace(id, b"other", Some(b"two")).await {
            Replaced::Conflict(current) => {
                assert_eq!(current.value, &b"one"[..], "a conflict must show the present value");
            }
            other => assert!(
                matches!(other, Replaced::Conflict(_)),
                "another value must be a conflict, not {other:?}"
            ),
        }
        assert_eq!(self.value(id).await.as_deref(), Some(&b"one"[..]), "a conflict must not write");
        assert_eq!(self.replace(id, b"one", Some(b"two")).await, Replaced::Done);
        assert_eq!(self.value(id).await.as_deref(), Some(&b"two"[..]));
        assert!(
            matches!(self.replace(id, b"one", None).await, Replaced::Conflict(_)),
            "a deletion must compare, too"
        );
        assert_eq!(self.replace(id, b"two", None).await, Replaced::Done);
        assert_eq!(self.value(id).await, None, "a replace without a new entry must delete it");
    }

    async fn touched_without_a_rewrite(&self) {
        let id = Self::id();
        let later = self.now.saturating_add(Duration::from_secs(1200));
        assert!(!self.backend.touch(id, later, self.now).await.expect("touch"), "touch must not create");
        assert_eq!(self.value(id).await, None, "a touch that found nothing must not write");
        self.create(id, b"one").await;
        assert!(self.backend.touch(id, later, self.now).await.expect("touch"));
        let stored = self.backend.fetch(id, self.now).await.expect("fetch").expect("the touched entry");
        assert_eq!(stored.value, &b"one"[..], "touch must keep the value");
        self.check_deadline(stored.expires, later, "touch must move the deadline");
        let sooner = self.now.saturating_add(Duration::from_secs(300));
        assert!(self.backend.touch(id, sooner, self.now).await.expect("touch"));
        let stored = self.backend.fetch(id, self.now).await.expect("fetch").expect("the touched entry");
        self.check_deadline(stored.expires, sooner, "touch must move the deadline back, too");
    }

    async fn renewed_as_it_was_seen(&self) {
        let (id, later) = (Self::id(), self.now.saturating_add(Duration::from_secs(1200)));
        let seen = self.entry(b"one");
        let renew =
            async |seen: &Stored| self.backend.renew(id, seen.clone(), later, self.now).await.expect("renew");
        assert_eq!(renew(&seen).await, Replaced::Missing, "renew must not create");
        assert_eq!(self.value(id).await, None, "a renewal that found nothing must not write");
        self.create(id, b"one").await;
        assert_eq!(renew(&seen).await, Replaced::Done);
        let stored = self.backend.fetch(id, self.now).await.expect("fetch").expect("the renewed entry");
        assert_eq!(stored.value, &b"one"[..], "renew must keep the value");
        self.check_deadline(stored.expires, later, "renew must move the deadline");
        // Seen before that renewal: only values decide.
        let two = Some(self.entry(b"two"));
        let outcome = self.backend.exchange(id, seen.clone(), two, self.now).await.expect("exchange");
        assert_eq!(outcome, Replaced::Done, "exchange must not compare deadlines");
        match renew(&seen).await {
            Replaced::Conflict(present) => {
                assert_eq!(present.value, &b"two"[..], "a conflict must show the present value");
            }
            other => assert!(
                matches!(other, Replaced::Conflict(_)),
                "renewing another value must be a conflict, not {other:?}"
            ),
        }
        assert_eq!(self.value(id).await.as_deref(), Some(&b"two"[..]), "a conflict must not write");
        let outcome = self.backend.exchange(id, seen, None, self.now).await.expect("exchange");
        assert!(matches!(outcome, Replaced::Conflict(_)), "exchange must compare values");
        let outcome = self.backend.exchange(id, self.entry(b"two"), None, self.now).await.expect("exchange");
        assert_eq!(outcome, Replaced::Done);
        assert_eq!(self.value(id).await, None, "an exchange without a new entry must delete it");
    }

    /// A request that loaded its session in time writes it after the deadline. Meanwhile, calls for other ids do not free
    /// the entry.
    async fn kept_for_a_slow_request(&self) {
        let after = |seconds| self.now.saturating_add(Duration::from_secs(seconds));
        for writes in [true, false] {
            let (id, seen) = (Self::id(), self.entry(b"one"));
            self.create(id, b"one").await;
            let (value, late, expires) = (if writes { "two" } else { "one" }, after(1200), after(1800));
            let entry = Stored { value: Bytes::from_static(value.as_bytes()), expires };
            let (other, absent) = (Self::id(), Self::id());
            assert_eq!(self.backend.fetch(absent, late).await.expect("fetch"), None);
            assert!(self.backend.create(other, entry.clone(), late).await.expect("create"));
            self.backend.delete(other).await.expect("delete");
            let outcome = if writes {
                self.backend.exchange(id, seen, Some(entry), late).await.expect("exchange")
            } else {
                self.backend.renew(id, seen, expires, late).await.expect("renew")
            };
            assert_eq!(outcome, Replaced::Done, "an entry that expired since it was loaded must be kept");
            let stored = self.backend.fetch(id, late).await.expect("fetch").expect("the kept entry");
            assert_eq!(stored.value, value.as_bytes());
            self.check_deadline(stored.expires, expires, "a late write must move the deadline");
            self.backend.delete(id).await.expect("delete");
        }
    }

    /// Allows for a backend that counts down by its own clock: it rounds, and the clock has run on since the suite began.
    fn check_deadline(&self, shown: Timestamp, set: Timestamp, rule: &str) {
        let off = shown.saturating_since(set).max(set.saturating_since(shown));
        let allowed = Duration::from_secs(5) + self.started.elapsed();
        assert!(off <= allowed, "{rule}: the deadline is off by {off:?}");
    }

    async fn replaced_with_its_deadline(&self) {
        let id = Self::id();
        self.create(id, b"one").await;
        let later = self.now.saturating_add(Duration::from_secs(1200));
        let entry = Stored { value: Bytes::from_static(b"two"), expires: later };
        let outcome = self.backend.replace(id, Bytes::from_static(b"one"), Some(entry), self.now).await;
        assert_eq!(outcome.expect("replace"), Replaced::Done);
        let stored = self.backend.fetch(id, self.now).await.expect("fetch").expect("the replaced entry");
        self.check_deadline(stored.expires, later, "replace must set the new entry's deadline");
    }

    async fn repeated_is_done(&self) {
        let id = Self::id();
        assert!(self.create(id, b"one").await);
        assert!(self.create(id, b"one").await, "a repeated create must succeed");
        assert_eq!(self.replace(id, b"one", Some(b"two")).await, Replaced::Done);
        assert_eq!(
            self.replace(id, b"one", Some(b"two")).await,
            Replaced::Done,
            "a repeated replace must succeed"
        );
        assert_eq!(self.value(id).await.as_deref(), Some(&b"two"[..]));
        assert!(
            matches!(self.replace(id, b"one", Some(b"three")).await, Replaced::Conflict(_)),
            "a different value must be a different write"
        );
    }

    async fn deleted_for_good(&self) {
        let id = Self::id();
        self.backend.delete(id).await.expect("delete of nothing must succeed");
        self.create(id, b"one").await;
        self.backend.delete(id).await.expect("delete");
        assert_eq!(self.value(id).await, None, "a deleted entry must be gone");
        assert_eq!(
            self.replace(id, b"one", Some(b"two")).await,
            Replaced::Missing,
            "a deleted entry must not come back"
        );
        assert!(
            !self.backend.touch(id, Timestamp::MAX, self.now).await.expect("touch"),
            "a deleted entry must not be touched"
        );
        assert_eq!(self.value(id).await, None, "a deleted entry must stay gone");
    }

    async fn expired_is_gone(&self) {
        let id = Self::id();
        let expired = Stored { value: Bytes::from_static(b"old"), expires: self.now };
        self.backend.create(id, expired, self.now).await.expect("create");
        assert_eq!(self.value(id).await, None, "an entry that expires now must not be returned");
        assert_eq!(
            self.replace(id, b"old", Some(b"x")).await,
            Replaced::Missing,
            "an entry that expires now must not be replaced"
        );
        let later = self.now.saturating_add(Duration::from_secs(600));
        assert!(
            !self.backend.touch(id, later, self.now).await.expect("touch"),
            "an entry that expires now must not be touched"
        );
        assert!(self.create(id, b"new").await, "the id of an expired entry must be free again");
    }

    async fn values_are_opaque(&self) {
        for value in [&b""[..], b"\0\r\n*$\xff\xfe", &vec![0xc3; 100_000]] {
            let id = Self::id();
            assert!(self.create(id, value).await);
            assert_eq!(self.value(id).await.as_deref(), Some(value), "values must come back byte for byte");
            // One bit off, at the end or as a further byte.
            let mut other = value.to_vec();
            match other.last_mut() {
                Some(last) => *last ^= 1,
                None => other.push(0),
            }
            let outcome = self.replace(id, &other, None).await;
            assert!(
                matches!(outcome, Replaced::Conflict(_)),
                "values must compare byte for byte, not {outcome:?}"
            );
            assert_eq!(
                self.replace(id, value, None).await,
                Replaced::Done,
                "values must compare byte for byte"
            );
        }
    }

    async fn one_winner(&self) {
        for _ in 0..ROUNDS {
            let id = Self::id();
            let (a, b) = join(self.create(id, b"a"), self.create(id, b"b")).await;
            assert!(a != b, "of two concurrent creates one must win");
            let won = self.value(id).await.expect("the winner's entry");
            assert_eq!(won, if a { "a" } else { "b" }, "the winning create must have written its value");
            let (a, b) = join(self.replace(id, &won, Some(b"c")), self.replace(id, &won, Some(b"d"))).await;
            let done = [&a, &b].into_iter().filter(|outcome| **outcome == Replaced::Done).count();
            assert_eq!(done, 1, "of two concurrent replaces of one value one must win: {a:?}, {b:?}");
            let won = self.value(id).await.expect("the winner's entry");
            let wrote = if a == Replaced::Done { "c" } else { "d" };
            assert_eq!(won, wrote, "the winning replace must have written its value");
        }
        for round in 0..ROUNDS {
            let id = Self::id();
            self.create(id, b"one").await;
            let (write, delete) =
                either_first(round, self.replace(id, b"one", Some(b"two")), self.replace(id, b"one", None))
                    .await;
            assert!(
                (write == Replaced::Done) != (delete == Replaced::Done),
                "of a concurrent replace and deletion of one value one must win: {write:?}, {delete:?}"
            );
            let left = (write == Replaced::Done).then_some(&b"two"[..]);
            assert_eq!(self.value(id).await.as_deref(), left, "the winning step must decide what is left");
        }
    }

    /// Ids are hashes: any byte can be in them. Storages that take them for text confuse upper and lower case, stop at a NUL, trim
    /// the end, or replace what is not UTF-8.
    async fn ids_are_opaque(&self) {
        let random = Self::id().to_bytes();
        // One bit makes a space of a NUL, and a line break of a form feed.
        let mut ends_in_nul = random;
        ends_in_nul[14..].fill(0);
        let mut ends_in_whitespace = random.map(|byte| byte.rotate_left(1));
        ends_in_whitespace[14..].fill(0x0c);
        let mut begins_with_nul = random.map(|byte| byte.rotate_left(2));
        begins_with_nul[..2].fill(0);
        let letters = random.map(|byte| b'a' + byte % 26);
        let not_utf8 = random.map(|byte| byte | 0x80);
        for base in [letters, not_utf8, begins_with_nul, ends_in_nul, ends_in_whitespace] {
            assert!(
                self.create(EntryId::from_bytes(base), b"one").await,
                "ids that differ in one bit must be different entries"
            );
            for (place, bit) in (0..16).flat_map(|place| [(place, 0x20), (place, 0x01)]) {
                let mut other = base;
                if let Some(byte) = other.get_mut(place) {
                    *byte ^= bit;
                }
                let other = EntryId::from_bytes(other);
                assert_eq!(
                    self.value(other).await,
                    None,
                    "ids that differ in one bit must be different entries"
                );
                assert!(
                    self.create(other, &[b'o', u8::try_from(place).unwrap_or_default(), bit]).await,
                    "ids that differ in one bit must be different entries"
                );
            }
            let value = self.value(EntryId::from_bytes(base)).await;
            assert_eq!(
                value.as_deref(),
                Some(&b"one"[..]),
                "ids that differ in one bit must be different entries"
            );
        }
    }

    /// A step that moves a deadline and reads and writes the value for it would undo what happens in between.
    async fn deadlines_bring_nothing_back(&self) {
        let later = self.now.saturating_add(Duration::from_secs(1200));
        for round in 0..ROUNDS {
            let touch = async |id| self.backend.touch(id, later, self.now).await.expect("touch");
            let renew =
                async |id| self.backend.renew(id, self.entry(b"one"), later, self.now).await.expect("renew");
            let exchange = async |id, value: Option<&[u8]>| {
                let (seen, entry) = (self.entry(b"one"), value.map(|value| self.entry(value)));
                self.backend.exchange(id, seen, entry, self.now).await.expect("exchange")
            };

            let id = self.created().await;
            let (_, deleted) = either_first(round, touch(id), self.backend.delete(id)).await;
            deleted.expect("delete");
            assert_eq!(self.value(id).await, None, "a concurrent touch must not bring back a deleted entry");

            let id = self.created().await;
            let (touched, outcome) =
                either_first(round, touch(id), self.replace(id, b"one", Some(b"two"))).await;
            assert!(touched, "a touch must find an entry that is being replaced");
            assert_eq!(outcome, Replaced::Done, "a concurrent touch must not be a conflict");
            let value = self.value(id).await;
            assert_eq!(value.as_deref(), Some(&b"two"[..]), "a concurrent touch must not undo a replace");

            let id = self.created().await;
            let (_, deleted) = either_first(round, renew(id), self.backend.delete(id)).await;
            deleted.expect("delete");
            assert_eq!(
                self.value(id).await,
                None,
                "a concurrent renewal must not bring back a deleted entry"
            );

            for value in [Some(&b"two"[..]), None] {
                let id = self.created().await;
                let (_, outcome) = either_first(round, renew(id), exchange(id, value)).await;
                assert_eq!(outcome, Replaced::Done, "a concurrent renewal must not be a conflict");
                let left = self.value(id).await;
                assert_eq!(left.as_deref(), value, "a concurrent renewal must not undo an exchange");
            }
        }
    }

    /// Returns the id of a new entry, whose value is `one`.
    async fn created(&self) -> EntryId {
        let id = Self::id();
        assert!(self.create(id, b"one").await, "create of a new id must succeed");
        id
    }

    /// Another request of the same browser finds the entry expired while a slow one still has it.
    async fn reading_frees_nothing(&self) {
        let after = |seconds| self.now.saturating_add(Duration::from_secs(seconds));
        let (late, expires) = (after(1200), after(1800));
        for writes in [true, false] {
            let (id, seen) = (self.created().await, self.entry(b"one"));
            // By the clock of some storages, it has not expired yet.
            self.backend.fetch(id, late).await.expect("fetch");
            let outcome = if writes {
                let entry = Stored { value: Bytes::from_static(b"two"), expires };
                self.backend.exchange(id, seen, Some(entry), late).await.expect("exchange")
            } else {
                self.backend.renew(id, seen, expires, late).await.expect("renew")
            };
            assert_eq!(outcome, Replaced::Done, "a fetch must not free an entry that has expired just now");
            self.backend.delete(id).await.expect("delete");
        }
    }
}

/// Waits for both. In every second round, `two` begins.
async fn either_first<A, B>(
    round: usize,
    one: impl Future<Output = A>,
    two: impl Future<Output = B>,
) -> (A, B) {
    if round % 2 == 0 {
        return join(one, two).await;
    }
    let (two, one) = join(two, one).await;
    (one, two)
}
