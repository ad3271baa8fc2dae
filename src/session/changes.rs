//! The changes of a handler: a log with one entry for each key, which can be applied to newer values than it was made on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::key_map::KeyMap;
use super::value_equality::is_same_value;
use super::{Payload, Position, Recency};
use crate::error::Error;

/// A read-modify-write step from the old value to the new one. `None` leaves the value as it is.
pub(super) type Step = Arc<dyn Fn(Option<&[u8]>) -> Result<Option<Bytes>, Error> + Send + Sync>;

/// The changes that one request made to a session.
///
/// A store applies them to the entry that it holds, and again to the newer entry if another request saved first.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Changes {
    /// All values below are dropped: `clear` or `destroy` was called.
    cleared: bool,
    /// The session starts over: `destroy` was called, and later changes belong to a new session.
    restarted: bool,
    /// The user authenticated, so the absolute timeout begins again.
    logged_in: bool,
    /// The user of before authenticated again: the absolute timeout begins anew.
    reauthenticated: bool,
    /// The session is bound to a device: what was given to the client before must not last.
    binds_device: bool,
    /// The values below moved since updates were recorded: their results must not be taken from the log.
    outdated: bool,
    /// The position in the log of revocations at which the login takes place, if the handler passed one.
    login_position: Option<Position>,
    /// A session that these changes begin is newer than this, if the store keeps its age in the token.
    after: Option<Recency>,
    /// The other sessions of the subject end with this save, in a store that does both in one step.
    ends_others: bool,
    keys: KeyMap<Change>,
    displaced: Displaced,
}

#[derive(Clone)]
enum Change {
    Set(Bytes),
    Delete,
    /// The result of `steps` was `value` when they were recorded. `idle`: that is equal to the value before.
    Update {
        steps: Vec<Step>,
        value: Bytes,
        idle: bool,
    },
}

/// Entries that hold closures of the application and are no longer in the log. Dropping a closure runs code of the
/// application. So a caller that holds a lock around the log takes them out, and drops them after unlocking.
#[derive(Default)]
pub(super) struct Displaced(Vec<Change>);

impl Clone for Displaced {
    /// A copy of a log starts without displaced entries.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The entry of the log for one key.
pub(super) enum Lookup<'a> {
    Value(&'a Bytes),
    Absent,
    Unchanged,
}

/// Returns true if `value`, or its absence, equals the value below.
fn is_unchanged(value: Option<&[u8]>, below: Option<&[u8]>) -> bool {
    match (value, below) {
        (Some(value), Some(below)) => is_same_value(value, below),
        (None, None) => true,
        _ => false,
    }
}

impl Changes {
    pub(super) fn get(&self, key: &str) -> Lookup<'_> {
        match self.keys.get(key) {
            Some(Change::Set(value) | Change::Update { value, .. }) => Lookup::Value(value),
            Some(Change::Delete) => Lookup::Absent,
            None if self.cleared => Lookup::Absent,
            None => Lookup::Unchanged,
        }
    }

    /// Returns true if applying the log would change nothing. Updates that changed nothing are still in the log: if other
    /// updates do change a value, all run again on newer values.
    pub(crate) fn is_empty(&self) -> bool {
        !self.cleared
            && self.keys.iter().all(|(_, change)| matches!(change, Change::Update { idle: true, .. }))
    }

    /// Makes a session that these changes begin newer than `after`.
    pub(crate) fn set_after(&mut self, after: Option<Recency>) {
        self.after = after;
    }

    pub(crate) fn after(&self) -> Option<Recency> {
        self.after
    }

    /// Sets the position in the log of revocations at which the login takes place, if the handler passed one.
    pub(super) fn set_login_position(&mut self, position: Option<Position>) {
        self.login_position = position;
    }

    /// Returns true if the user authenticated.
    pub(crate) fn logs_in(&self) -> bool {
        self.logged_in
    }

    /// Returns the position in the log of revocations at which the login takes place, if the handler passed one.
    pub(crate) fn login_position(&self) -> Option<Position> {
        self.login_position
    }

    /// Returns true if the session starts over with a new id, a new beginning and none of the old values.
    pub(crate) fn restarts(&self) -> bool {
        self.restarted
    }

