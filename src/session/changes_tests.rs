//! The log of changes: what is recorded, in which order logs are joined, and what runs again on newer values.

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

fn add(amount: u64) -> UpdateStep {
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
    let user = || SUBJECT.to_owned();
    let (base, newer) = (BTreeMap::from([(user(), 1)]), BTreeMap::from([("b".to_owned(), 2)]));
    let mut log = Changes::default();
    log.login(encoded(1));
    assert!(!log.is_empty());
    assert_eq!(values(&log.apply(Some(&payload(&base))).unwrap()), base);
    let both = BTreeMap::from([(user(), 1), ("b".to_owned(), 2)]);
    assert_eq!(values(&log.replay(Some(&payload(&newer))).unwrap()), both);
}

/// A step that refuses a newer value leaves the value as it is.
#[test]
fn a_step_without_a_result_changes_nothing() {
    let take_one: UpdateStep = Arc::new(|old| Ok(old.map_or(0, number).checked_sub(1).map(encoded)));
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
    log.login(encoded(1));
    log.set_login_position(Some(Position { incarnation: 1, sequence: 1 }));
    assert!(log.begins_anew() && log.clone().then(&Changes::default()).begins_anew());
    assert!(Changes::default().then(&log).begins_anew());
    log.clear();
    assert!(!log.begins_anew() && log.login_position().is_none());
    let mut login = Changes::default();
    login.login(encoded(1));
    assert!(!login.then(&log).begins_anew());
    login.restart();
    assert!(login.begins_anew());
}

/// A step that counts how often it runs.
fn counted(amount: u64) -> (UpdateStep, Arc<AtomicU32>) {
    let runs = Arc::new(AtomicU32::new(0));
    let (counter, step) = (Arc::clone(&runs), add(amount));
    let step: UpdateStep = Arc::new(move |old| {
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
        (|log| log.login(encoded(1)), Changes::logs_in),
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
        assert!(!log.has_entry("n") || matches!(log.get("n"), Lookup::Value(value) if number(value) == 9));
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
    for (first, second, expected) in
        [(None, Some(2), Some(2)), (Some(1), None, Some(1)), (Some(1), Some(2), Some(2)), (None, None, None)]
    {
        let both = log(first.map(at)).then(&log(second.map(at)));
        assert_eq!(both.login_position(), expected.map(at));
    }
}

#[test]
fn a_visitor_s_session_keeps_the_labels_and_the_name_of_their_subject() {
    use super::super::key::SUBJECT;
    use super::super::lineage::with_label;
    let subject = rmp_serde::to_vec("ada").unwrap();
    let stored = with_label(None, [1; 16]).unwrap();
    let (own, both) = (with_label(None, [2; 16]).unwrap(), with_label(Some(&stored), [2; 16]).unwrap());
    let payload = |labels: Option<&Bytes>| {
        let values = [(LABELS, labels.map(|labels| &**labels)), (SUBJECT, Some(&*subject))];
        Payload::merge(None, values.into_iter()).unwrap()
    };
    let ada = payload(None).lineage().owner;
    assert!(ada.is_some());
    for (labels, in_log, kept, of_ada) in [
        (Some(&stored), None, Some(&stored), true),
        (Some(&stored), Some(&both), Some(&both), true),
        (Some(&stored), Some(&own), Some(&own), false),
        (None, Some(&own), Some(&own), false),
        (None, None, None, false),
    ] {
        let mut log = Changes::default();
        log.clear();
        if let Some(labels) = in_log {
            log.put(LABELS, Some(labels.clone()), None);
        }
        log.put("a", Some(encoded(3)), None);
        log.begin_visitors_session(&payload(labels));
        assert!(log.restarts() && log.begins_anew() && !log.logs_in());
        let begun = log.apply(Some(&payload(labels))).unwrap();
        assert_eq!(begun.get(LABELS).as_ref(), kept);
        assert!(begun.get(SUBJECT).is_none() && begun.get("a").is_some());
        let owner = ada.filter(|_| of_ada);
        assert_eq!(log.labels_of(), owner);
        // A save that failed is tried again, before or after further changes.
        let mut clear = Changes::default();
        clear.clear();
        let another = [7; 16];
        let others = Changes { labels_of: Some(another), ..clear.clone() };
        assert_eq!(log.then(&Changes::default()).labels_of(), owner);
        assert_eq!(log.then(&clear).labels_of(), owner);
        assert!(log.then(&clear).restarts());
        assert_eq!(log.then(&others).labels_of(), Some(another));
        log.restart();
        assert_eq!(log.labels_of(), None, "the labels have ended with the session");
    }
}

#[test]
fn debug_shows_keys_and_no_values() {
    let mut log = Changes::default();
    log.put("pin", Some(rmp_serde::to_vec("hunter2").unwrap().into()), None);
    let printed = format!("{log:?}");
    assert!(printed.contains("pin") && !printed.contains("hunter2") && !printed.contains("104"), "{printed}");
}
