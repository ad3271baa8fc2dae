use super::*;
use crate::clock::TestClock;
use crate::crypto::SystemRandom;
use crate::error::Error;
use crate::revocation::{Page, RevocationLog};
use crate::session::Payload;

pub(super) type OtherThread = Box<dyn FnMut(&Register) + Send>;

const ID: SessionId = SessionId::from_bytes([9; 16]);
const HOUR: Duration = Duration::from_secs(3_600);

/// Judges the session `ID`, which logged in at `sequence`.
fn judge(register: &Register, sequence: u64, now: u64) -> Verdict {
    let lineage = Lineage { position: register.at(sequence), owner: None, root: None };
    register.judge(ID, &lineage, &Payload::default().labels(), Timestamp::from_unix(now), HOUR)
}

/// Does the same as [`judge`], while another thread takes `step` at the point with this
/// number.
fn judged(
    register: &Register,
    sequence: u64,
    point: usize,
    step: impl Fn(&Register) + Send + 'static,
) -> Verdict {
    let points = Arc::new(AtomicUsize::new(0));
    let passed = Arc::clone(&points);
    *lock(&register.other_thread) = Some(Box::new(move |register| {
        if passed.fetch_add(1, Ordering::SeqCst) == point {
            step(register);
        }
    }));
    let verdict = judge(register, sequence, 100);
    *lock(&register.other_thread) = None;
    assert_eq!(points.load(Ordering::SeqCst), 2, "the other thread had its turns");
    verdict
}

/// More revocations than the tables of the set have room for.
fn many() -> impl Iterator<Item = Revocation> {
    (1..=4_096_u128).map(|number| Revocation::of_owner((number << 64 | number).to_be_bytes()))
}

#[test]
fn a_revocation_that_is_forgotten_during_a_judgement_is_not_missed() {
    for point in 0..2 {
        let register = Register::in_memory(&SystemRandom).unwrap();
        register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap();
        let verdict = judged(&register, 1, point, |register| {
            register.max.store(64, Ordering::Release);
            for revocation in many() {
                register.revoke_at_once(&[revocation]).unwrap();
            }
            assert!(register.set.view().get(Key::of_root(ID)).is_none(), "the floor replaced it");
        });
        assert_eq!(verdict, Verdict::Revoked, "at point {point}");
    }
}

/// A clock that is ahead for a moment forgets too early. The session is judged before and after that.
#[test]
fn a_revocation_that_a_clock_forgets_too_early_is_not_missed() {
    for point in 0..2 {
        let register = Register::in_memory(&SystemRandom).unwrap();
        let clock = attach_for(&register, 64, false, HOUR);
        register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap();
        let verdict = judged(&register, 1, point, move |register| {
            clock.set(100 + 30 * 86_400);
            register.sweep();
            assert_eq!(register.len(), 0, "it was forgotten");
        });
        assert_eq!(verdict, Verdict::Revoked, "at point {point}");
        assert_eq!(judge(&register, 1, 100), Verdict::Revoked, "afterwards");
    }
}

#[test]
fn a_revocation_that_is_read_during_a_judgement_is_not_missed() {
    for point in 0..2 {
        let register = Register::over(Arc::new(At(1)), &SystemRandom).unwrap();
        let verdict = judged(&register, 1, point, |register| {
            let entries = many().chain([Revocation::of_root(ID, false)]).zip(2..);
            let written = Timestamp::from_unix(1);
            let entries: Vec<_> =
                entries.map(|(revocation, position)| Entry { position, written, revocation }).collect();
            register.take_in(&entries);
            register.note_confirmed(entries.last().unwrap().position, Instant::now());
        });
        assert!(matches!(verdict, Verdict::Revoked | Verdict::Unconfirmed), "{verdict:?} at point {point}");
    }
}

/// A log whose next entry is at this position.
struct At(u64);

impl RevocationLog for At {
    fn incarnation(&self) -> u64 {
        1
    }