    /// Returns true if the absolute timeout begins again: the session starts over, or its user authenticated.
    pub(crate) fn begins_anew(&self) -> bool {
        self.restarted || self.logged_in || self.reauthenticated
    }

    /// Records `value`, or a deletion. `below` is the value without this log.
    pub(crate) fn put(&mut self, key: &str, value: Option<Bytes>, below: Option<&[u8]>) {
        let below = if self.cleared { None } else { below };
        if is_unchanged(value.as_deref(), below) {
            let displaced = self.keys.remove(key); // an equal value is not a change
            self.displaced.keep(displaced);
        } else {
            self.insert(key, value.map_or(Change::Delete, Change::Set));
        }
    }

    /// Records the login of a user under `key` even if the value is equal: newer values must contain it, too.
    pub(super) fn login(&mut self, key: &str, subject: Bytes) {
        self.insert(key, Change::Set(subject));
        self.logged_in = true;
    }

    /// Records that the session is bound to a device.
    #[cfg(feature = "device-bound")]
    pub(super) fn bind_device(&mut self) {
        self.binds_device = true;
    }

    /// Returns true if the session is bound to a device.
    pub(crate) fn binds_device(&self) -> bool {
        self.binds_device
    }

    /// Records that the user of before authenticated again.
    pub(super) fn reauthenticate(&mut self) {
        self.reauthenticated = true;
    }

    /// Returns changes that only end the other sessions of the subject.
    pub(crate) fn ending_others() -> Self {
        Self { ends_others: true, ..Self::default() }
    }

    /// Records that the other sessions of the subject end.
    pub(super) fn end_others(&mut self) {
        self.ends_others = true;
    }

    /// Returns true if the other sessions of the subject end with this save.
    pub(crate) fn ends_others(&self) -> bool {
        self.ends_others
    }

    /// Records `value`, or a deletion, whatever is there.
    pub(super) fn force(&mut self, key: &str, value: Option<Bytes>) {
        self.insert(key, value.map_or(Change::Delete, Change::Set));
    }

    /// Records a step that led to `value`, where `below` is what is there without this log.
    pub(super) fn update(&mut self, key: &str, step: Step, value: Bytes, below: Option<&[u8]>) {
        match self.keys.get_mut(key) {
            Some(Change::Update { steps, value: result, idle }) => {
                steps.push(step);
                *idle = is_unchanged(Some(&value), below);
                *result = value;
            }
            // If this log itself set or deleted the value, the result is known.
            Some(_) => self.put(key, Some(value), below),
            None if self.cleared => self.put(key, Some(value), None),
            None => {
                let idle = is_unchanged(Some(&value), below);
                self.insert(key, Change::Update { steps: vec![step], value, idle });
            }
        }
    }

    pub(super) fn clear(&mut self) {
        let before = std::mem::take(&mut self.keys);
        for (_, change) in before {
            self.displaced.keep(Some(change));
        }
        self.cleared = true;
        (self.logged_in, self.reauthenticated) = (false, false);
        (self.binds_device, self.ends_others) = (false, false);
        self.login_position = None;
    }

    /// Returns true if no earlier value is left.
    pub(crate) fn clears(&self) -> bool {
        self.cleared
    }

    pub(super) fn restart(&mut self) {
        self.clear();
        self.restarted = true;
    }

    /// Notes that the values below are newer than the values that this log was made on.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// Takes out the entries that must not be dropped under a lock.
    pub(super) fn take_displaced(&mut self) -> Displaced {
        std::mem::take(&mut self.displaced)
    }

    fn insert(&mut self, key: &str, change: Change) {
        let displaced = self.keys.insert(key, change);
        self.displaced.keep(displaced);
    }

    /// Puts `earlier` in front of this log.
    pub(super) fn follow(&mut self, earlier: Self) {
        let both = earlier.then(self);
        let later = std::mem::replace(self, both);
        for log in [earlier, later] {
            self.displaced.keep_all(log);
        }
    }

    /// Returns true if this log has an entry for `key`.
    pub(super) fn has_entry(&self, key: &str) -> bool {
        self.keys.get(key).is_some()
    }

