//! The size of a call, the period in which an entry may be deleted, and transactions that fail.

use super::super::schema::{ROW, open_writer};
use super::super::synchronous::Synchronous;
use super::*;
use crate::clock::SystemClock;
use crate::store::server::session_list::LONGEST_LIST;

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn stored(value: &'static [u8], lifetime: Duration) -> Stored {
    Stored { value: Bytes::from_static(value), expires: NOW.saturating_add(lifetime) }
}

/// The calls that wait are limited by it.
#[test]
fn a_call_counts_for_the_bytes_that_it_holds() {
    let size = |step| Write { id: [7; 16], step }.size();
    let (expected, entry) = (Bytes::from_static(&[1; 100]), stored(&[2; 30], DAY));
    assert_eq!(size(Step::Create { entry: entry.clone(), now: NOW }), 94);
    assert_eq!(size(Step::Replace { expected: expected.clone(), entry, now: NOW }), 194);
    assert_eq!(size(Step::DeleteIf { expected, now: NOW }), 164);
    assert_eq!(size(Step::Touch { expires: NOW, now: NOW }), 64);
    assert_eq!(size(Step::Delete), 64);
}

/// An entry in an earlier period would be looked at too often, and one in a later period would keep its space for longer.
#[test]
fn an_entry_is_in_the_period_of_its_present_lifetime() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    std::fs::write(&path, "").unwrap();
    let connection = open_writer(&path, Synchronous::Normal, Duration::from_secs(120), 1_000).unwrap();
    let mut statements = Statements::prepare(&connection).unwrap();
    let period =
        || connection.query_row("SELECT sweep FROM entries", (), |row| row.get::<_, i64>(0)).unwrap();
    let mut apply = |step| statements.apply(&Write { id: [7; 16], step }, NOW).unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(apply(Step::Create { entry: stored(b"0", minute), now: NOW }), Answer::Done(true));
    assert_eq!(period(), period_after(NOW, minute));
    for lifetime in [DAY, 2 * DAY, 2 * DAY, minute] {
        let touch = Step::Touch { expires: NOW.saturating_add(lifetime), now: NOW };
        assert_eq!(apply(touch), Answer::Done(true));
        assert_eq!(period(), period_after(NOW, lifetime));
    }
    let values: [&'static [u8]; 5] = [b"0", b"1", b"2", b"3", b"4"];
    for (pair, lifetime) in values.windows(2).zip([DAY, 2 * DAY, 2 * DAY, minute]) {
        let (expected, entry) = (Bytes::from_static(pair[0]), stored(pair[1], lifetime));
        let replace = Step::Replace { expected, entry, now: NOW };
        assert_eq!(apply(replace), Answer::Replaced(Replaced::Done));
        assert_eq!(period(), period_after(NOW, lifetime));
    }
}

/// A folder with a writer, removed at the end.
fn with_writer(body: impl FnOnce(&Writer)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    std::fs::write(&path, "").unwrap();
    let connection = open_writer(&path, Synchronous::Normal, Duration::from_secs(120), 1_000).unwrap();
    body(&Writer {
        connection,
        file: FileIdentity::of(&path),
        lock: ProcessLock::open(&path).unwrap(),
        machine: Arc::new(SystemClock),
        sweep_interval: DAY,
        counters: Arc::default(),
    });
}

#[test]
fn a_transaction_that_fails_is_rolled_back_and_the_next_one_begins() {
    with_writer(|writer| {
        let mut statements = Statements::prepare(&writer.connection).unwrap();
        let create = |id| Write { id: [id; 16], step: Step::Create { entry: stored(b"1", DAY), now: NOW } };
        let failed = writer.transaction(&mut statements, |statements| {
            statements.apply(&create(1), NOW)?;
            Err::<(), _>(Failure::Full)
        });
        assert_eq!(failed, Err(Failure::Full));
        assert!(writer.connection.is_autocommit());
        let done = writer.transaction(&mut statements, |statements| Ok(statements.apply(&create(2), NOW)?));
        assert_eq!(done, Ok(Answer::Done(true)));
        let ids =
            writer.connection.query_row("SELECT min(id) FROM entries", (), |row| row.get::<_, [u8; 16]>(0));
        assert_eq!(ids.unwrap(), [2; 16]);
    });
}

#[test]
fn a_change_that_cannot_be_written_fails_no_other_of_its_group() {
    with_writer(|writer| {
        let mut statements = Statements::prepare(&writer.connection).unwrap();
        let too_long = Stored { value: vec![1; LONGEST_LIST + ROW + 1].into(), ..stored(b"", DAY) };
        let group: Vec<_> = [stored(b"1", DAY), too_long, stored(b"3", DAY)]
            .into_iter()
            .zip(1..)
            .map(|(entry, id)| {
                (u64::from(id), Write { id: [id; 16], step: Step::Create { entry, now: NOW } })
            })
            .collect();
        let answers = writer.commit(&mut statements, &group);
        assert_eq!(
            answers,
            [(1, Ok(Answer::Done(true))), (2, Err(Failure::TooLarge)), (3, Ok(Answer::Done(true)))]
        );
        let stats = crate::store::sqlite::SqliteStats::of(&writer.counters);
        assert_eq!((stats.changes, stats.failures, stats.commits), (2, 1, 1));
    });
}