    async fn append(&self, _: Vec<Revocation>, _: u64) -> Result<u64, Error> {
        Ok(self.0)
    }

    async fn top(&self, _: u64) -> Result<u64, Error> {
        Ok(self.0)
    }

    async fn read(&self, _: u64, _: Duration) -> Result<Page, Error> {
        Ok(Page::default())
    }

    async fn trim(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

fn over_log(top: u64) -> Register {
    Register::over(Arc::new(At(top)), &SystemRandom).unwrap()
}

#[test]
fn an_old_id_is_told_from_a_revoked_one_for_a_minute_or_five() {
    use Verdict::{Retiring, Revoked, Superseded};
    const WRITTEN: u64 = 1_000;
    let verdict = |revocation, now| {
        let register = over_log(1);
        let written = Timestamp::from_unix(WRITTEN);
        register.take_in(&[Entry { position: 1, written, revocation }]);
        register.note_confirmed(1, Instant::now());
        judge(&register, 1, now)
    };
    for (now, retiring, superseded) in [
        (WRITTEN, Retiring, Superseded),
        (WRITTEN + 59, Retiring, Superseded),
        (WRITTEN + 60, Superseded, Revoked),
        (WRITTEN + 299, Superseded, Revoked),
        (WRITTEN + 300, Revoked, Revoked),
        // The clock of the host that wrote it is ahead: an id must not be valid for as long as that.
        (WRITTEN - 60, Retiring, Superseded),
        (WRITTEN - 61, Superseded, Superseded),
    ] {
        assert_eq!(verdict(Revocation::retiring_id(ID), now), retiring, "at {now}");
        assert_eq!(verdict(Revocation::of_id(ID, true), now), superseded, "at {now}");
        assert_eq!(verdict(Revocation::of_id(ID, false), now), Revoked, "at {now}");
    }
}

/// The times in the timeline only grow: one of the future would keep all later entries until then.
#[test]
fn an_entry_of_the_future_was_written_when_it_is_read() {
    let register = over_log(2);
    let before = SystemClock.now();
    let entry = |position, written| Entry { position, written, revocation: Revocation::of_root(ID, false) };
    register.take_in(&[entry(1, Timestamp::MAX), entry(2, before)]);
    let written = [1, 2].map(|position| lock(&register.timeline).written(position).unwrap());
    assert!(written.iter().all(|written| (before..=SystemClock.now()).contains(written)), "{written:?}");
}

#[test]
fn there_is_nothing_revoked_until_a_name_or_everything_is() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    attach(&register, 32, true);
    assert!(register.is_empty(), "an option revokes nothing");
    register.revoke_at_once(&[Revocation::of_everything()]).unwrap();
    assert_eq!((register.len(), register.is_empty()), (0, false));
    let register = Register::in_memory(&SystemRandom).unwrap();
    register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap();
    assert!(!register.is_empty());
}

#[test]
fn a_session_that_begins_at_the_end_of_all_sessions_is_valid() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    let end = register.revoke_at_once(&[Revocation::of_everything()]).unwrap().sequence;
    let verdict = |sequence| judge(&register, sequence, 100);
    assert_eq!([verdict(end - 1), verdict(end)], [Verdict::Revoked, Verdict::Valid]);
}