    /// Returns this log followed by `later`.
    pub(super) fn then(&self, later: &Self) -> Self {
        if later.cleared {
            return Self { restarted: self.restarted || later.restarted, ..later.clone() };
        }
        let mut both = self.clone();
        both.outdated |= later.outdated;
        both.logged_in |= later.logged_in;
        both.reauthenticated |= later.reauthenticated;
        both.binds_device |= later.binds_device;
        both.ends_others |= later.ends_others;
        both.login_position = later.login_position.or(both.login_position);
        for (key, change) in later.keys.iter() {
            let merged = match (both.keys.remove(key), change) {
                (
                    Some(Change::Update { mut steps, idle, .. }),
                    Change::Update { steps: more, value, idle: idle_too },
                ) => {
                    steps.extend(more.iter().cloned());
                    Change::Update { steps, value: value.clone(), idle: idle && *idle_too }
                }
                (Some(_), Change::Update { value, .. }) => Change::Set(value.clone()),
                (_, change) => change.clone(),
            };
            both.keys.insert(key, merged);
        }
        both
    }

    /// Applies the changes to the values that they were recorded on.
    pub(crate) fn apply(&self, base: Option<&Payload>) -> Result<Payload, Error> {
        self.merge(base, self.outdated)
    }

    /// Applies the changes to newer values: every update runs again.
    pub(crate) fn replay(&self, base: Option<&Payload>) -> Result<Payload, Error> {
        self.merge(base, true)
    }

    fn merge(&self, base: Option<&Payload>, rerun: bool) -> Result<Payload, Error> {
        if let (Some(base), false, true) = (base, self.cleared, self.keys.is_empty()) {
            return Ok(base.clone());
        }
        let base = if self.cleared { None } else { base };
        let changes = self
            .keys
            .iter()
            .map(|(key, change)| {
                let value = match change {
                    Change::Set(value) => Some(value.clone()),
                    Change::Delete => None,
                    Change::Update { value, .. } if !rerun => Some(value.clone()),
                    Change::Update { steps, .. } => {
                        let mut value = base.and_then(|base| base.get(key));
                        for step in steps {
                            value = step(value.as_deref())?.or(value);
                        }
                        value
                    }
                };
                Ok((key, value))
            })
            .collect::<Result<SmallVec<[_; 4]>, Error>>()?;
        Payload::merge(base, changes.iter().map(|(key, value)| (*key, value.as_deref())))
    }

    /// Returns the keys that have an entry in this log.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key)
    }
}

impl Displaced {
    fn keep(&mut self, change: Option<Change>) {
        // Other changes are bytes, and can be dropped under a lock.
        if let Some(change @ Change::Update { .. }) = change {
            self.0.push(change);
        }
    }

