//! Every order of the steps of requests, of hosts that follow the log of revocations, and of a failover.

use hyper_session_model::revocation::{Deed, Mistake, Scenario};
use stateright::{Checker, Model};

/// Not a rule: that it happens shows that the rules are not true of nothing.
const HAPPENS: &str = "all requests end";

const AT_ONCE: &str = "an ended session is refused at once where it was ended";
const ELSEWHERE: &str = "an ended session is refused within the bound elsewhere";
const HEALED: &str = "what a failover lost is in the log again";
const NOT_ENDED: &str = "no session ends without a revocation of it";

fn states(scenario: &Scenario) -> usize {
    let checker = scenario.clone().checker().spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        if property != HAPPENS {
            let last = path.last_state().clone();
            panic!("{property}: {scenario:?}\n{:?}\n{last:?}", path.into_actions());
        }
    }
    checker.assert_properties();
    checker.unique_state_count()
}

/// Those with more have millions of states: `cargo run --release` visits them.
#[test]
fn any_three_requests_of_which_one_needs_a_session() {
    let deeds = Deed::combinations(3).into_iter();
    let few = deeds.filter(|deeds| deeds.iter().filter(|deed| deed.loads()).count() <= 1);
    let sum: usize = few.map(|deeds| states(&Scenario::of(&deeds))).sum();
    assert!(sum > 100_000, "{sum} states");
}

#[test]
fn a_failover_beside_a_request_and_an_end_of_all_sessions() {
    for deed in [Deed::Login, Deed::Regenerate] {
        let sum = states(&Scenario { fails_over: true, ..Scenario::of(&[deed, Deed::EndAll]) });
        assert!(sum > 10_000, "{sum} states");
    }
}

#[test]
fn a_failover_and_a_step_of_healing_that_fails() {
    let scenario = Scenario { fails_over: true, fails: true, ..Scenario::of(&[Deed::EndAll]) };
    let sum = states(&scenario);
    assert!(sum > 1_000, "{sum} states");
}

fn found(scenario: Scenario) -> Vec<&'static str> {
    let checker = scenario.checker().spawn_bfs().join();
    checker.discoveries().into_keys().filter(|name| *name != HAPPENS).collect()
}

#[track_caller]
fn finds(mistake: Mistake, deeds: &[Deed], fails_over: bool, rule: &str) {
    let found = found(Scenario { mistake, fails_over, ..Scenario::of(deeds) });
    assert!(found.contains(&rule), "found only {found:?}");
}

#[test]
fn a_logout_that_names_an_id_instead_of_a_root_is_found() {
    finds(Mistake::IdsInsteadOfRoots, &[Deed::Regenerate, Deed::Logout], false, AT_ONCE);
}

#[test]
fn a_regenerated_session_with_a_new_position_is_found() {
    finds(Mistake::RegenerateTakesPosition, &[Deed::Regenerate, Deed::EndAll], false, AT_ONCE);
}

#[test]
fn a_login_that_does_not_ask_for_its_position_is_found() {
    finds(Mistake::LoginDoesNotAsk, &[Deed::EndAll, Deed::Login], false, NOT_ENDED);
}

#[test]
fn a_session_that_outruns_the_end_of_its_subject_is_found() {
    finds(Mistake::OutrunsEnds, &[Deed::EndOthers, Deed::EndAll], false, AT_ONCE);
    finds(Mistake::ContinuesUnread, &[Deed::EndOthers, Deed::EndAll], false, AT_ONCE);
}

/// Of two devices that end each other at once, at most one is left.
#[test]
fn two_sessions_that_end_each_other() {
    let sum = states(&Scenario::of(&[Deed::Login, Deed::EndOthers, Deed::EndOthers]));
    assert!(sum > 10_000, "{sum} states");
}

#[test]
fn a_host_that_skips_the_entries_of_others_is_found() {
    finds(Mistake::GoesOnFromHighest, &[Deed::EndAll, Deed::Login], false, ELSEWHERE);
}

#[test]
fn lost_entries_that_are_not_written_again_are_found() {
    finds(Mistake::NotWrittenAgain, &[Deed::EndAll], true, HEALED);
}

/// Raising the log hides that it ended too early.
#[test]
fn a_loss_that_is_forgotten_when_healing_fails_is_found() {
    let mistake = Mistake::ForgetsLoss;
    let found = found(Scenario { mistake, fails_over: true, fails: true, ..Scenario::of(&[Deed::EndAll]) });
    assert!(found.contains(&HEALED), "found only {found:?}");
}

#[test]
fn lost_entries_that_are_written_as_new_ones_are_found() {
    finds(Mistake::WrittenAgainAsNew, &[Deed::EndAll, Deed::Login], true, NOT_ENDED);
}

/// The reason why a `RevocationLog` leaves out positions after a failover: this log does not, so a login takes a position that
/// the failover loses, and a host that has never read it ends its subject's sessions.
#[test]
fn the_cases_that_are_left_after_a_failover_are_found() {
    let strict = |deeds: &[Deed]| found(Scenario { strict: true, fails_over: true, ..Scenario::of(deeds) });
    assert!(strict(&[Deed::LoginAgain, Deed::EndAll]).contains(&AT_ONCE));
    assert!(strict(&[Deed::EndAll, Deed::Login]).contains(&NOT_ENDED));
}