async fn is_pending(future: std::pin::Pin<&mut impl Future<Output = bool>>) -> bool {
    let mut future = future;
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_log_that_fails_for_a_moment_delays_a_request_and_fails_none() {
    let register = over_log(2);
    register.note_confirmed(1, Instant::now());
    register.note_failed();
    let mut confirming = std::pin::pin!(register.confirm(register.at(2), HOUR));
    assert!(is_pending(confirming.as_mut()).await);
    register.note_confirmed(2, Instant::now());
    assert!(confirming.await);
}

/// A task that ends with its runtime says nothing about the log. A task that panics before it has read anything does.
#[tokio::test]
async fn a_request_waits_for_a_task_that_is_started_again_and_not_for_a_log_that_fails() {
    type Step = fn(&Register);
    let (fails, ends, panics): (Step, Step, Step) = (
        Register::note_failed,
        |register| register.note_stopped(false),
        |register| register.note_stopped(true),
    );
    let cases: [(&[Step], bool); 7] = [
        (&[fails], false),
        (&[ends], true),
        (&[panics], true),
        (&[panics, panics], false),
        (&[fails, panics], false),
        (&[fails, ends], true),
        (&[ends, fails], false),
    ];
    for (number, (steps, waits)) in cases.into_iter().enumerate() {
        let mut register = over_log(1);
        let long_ago = register.freshness.began_before(2 * HOUR);
        register.note_confirmed(1, long_ago);
        for step in steps {
            step(&register);
        }
        let mut confirming = std::pin::pin!(register.confirm(register.at(1), HOUR));
        // A request that gives up does so at once, however long that takes on a busy machine.
        let patience = if waits { Duration::from_millis(10) } else { HOUR / 60 };
        let given_up = tokio::time::timeout(patience, confirming.as_mut()).await.ok();
        assert_eq!(given_up, (!waits).then_some(false), "case {number}");
        if waits {
            register.note_confirmed(1, Instant::now());
            assert!(confirming.await);
        }
    }
}

// Only a log that ends before the position was rolled back. To raise another log wastes positions, and the
// request would fail.
#[tokio::test]
async fn a_log_that_was_read_late_is_not_taken_for_one_that_was_rolled_back() {
    let mut register = over_log(1);
    let long_ago = register.freshness.began_before(2 * HOUR);
    let mut confirming = std::pin::pin!(register.confirm(register.at(1), HOUR));
    for _ in 0..3 {
        assert!(is_pending(confirming.as_mut()).await);
        register.note_confirmed(1, long_ago);
    }
    assert!(is_pending(confirming.as_mut()).await);
    register.note_confirmed(1, Instant::now());
    assert!(confirming.await);
}

fn attach(register: &Register, max: usize, refuse_unknown: bool) {
    attach_for(register, max, refuse_unknown, HOUR);
}

impl Register {
    /// Attaches a store whose sessions last for an hour.
    pub(in crate::revocation) fn attach_for_an_hour(&self) {
        attach(self, 32, false);
    }
}

/// Attaches a store whose sessions last for so long. Returns its clock.
fn attach_for(register: &Register, max: usize, refuse_unknown: bool, longest: Duration) -> Arc<TestClock> {
    let reporter = Reporter { cookie: String::new(), observer: None };
    let clock = Arc::new(TestClock::at(100));
    let limits = StoreLimits { max, max_per_subject: 1, max_staleness: HOUR, refuse_unknown };
    register.attach(limits, longest, Arc::clone(&clock) as Arc<dyn Clock>, reporter);
    clock
}

#[test]
fn a_store_whose_sessions_last_for_longer_refuses_those_whose_revocations_may_be_forgotten() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    let clock = attach_for(&register, 32, false, HOUR);
    let forgotten = register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap().sequence;
    let now = 100 + (HOUR + MARGIN).as_secs();
    clock.set(now);
    register.sweep();
    assert_eq!(register.len(), 0);
    let judged = || [forgotten - 1, forgotten].map(|at| judge(&register, at, now));
    attach_for(&register, 32, false, HOUR);
    assert_eq!(judged(), [Verdict::Valid; 2], "the first store's sessions have expired");
    attach_for(&register, 32, false, 2 * HOUR);
    assert_eq!(judged(), [Verdict::Revoked, Verdict::Valid]);
}