    fn keep_all(&mut self, log: Changes) {
        for (_, change) in log.keys {
            self.keep(Some(change));
        }
        self.0.extend(log.displaced.0);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("cleared", &self.cleared)
            .field("keys", &self.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use proptest::prelude::*;

    fn encoded(number: u64) -> Bytes {
        rmp_serde::to_vec(&number).unwrap().into()
    }

    fn number(bytes: &[u8]) -> u64 {
        rmp_serde::from_slice(bytes).unwrap()
    }

    fn add(amount: u64) -> Step {
        Arc::new(move |old| Ok(Some(encoded(old.map_or(0, number) + amount))))
    }

    fn values(payload: &Payload) -> BTreeMap<String, u64> {
        payload.iter().map(|(key, value)| (key.to_owned(), number(value))).collect()
    }

    fn payload(values: &BTreeMap<String, u64>) -> Payload {
        let values: Vec<_> = values.iter().map(|(key, value)| (key, encoded(*value))).collect();
        Payload::merge(None, values.iter().map(|(key, value)| (key.as_str(), Some(&**value)))).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(u64),
        Delete,
        Add(u64),
        Clear,
    }

    fn op() -> impl Strategy<Value = (String, Op)> {
        let op = prop_oneof![
            3 => (0..4_u64).prop_map(Op::Set),
            2 => Just(Op::Delete),
            4 => (0..3_u64).prop_map(Op::Add),
            1 => Just(Op::Clear),
        ];
        ("[abc]", op)
    }

    /// Records `op` as a session does, looking through `log` at `base`.
    fn record(log: &mut Changes, base: &BTreeMap<String, u64>, (key, op): &(String, Op)) {
        let below = base.get(key).map(|value| encoded(*value));
        let current = match log.get(key) {
            Lookup::Value(value) => Some(value.clone()),
            Lookup::Absent => None,
            Lookup::Unchanged => below.clone(),
        };
        match op {
            Op::Set(value) => log.put(key, Some(encoded(*value)), below.as_deref()),
            Op::Delete => log.put(key, None, below.as_deref()),
            Op::Add(amount) => {
                let step = add(*amount);
                let value = step(current.as_deref()).unwrap().unwrap();
                log.update(key, step, value, below.as_deref());
            }
            Op::Clear => log.clear(),
        }
    }

    fn perform(model: &mut BTreeMap<String, u64>, (key, op): &(String, Op)) {
        match op {
            Op::Set(value) => drop(model.insert(key.clone(), *value)),
            Op::Delete => drop(model.remove(key)),
            Op::Add(amount) => *model.entry(key.clone()).or_default() += amount,
            Op::Clear => model.clear(),
        }
    }

    proptest! {
        #[test]
        fn applying_the_log_is_doing_the_operations(
            base in proptest::collection::btree_map("[abc]", 0..4_u64, 0..4),
            ops in proptest::collection::vec(op(), 0..12),
        ) {
            let (mut log, mut model) = (Changes::default(), base.clone());
            for op in &ops {
                record(&mut log, &base, op);
                perform(&mut model, op);
            }
            let start = payload(&base);
            prop_assert_eq!(values(&log.apply(Some(&start)).unwrap()), model.clone());
            prop_assert_eq!(values(&log.replay(Some(&start)).unwrap()), model.clone());
            if log.is_empty() {
                prop_assert_eq!(model, base);
            }
        }

        #[test]
        fn two_logs_in_a_row_are_one(
            base in proptest::collection::btree_map("[abc]", 0..4_u64, 0..4),
            first in proptest::collection::vec(op(), 0..6),
            second in proptest::collection::vec(op(), 0..6),
        ) {
            let mut model = base.clone();
            let mut one = Changes::default();
            for op in &first {
                record(&mut one, &base, op);
                perform(&mut model, op);
            }
            let between = model.clone();
            let mut two = Changes::default();
            for op in &second {
                record(&mut two, &between, op);
                perform(&mut model, op);
            }
            prop_assert_eq!(values(&one.then(&two).apply(Some(&payload(&base))).unwrap()), model);
        }

        #[test]
        fn additions_survive_whatever_happened_meanwhile(
            base in 0..100_u64, meanwhile in 0..100_u64, amounts in proptest::collection::vec(1..5_u64, 1..5),
        ) {
            let base = BTreeMap::from([("n".to_owned(), base)]);
            let mut log = Changes::default();
            for amount in &amounts {
                record(&mut log, &base, &("n".to_owned(), Op::Add(*amount)));
            }
            let newer = payload(&BTreeMap::from([("n".to_owned(), meanwhile), ("other".to_owned(), 1)]));
            let expected = BTreeMap::from([("n".to_owned(), meanwhile + amounts.iter().sum::<u64>()), ("other".to_owned(), 1)]);
            prop_assert_eq!(values(&log.replay(Some(&newer)).unwrap()), expected);
        }
    }

    #[test]
    fn equal_values_are_no_change() {
        let mut log = Changes::default();
        log.put("a", Some(encoded(1)), Some(&*encoded(1)));
        log.put("b", None, None);
        log.update("c", add(0), encoded(5), Some(&*encoded(5)));
        assert!(log.is_empty());
        log.put("a", Some(encoded(2)), Some(&*encoded(1)));
        log.put("a", Some(encoded(1)), Some(&*encoded(1)));
        assert!(log.is_empty());
    }

    /// A user who logs in again is logged in, even if another request cleared the session meanwhile.
    #[test]
    fn what_is_set_whatever_is_there_is_set_on_newer_values_too() {
        let (base, newer) = (BTreeMap::from([("a".to_owned(), 1)]), BTreeMap::from([("b".to_owned(), 2)]));
        let mut log = Changes::default();
        log.login("a", encoded(1));
        assert!(!log.is_empty());
        assert_eq!(values(&log.apply(Some(&payload(&base))).unwrap()), base);
        let both = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(values(&log.replay(Some(&payload(&newer))).unwrap()), both);
    }

    /// A step that refuses a newer value leaves the value as it is.
    #[test]
    fn a_step_without_a_result_changes_nothing() {
        let take_one: Step = Arc::new(|old| Ok(old.map_or(0, number).checked_sub(1).map(encoded)));
        let mut log = Changes::default();
        log.update("n", take_one, encoded(0), Some(&*encoded(1)));
        log.put("other", Some(encoded(5)), None);
        for (newer, left) in [(3, 2), (0, 0)] {
            let newer = payload(&BTreeMap::from([("n".to_owned(), newer)]));
            let expected = BTreeMap::from([("n".to_owned(), left), ("other".to_owned(), 5)]);
            assert_eq!(values(&log.replay(Some(&newer)).unwrap()), expected);
        }
        let without = values(&log.replay(None).unwrap());
        assert_eq!(without, BTreeMap::from([("other".to_owned(), 5)]), "and does not create one");
    }

    #[test]
    fn a_login_that_is_taken_back_begins_nothing_anew() {
        let mut log = Changes::default();
        log.login("s", encoded(1));
        log.set_login_position(Some(Position { incarnation: 1, sequence: 1 }));
        assert!(log.begins_anew() && log.clone().then(&Changes::default()).begins_anew());
        assert!(Changes::default().then(&log).begins_anew());
        log.clear();
        assert!(!log.begins_anew() && log.login_position().is_none());
        let mut login = Changes::default();
        login.login("s", encoded(1));
        assert!(!login.then(&log).begins_anew());
        login.restart();
        assert!(login.begins_anew());
    }

    /// A step that counts how often it runs.
    fn counted(amount: u64) -> (Step, Arc<AtomicU32>) {
        let runs = Arc::new(AtomicU32::new(0));
        let (counter, step) = (Arc::clone(&runs), add(amount));
        let step: Step = Arc::new(move |old| {
            counter.fetch_add(1, Relaxed);
            step(old)
        });
        (step, runs)
    }

    #[test]
    fn a_step_runs_again_only_on_newer_values() {
        let base = payload(&BTreeMap::from([("n".to_owned(), 1)]));
        let (step, runs) = counted(4);
        let mut log = Changes::default();
        log.update("n", step, encoded(5), Some(&*encoded(1)));
        assert_eq!(values(&log.apply(Some(&base)).unwrap())["n"], 5);
        assert_eq!(runs.load(Relaxed), 0, "its result is known");
        // An earlier save moved the values.
        let later = Changes { outdated: true, ..Changes::default() };
        let newer = payload(&BTreeMap::from([("n".to_owned(), 2)]));
        for (moved, expected) in [(&log.then(&later), 1), (&later.then(&log), 2)] {
            assert_eq!(values(&moved.apply(Some(&newer)).unwrap())["n"], 6);
            assert_eq!(runs.load(Relaxed), expected);
        }
        let twice = later.then(&log).then(&later);
        assert_eq!(values(&twice.apply(Some(&newer)).unwrap())["n"], 6);
        log.outdate();
        assert_eq!(values(&log.apply(Some(&newer)).unwrap())["n"], 6);
    }

    #[test]
    fn after_a_clear_the_result_of_a_step_does_not_depend_on_newer_values() {
        let (step, runs) = counted(4);
        let mut log = Changes::default();
        log.clear();
        log.update("n", step, encoded(4), Some(&*encoded(1)));
        let newer = payload(&BTreeMap::from([("n".to_owned(), 7), ("m".to_owned(), 7)]));
        assert_eq!(values(&log.replay(Some(&newer)).unwrap()), BTreeMap::from([("n".to_owned(), 4)]));
        assert_eq!(runs.load(Relaxed), 0);
    }

    #[test]
    fn what_either_of_two_logs_says_both_say() {
        type Say = fn(&mut Changes);
        type Says = fn(&Changes) -> bool;
        let cases: &[(Say, Says)] = &[
            (|log| log.login("s", encoded(1)), Changes::logs_in),
            (Changes::reauthenticate, |log| log.begins_anew() && !log.logs_in()),
            (Changes::end_others, Changes::ends_others),
            (|log| *log = Changes::ending_others(), Changes::ends_others),
            #[cfg(feature = "device-bound")]
            (Changes::bind_device, Changes::binds_device),
        ];
        for (say, says) in cases {
            for (first, second) in [(true, false), (false, true), (true, true), (false, false)] {
                let [mut one, mut two] = [Changes::default(), Changes::default()];
                if first {
                    say(&mut one);
                }
                if second {
                    say(&mut two);
                }
                assert_eq!(says(&one.then(&two)), first || second);
            }
        }
    }

    /// A step outlives the log that it left, until the caller drops what was displaced.
    #[test]
    fn steps_that_leave_a_log_are_handed_out_to_be_dropped() {
        let ways: [fn(&mut Changes); 5] = [
            |log| log.put("n", Some(encoded(9)), None),
            |log| log.put("n", Some(encoded(1)), Some(&*encoded(1))),
            Changes::clear,
            Changes::restart,
            |log| {
                log.follow(Changes::default());
                log.put("n", Some(encoded(9)), None);
            },
        ];
        for (way, leave) in ways.iter().enumerate() {
            let (step, runs) = counted(4);
            let mut log = Changes::default();
            log.update("n", step, encoded(5), Some(&*encoded(1)));
            leave(&mut log);
            assert!(
                !log.has_entry("n") || matches!(log.get("n"), Lookup::Value(value) if number(value) == 9)
            );
            let displaced = log.take_displaced();
            assert_eq!(Arc::strong_count(&runs), 2, "way {way}");
            drop(displaced);
            assert_eq!(Arc::strong_count(&runs), 1, "way {way}");
        }
        // Of two logs that become one, the second gave its steps to the first and keeps what it displaced itself.
        let (step, runs) = counted(4);
        let [mut one, mut two] = [Changes::default(), Changes::default()];
        two.update("n", step, encoded(5), Some(&*encoded(1)));
        one.put("n", Some(encoded(1)), None);
        two.follow(one);
        assert_eq!(Arc::strong_count(&runs), 2, "not dropped by merging");
        drop(two.take_displaced());
        assert_eq!(Arc::strong_count(&runs), 1);
    }

    #[test]
    fn a_restart_stays_through_a_later_clear() {
        let [mut restarted, mut cleared] = [Changes::default(), Changes::default()];
        restarted.restart();
        cleared.clear();
        for (first, second, restarts) in [
            (&restarted, &cleared, true),
            (&cleared, &restarted, true),
            (&restarted, &restarted, true),
            (&cleared, &cleared, false),
        ] {
            let both = first.then(second);
            assert_eq!(both.restarts(), restarts);
            assert!(both.clears());
        }
        let mut value = Changes::default();
        value.put("a", Some(encoded(1)), None);
        assert!(cleared.then(&value).clears() && !cleared.then(&value).restarts());
    }

    #[test]
    fn two_steps_change_nothing_only_if_neither_does() {
        let step = |amount, below: u64| {
            let mut log = Changes::default();
            log.update("n", add(amount), encoded(below + amount), Some(&*encoded(below)));
            log
        };
        assert!(step(0, 1).then(&step(0, 1)).is_empty());
        assert!(!step(0, 1).then(&step(2, 1)).is_empty());
        assert!(!step(2, 1).then(&step(0, 3)).is_empty());
    }

    #[test]
    fn the_later_position_of_a_login_counts() {
        let at = |sequence| Position { incarnation: 1, sequence };
        let log = |position| Changes { login_position: position, ..Changes::default() };
        for (first, second, expected) in [
            (None, Some(2), Some(2)),
            (Some(1), None, Some(1)),
            (Some(1), Some(2), Some(2)),
            (None, None, None),
        ] {
            let both = log(first.map(at)).then(&log(second.map(at)));
            assert_eq!(both.login_position(), expected.map(at));
        }
    }

    #[test]
    fn debug_shows_keys_and_no_values() {
        let mut log = Changes::default();
        log.put("pin", Some(rmp_serde::to_vec("hunter2").unwrap().into()), None);
        let printed = format!("{log:?}");
        assert!(
            printed.contains("pin") && !printed.contains("hunter2") && !printed.contains("104"),
            "{printed}"
        );
    }
}
