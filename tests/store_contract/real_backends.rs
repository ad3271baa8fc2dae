//! The scenarios that the real backends are tested with, too.

use crate::concurrent_requests::Deed;
use crate::interleavings::{DEEDS, assert_in_order, every_schedule, pairs, schedules};
use crate::{interrupted_endings, subject_races, subjects};

/// A request that loaded before a logout and saves after it: the session stays ended, whatever the order of every step.
pub(crate) fn every_interleaving_of_load_save_destroy_and_regenerate() {
    let schedules: usize = pairs(&DEEDS).iter().map(|pair| every_schedule(pair, assert_in_order)).sum();
    assert!(schedules >= 45 * 6, "{schedules}");
}

/// Three at once, from where each of them has loaded.
pub(crate) fn every_interleaving_of_the_writes_of_three() {
    for deeds in [
        [Deed::Update, Deed::Update, Deed::Destroy],
        [Deed::Update, Deed::Set, Deed::Regenerate],
        [Deed::Set, Deed::Regenerate, Deed::Destroy],
    ] {
        schedules(&deeds, true, assert_in_order);
    }
}

pub(crate) fn endings_and_logins_step_by_step() {
    subject_races::r9_every_interleaving_of_two_logins();
    subject_races::t26_every_interleaving_of_an_ending_and_a_save_or_a_logout();
    subject_races::r1_every_interleaving_of_a_logout_and_a_new_token();
}

pub(crate) fn lists_of_sessions() {
    subjects::sessions_are_listed_with_their_times_in_the_order_of_logins();
    subjects::t26_ending_all_but_one_leaves_that_one_and_other_subjects();
    subjects::regenerate_and_logout_keep_the_list_right();
    subjects::t71_beyond_the_limit_the_oldest_session_ends_and_an_event_says_so();
    interrupted_endings::t26_a_damaged_list_is_an_error_until_the_next_login();
}