#[test]
fn the_first_store_sets_the_limits() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    attach(&register, 32, false);
    attach(&register, 1_000_000, false);
    assert_eq!(register.horizon(), HOUR + MARGIN);
    assert!(register.spend([1; 16]) && !register.spend([1; 16]));
    // Their positions begin at 2.
    let mut revocations = many();
    for revocation in revocations.by_ref().take(32) {
        register.revoke_at_once(&[revocation]).unwrap();
    }
    assert_eq!((register.len(), judge(&register, 0, 100)), (32, Verdict::Valid));
    // Beyond the limit, the oldest ones make room: a sixteenth, and the surplus one. The sessions before them have
    // ended.
    register.revoke_at_once(&[revocations.next().unwrap()]).unwrap();
    assert_eq!(register.len(), 30);
    assert_eq!([3, 4].map(|at| judge(&register, at, 100)), [Verdict::Revoked, Verdict::Valid]);
}

#[test]
fn a_revocation_that_was_forgotten_is_not_taken_in_again() {
    let register = over_log(1);
    attach(&register, 32, false);
    let written = Timestamp::from_unix(100);
    let entries: Vec<_> = many()
        .take(33)
        .zip(1..)
        .map(|(revocation, position)| Entry { position, written, revocation })
        .collect();
    for _ in 0..2 {
        register.take_in(&entries);
        assert_eq!(register.len(), 30, "three made room");
    }
}

#[test]
fn a_store_can_refuse_sessions_without_a_position() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    attach(&register, 32, false);
    assert_eq!(judge(&register, 0, 100), Verdict::Valid);
    attach(&register, 32, true);
    assert_eq!([0, 1].map(|at| judge(&register, at, 100)), [Verdict::Revoked, Verdict::Valid]);
}

// Two hosts end the sessions of one subject, and a failover loses the second entry. The first one is not it: it does not
// end the session of a login between the two.
#[tokio::test]
async fn an_entry_of_another_host_is_not_taken_for_a_lost_one() {
    let revocation = Revocation::of_owner([7; 16]);
    let read = |position| Entry { position, written: Timestamp::from_unix(1), revocation };
    for (there, lost) in [(1, true), (2, false)] {
        let register = Register::over(Arc::new(At(2)), &SystemRandom).unwrap();
        assert_eq!(register.revoke(vec![revocation]).await.unwrap().sequence, 2);
        register.take_in(&[read(there)]);
        assert!(!register.recent.check_off(1), "the log was not read so far");
        assert_eq!(register.recent.check_off(2), lost, "an entry at {there}");
        assert!(!register.recent.check_off(2), "each entry is checked once");
    }
}

/// Entries from before the start may be dated ahead, after a failover of Redis.
#[test]
fn a_process_that_begins_does_not_grant_an_old_id_another_minute() {
    let written = Timestamp::from_unix(1_000);
    for (position, expected) in [(1, Verdict::Superseded), (2, Verdict::Superseded), (3, Verdict::Retiring)] {
        let register = over_log(3);
        register.freshness.note_loaded(2);
        register.take_in(&[Entry { position, written, revocation: Revocation::retiring_id(ID) }]);
        register.note_confirmed(3, Instant::now());
        assert_eq!(judge(&register, 3, written.as_unix()), expected, "an entry at {position}");
    }
}

#[test]
fn sessions_are_refused_until_the_clock_shows_again_what_it_showed_but_for_the_margin() {
    let register = Register::in_memory(&SystemRandom).unwrap();
    let clock = attach_for(&register, 64, false, HOUR);
    let forgotten = register.revoke_at_once(&[Revocation::of_root(ID, false)]).unwrap().sequence;
    let late = 100 + 30 * 86_400;
    clock.set(late);
    register.sweep();
    assert_eq!(register.len(), 0);
    let early = late - MARGIN.as_secs() - 1;
    assert_eq!(
        [early, early + 1].map(|now| judge(&register, forgotten - 1, now)),
        [Verdict::Revoked, Verdict::Valid]
    );
    assert_eq!(
        judge(&register, forgotten, early),
        Verdict::Valid,
        "it logged in after all that is forgotten"
    );
}

#[tokio::test]
async fn in_memory_no_revocation_is_waited_for() {
    let mut register = Register::in_memory(&SystemRandom).unwrap();
    register.freshness.began_before(2 * HOUR);
    assert!(register.is_immediate() && !over_log(1).is_immediate());
    assert!(!is_pending(std::pin::pin!(register.confirm(register.at(9), HOUR))).await);
    assert_eq!(judge(&register, 9, 100), Verdict::Valid);
}

