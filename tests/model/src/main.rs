//! Visits every state of the larger configurations, and prints how many there were: three requests on the store, with a host
//! that crashes and with a list that is lost; renewals with a second browser and a list that is lost, and
//! with a session that moves to another store; two requests and a failover beside revocations, one request and a failover after which
//! healing fails, and three requests without one. `tests/run` visits the smaller ones.

use std::fmt::Debug;
use std::hash::Hash;

use hyper_session_model::{request, revocation, store};
use stateright::{Checker, Model};

fn main() {
    let mut sum = 0;
    for deeds in request::Deed::combinations(3) {
        if request::Deed::have_too_many_states(&deeds) {
            continue;
        }
        for (crashes, loses_list) in [(0, false), (1, false), (0, true)] {
            sum += visit(store::Scenario { crashes, loses_list, ..store::Scenario::of(&deeds) });
        }
    }
    for deeds in request::Deed::combinations(3) {
        let count = |of: &[request::Deed]| deeds.iter().filter(|deed| of.contains(deed)).count();
        let renewals = count(&[request::Deed::Renew]);
        let new_tokens = count(&[request::Deed::Regenerate, request::Deed::Login]);
        let losing =
            store::Scenario { second_browser: true, loses_list: true, ..store::Scenario::of(&deeds) };
        if renewals == 1 && new_tokens == 1 && !request::Deed::have_too_many_states(&deeds) {
            sum += visit(store::Scenario { checks_list: true, ..losing.clone() });
        }
        if renewals == 2 {
            sum += visit(store::Scenario { failures: 2, ..losing });
        }
        if renewals == 1 && new_tokens == 0 && count(&[request::Deed::EndOthers]) == 0 {
            let moving = store::Scenario { migrates: true, failures: 1, ..store::Scenario::of(&deeds) };
            sum += visit(moving);
        }
    }
    let with_failover = revocation::Deed::combinations(2).into_iter();
    for deeds in with_failover.filter(|deeds| !deeds.contains(&revocation::Deed::EndOthers)) {
        for crashes in [false, true] {
            let scenario =
                revocation::Scenario { fails_over: true, crashes, ..revocation::Scenario::of(&deeds) };
            sum += visit(scenario);
        }
    }
    for deed in revocation::Deed::ALL.into_iter().filter(|deed| *deed != revocation::Deed::EndOthers) {
        sum += visit(revocation::Scenario {
            fails_over: true,
            fails: true,
            ..revocation::Scenario::of(&[deed])
        });
    }
    for deeds in revocation::Deed::combinations(3) {
        sum += visit(revocation::Scenario::of(&deeds));
    }
    println!("{sum} states, and every rule holds in each");
}

fn visit<M>(scenario: M) -> usize
where
    M: Model + Clone + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = scenario.clone().checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{scenario:?}: {} states", checker.unique_state_count());
    checker.unique_state_count()
}
