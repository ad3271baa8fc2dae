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
        assert!(!register.recent.has_lost(1), "the log was not read so far");
        assert_eq!(register.recent.has_lost(2), lost, "an entry at {there}");
        assert!(!register.recent.has_lost(2), "each entry is checked once");
    }
}