#[test]
fn nothing_is_forgotten_before_a_store_says_how_long_sessions_last() {
    let register = over_log(1);
    let written = Timestamp::from_unix(1);
    register.take_in(&[Entry { position: 1, written, revocation: Revocation::of_root(ID, false) }]);
    register.sweep();
    assert_eq!((register.len(), register.horizon()), (1, Duration::MAX));
    let clock = attach_for(&register, 32, false, HOUR);
    let horizon = (HOUR + MARGIN).as_secs();
    for (now, left) in [(horizon, 1), (1 + horizon, 0)] {
        clock.set(now);
        register.sweep();
        assert_eq!(register.len(), left, "at {now}");
    }
}

#[test]
fn the_shortest_staleness_of_all_stores_counts() {
    let register = over_log(1);
    assert_eq!(register.shortest_staleness(), None);
    for (staleness, shortest) in [(2, 2), (3, 2), (1, 1)] {
        let limits = StoreLimits {
            max: 32,
            max_per_subject: 1,
            max_staleness: Duration::from_secs(staleness),
            refuse_unknown: false,
        };
        let reporter = Reporter { cookie: String::new(), observer: None };
        register.attach(limits, HOUR, Arc::new(TestClock::at(100)), reporter);
        assert_eq!(register.shortest_staleness(), Some(Duration::from_secs(shortest)));
    }
}

/// It is written again if the log lacks it. At position zero it would end all sessions.
#[test]
fn an_end_of_all_sessions_is_known_only_if_there_was_one() {
    let register = over_log(5);
    assert_eq!(register.everything_known(), []);
    let revocation = Revocation::of_everything();
    register.take_in(&[Entry { position: 5, written: Timestamp::from_unix(1), revocation }]);
    assert_eq!(register.everything_known(), [(revocation.key(), Mark::at(5))]);
}

/// The log returns the position of the last one. The others are somewhere before it.
#[tokio::test]
async fn of_several_revocations_those_that_end_sessions_by_position_count_from_the_last_one() {
    let register = over_log(10);
    let [first, last] = [8, 9].map(|id| Revocation::of_root(SessionId::from_bytes([id; 16]), false));
    let owner = Revocation::of_owner([7; 16]);
    assert_eq!(register.revoke(vec![first, owner, last]).await.unwrap().sequence, 10);
    let position = |revocation: Revocation| register.set.view().get(revocation.key()).map(Mark::position);
    assert_eq!([first, owner, last].map(position), [Some(1), Some(10), Some(10)]);
}

#[tokio::test]
async fn a_session_that_moves_has_ended_whatever_named_it() {
    let (root, owner, payload) = (SessionId::from_bytes([8; 16]), [7; 16], Payload::default());
    for (revocation, position, ended) in [
        (Revocation::of_root(root, false), 5, true),
        (Revocation::of_root(ID, false), 5, false),
        (Revocation::of_id(ID, false), 5, true),
        (Revocation::of_owner(owner), 4, true),
        (Revocation::of_owner(owner), 3, false),
        (Revocation::of_everything(), 4, true),
        (Revocation::of_everything(), 3, false),
    ] {
        for is_recorded in [true, false] {
            let register = over_log(10);
            register.take_in(&[Entry { position, written: Timestamp::from_unix(1), revocation }]);
            register.note_confirmed(10, Instant::now());
            let judged = register.at(3);
            let lineage = Lineage { position: judged, owner: Some(owner), root: Some(root) };
            let labels = payload.labels();
            let moved = register.end_moved(ID, &lineage, &labels, judged, is_recorded, HOUR).await;
            let expected = if ended { Continuation::Nowhere } else { Continuation::At(register.at(10)) };
            assert_eq!(moved.unwrap(), expected, "{revocation:?} at {position}");
        }
    }
}
