//! Every order in which two processes open the file of revocations, write it and read it, and an older copy is put back.

use hyper_session_model::sqlite::{Mistake, Scenario};
use stateright::{Checker, Model};

/// Not a rule: that it happens shows that the rules are not true of nothing.
const HAPPENS: &str = "a session from before a restore is ended after it";

const DURABLE: &str = "an acknowledged revocation is in the file";
const ENDS_EARLIER: &str = "a revocation ends every session from before it, also from before a restore";
const SPARES_LATER: &str = "a revocation ends no later login";
const CONFIRMED: &str = "a process that confirms sessions knows each revocation from before its read";

fn scenario(mistake: Mistake) -> Scenario {
    Scenario { deeds: 2, replaces_open_file: true, sets_clock_back: false, mistake }
}

fn found(scenario: Scenario) -> Vec<&'static str> {
    let checker = scenario.checker().spawn_bfs().join();
    checker.discoveries().into_keys().filter(|name| *name != HAPPENS).collect()
}

#[track_caller]
fn finds(scenario: Scenario, rule: &str) {
    let found = found(scenario);
    assert!(found.contains(&rule), "found only {found:?}");
}

#[test]
fn two_processes_and_a_copy_that_is_put_back_under_them_or_between_them() {
    for replaces_open_file in [true, false] {
        let scenario = Scenario { replaces_open_file, ..scenario(Mistake::None) };
        let checker = scenario.checker().spawn_bfs().join();
        for (property, path) in checker.discoveries() {
            if property != HAPPENS {
                let last = path.last_state().clone();
                panic!("{property}\n{:?}\n{last:?}", path.into_actions());
            }
        }
        checker.assert_properties();
        let states = checker.unique_state_count();
        assert!(states > 10_000, "{states} states");
    }
}

/// Each further opening of the lost file would move its positions as far as the opening of the restored one.
#[test]
fn positions_that_do_not_follow_the_time_are_found() {
    let stopped = Scenario { replaces_open_file: false, ..scenario(Mistake::FixedRoom) };
    finds(stopped, ENDS_EARLIER);
}

#[test]
fn a_process_that_goes_on_in_a_file_that_was_replaced_is_found() {
    finds(scenario(Mistake::WritesUnchecked), DURABLE);
    finds(scenario(Mistake::ReadsUnchecked), CONFIRMED);
}

#[test]
fn a_login_that_does_not_ask_for_the_end_of_the_file_is_found() {
    finds(scenario(Mistake::LoginDoesNotAsk), SPARES_LATER);
}

/// The limit that the guide names.
#[test]
fn a_clock_that_was_set_back_before_a_restore_is_found() {
    let scenario = Scenario { sets_clock_back: true, ..scenario(Mistake::None) };
    finds(scenario, ENDS_EARLIER);
}
