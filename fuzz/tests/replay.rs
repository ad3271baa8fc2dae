//! Replays every seed, every regression and whatever fuzzing left in `corpus/`, and a few thousand inputs more, on the
//! stable compiler.

use std::fs;
use std::path::Path;

use checks::{CHECKS, Check};

/// The inputs kept for a target in `folder`.
fn inputs(folder: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn hold(inputs: Vec<(String, Vec<u8>)>, check: Check) {
    for (name, input) in inputs {
        println!("{name}");
        check(&input);
    }
}

/// `fuzz/coverage` runs only this and the regressions, as their inputs are the same on every machine.
#[test]
fn seeds_hold() {
    for (target, check) in CHECKS {
        let seeds = inputs("seeds", target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        hold(seeds, check);
    }
}

/// If the layout of stored values changes, the seeds must, too: a value that is refused at its first bytes reaches nothing
/// behind them.
#[test]
fn seeds_that_are_sessions_are_accepted() {
    let seeds = inputs("seeds", "record_decode");
    for name in ["bin", "formats", "json", "map", "nested"] {
        let (_, seed) = seeds.iter().find(|(path, _)| path.ends_with(&format!("/{name}"))).expect(name);
        assert!(checks::record_is_session(seed), "{name} is refused");
    }
}

#[test]
fn corpora_hold() {
    for (target, check) in CHECKS {
        hold(inputs("corpus", target), check);
    }
}

/// A name of the cause for each input that once failed; no such input is without one.
const REGRESSIONS: [(&str, &str); 32] = [
    ("cookie_multi_field", "copies_of_a_broken_token"),
    ("csrf_token", "words_of_the_refusal"),
    ("session_model", "renewal_of_a_regenerated_session"),
    ("session_model", "failed_destroy_of_an_overtaken_request"),
    ("session_model", "save_before_the_values_of_another_session"),
    ("session_model", "removal_over_a_session_that_goes_on"),
    ("session_model", "repeated_end_of_several_sessions"),
    ("session_model", "new_session_before_the_others_end"),
    ("session_model", "last_value_deleted_beside_a_regenerate"),
    ("session_model", "partly_failed_end_before_a_value"),
    ("session_model", "login_outside_that_expires_before_the_response"),
    ("session_model", "late_renewal_whose_correction_fails"),
    ("session_model", "session_begun_outside_after_an_end_inside"),
    ("session_model", "last_value_deleted_before_others_fail"),
    ("session_model", "end_that_a_later_save_found"),
    ("session_model", "login_outside_that_is_gone_before_the_response"),
    ("session_model", "save_before_an_end_outside_that_failed"),
    ("session_model", "renewal_after_a_partly_failed_end"),
    ("session_model", "end_outside_that_failed_after_an_end_inside"),
    ("session_model", "session_freed_by_a_host_that_is_ahead"),
    ("session_model", "values_after_an_end_beside_a_regenerate"),
    ("session_model", "values_after_an_end_and_a_failed_regenerate"),
    ("session_model", "values_after_an_end_beside_an_expired_token"),
    ("session_model", "new_session_freed_before_the_old_one_ends"),
    ("session_model", "save_after_an_end_that_met_a_tombstone"),
    ("session_model", "end_that_failed_after_its_new_session"),
    ("session_model", "end_that_failed_where_its_session_goes_on"),
    ("session_model", "client_that_left_before_its_session_was_given_up"),
    ("service_e2e", "dead_cookie_of_an_outer_service"),
    ("service_e2e", "logout_with_a_replaced_token"),
    ("service_e2e", "newest_token_beyond_the_fourth"),
    ("set_cookie_build", "retired_name_beyond_the_last_chunk"),
];

#[test]
fn regressions_hold() {
    let all = CHECKS.iter().flat_map(|(target, _)| inputs("regressions", target));
    let all: Vec<String> = all.map(|(path, _)| path).collect();
    assert_eq!(all.len(), REGRESSIONS.len(), "{all:?}");
}

fn regression(target: &str, name: &str) {
    assert!(REGRESSIONS.contains(&(target, name)));
    let (_, check) = CHECKS.iter().find(|(of, _)| *of == target).expect("a target");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target).join(name);
    check(&fs::read(path).unwrap());
}

/// Copies of one cookie that was refused for its form each counted against the limits, so that the session behind them was not
/// tried.
#[test]
fn copies_of_a_broken_token() {
    regression("cookie_multi_field", "copies_of_a_broken_token");
}

/// The check itself was wrong: it took an input that is a piece of every refusal's text for a token that the refusal quotes.
#[test]
fn words_of_the_refusal() {
    regression("csrf_token", "words_of_the_refusal");
}

/// The renewal of a session that another request had regenerated meanwhile touched its tombstone, and set the old token
/// again.
#[test]
fn renewal_of_a_regenerated_session() {
    regression("session_model", "renewal_of_a_regenerated_session");
}

/// A request whose token had been replaced began a session and destroyed it: its cookie was removed although the store had
/// failed to.
#[test]
fn failed_destroy_of_an_overtaken_request() {
    regression("session_model", "failed_destroy_of_an_overtaken_request");
}

/// A request whose token had been replaced asked for another session, saved it while it had no values, and then set one: the
/// value was dropped, as if no other session had been asked for.
#[test]
fn save_before_the_values_of_another_session() {
    regression("session_model", "save_before_the_values_of_another_session");
}

/// An outer service had saved an ending, and then went on from the session of the inner service's 500 response, to which it had
/// nothing to add. Its response removed the cookie of a session that it took for its own.
#[test]
fn removal_over_a_session_that_goes_on() {
    regression("session_model", "removal_over_a_session_that_goes_on");
}

/// The model was wrong: of two sessions of a request the first had ended and the end of the second was not acknowledged, so the
/// handler ended both again.
#[test]
fn repeated_end_of_several_sessions() {
    regression("session_model", "repeated_end_of_several_sessions");
}

/// A request with several sessions ended them and began a new one, which was stored before the others had ended. Their end failed,
/// and the client was not told of the new session.
#[test]
fn new_session_before_the_others_end() {
    regression("session_model", "new_session_before_the_others_end");
}

/// A handler deleted the last value and called `regenerate`. That ended its session, and not the others that came with the request.
#[test]
fn last_value_deleted_beside_a_regenerate() {
    regression("session_model", "last_value_deleted_beside_a_regenerate");
}

/// The model was wrong: a `save` ended the session of a request, but not the others that came with it. The handler then asked for
/// the end again, and for a value after it, which begins another session.
#[test]
fn partly_failed_end_before_a_value() {
    regression("session_model", "partly_failed_end_before_a_value");
}

/// The model was wrong: the session of a login in an outer service passed its absolute timeout before the response, which then
/// sets no cookie.
#[test]
fn login_outside_that_expires_before_the_response() {
    regression("session_model", "login_outside_that_expires_before_the_response");
}

/// A renewal had learnt that another request had regenerated the session. The store then failed to shorten the tombstone again, and
/// the session went on as if nothing was known.
#[test]
fn late_renewal_whose_correction_fails() {
    regression("session_model", "late_renewal_whose_correction_fails");
}

/// The model was wrong: an inner service ended the session, and the outer one, which had learnt that, began another session.
#[test]
fn session_begun_outside_after_an_end_inside() {
    regression("session_model", "session_begun_outside_after_an_end_inside");
}

/// The model was wrong: the outer service saved a session and then ended it, and the store failed to end the expired one that the
/// request had brought. As for one service, the token of the save is sent.
#[test]
fn save_before_an_end_outside_that_failed() {
    regression("session_model", "save_before_an_end_outside_that_failed");
}

/// The model was wrong: the last value was deleted, which ended the session, and the end of the others failed. A later value asks for
/// both again.
#[test]
fn last_value_deleted_before_others_fail() {
    regression("session_model", "last_value_deleted_before_others_fail");
}

/// The model was wrong: a `save` ended the session of a request, and its acknowledgement was lost. The next `save` told the handler
/// that the session had ended. The model still took the session that the handler then began for one that would not be kept.
#[test]
fn end_that_a_later_save_found() {
    regression("session_model", "end_that_a_later_save_found");
}

/// The model was wrong: the backend no longer had the session of a login in an outer service when the response came, so nothing
/// was said. The model asked for the login.
#[test]
fn login_outside_that_is_gone_before_the_response() {
    regression("session_model", "login_outside_that_is_gone_before_the_response");
}

/// The model was wrong: a `save` ended the session of a request, and the end of the others failed. For the handler, which was told of
/// the failure, its session goes on, so its renewal is due.
#[test]
fn renewal_after_a_partly_failed_end() {
    regression("session_model", "renewal_after_a_partly_failed_end");
}

/// An outer service saved a change, an inner one ended the session, and the store failed to end it for the outer one. The token of the
/// save was sent instead of the removal.
#[test]
fn end_outside_that_failed_after_an_end_inside() {
    regression("session_model", "end_outside_that_failed_after_an_end_inside");
}

/// The model was wrong: the last request of the script created a session on a host whose clock was ahead, which freed one that had
/// expired long ago by that clock. On the other host it was still alive. Random tokens decided whether both shared a shard.
#[test]
fn session_freed_by_a_host_that_is_ahead() {
    regression("session_model", "session_freed_by_a_host_that_is_ahead");
}

/// The model was wrong: a handler called `destroy` and set values while another request gave the session a new token. The session
/// ends under that token, too, and leaves a tombstone there.
#[test]
fn values_after_an_end_beside_a_regenerate() {
    regression("session_model", "values_after_an_end_beside_a_regenerate");
}

/// The model was wrong: the reply to a `save` with a new token was lost, and the handler then called `destroy` and set values. The
/// session has the new token, and ends under it.
#[test]
fn values_after_an_end_and_a_failed_regenerate() {
    regression("session_model", "values_after_an_end_and_a_failed_regenerate");
}

/// A handler called `destroy` and set values. A second cookie of the request had the token from before, whose tombstone had
/// expired. The session was ended by way of that token before the new one began, and left no tombstone.
#[test]
fn values_after_an_end_beside_an_expired_token() {
    regression("session_model", "values_after_an_end_beside_an_expired_token");
}

/// The model was wrong: a request took weeks between its two steps, and the memory had freed the new session before the old one ended.
#[test]
fn new_session_freed_before_the_old_one_ends() {
    regression("session_model", "new_session_freed_before_the_old_one_ends");
}

/// The model was wrong: a `save` after `clear` found the tombstone of a session that another request had given a new token, and failed to
/// read the session under that token. The handler was told. Its next `save` finds the tombstone again, and that its session has ended.
#[test]
fn save_after_an_end_that_met_a_tombstone() {
    regression("session_model", "save_after_an_end_that_met_a_tombstone");
}

/// An input that fails must fail again: time, tokens and their order are those of the input.
#[test]
fn one_input_does_one_thing() {
    let same = |input: &[u8]| {
        let first = checks::session_model_trace(input);
        for _ in 0..3 {
            assert_eq!(checks::session_model_trace(input), first);
        }
    };
    let kept = ["seeds", "regressions"].map(|folder| inputs(folder, "session_model"));
    for (name, input) in kept.into_iter().flatten() {
        println!("{name}");
        same(&input);
    }
    for_random_bytes(100, same);
}

/// The oracle was wrong: it took a retired name for the ninth cookie of the present name. There are eight at most.
#[test]
fn retired_name_beyond_the_last_chunk() {
    regression("set_cookie_build", "retired_name_beyond_the_last_chunk");
}

/// The model was wrong: an outer service knew that a cookie was dead, although the store failed the inner one.
#[test]
fn dead_cookie_of_an_outer_service() {
    regression("service_e2e", "dead_cookie_of_an_outer_service");
}

/// Gives `check` inputs of 32 to 1,024 bytes, the same each time: the change decides whether it passes, and not luck.
fn for_random_bytes(count: u64, check: impl Fn(&[u8])) {
    for number in 0..count {
        // The upper half is the seed, with bits from all over; the lower half is the length.
        let seed = ((number + 1) * 0x9e37_79b9) << 32 | 32 << (number % 6);
        arbtest::arbtest(|bytes| {
            check(bytes.bytes(bytes.len())?);
            Ok(())
        })
        .seed(seed);
    }
}

#[test]
fn random_bytes_hold() {
    for (_, check) in CHECKS {
        for_random_bytes(5_000, check);
    }
}

/// The model was wrong: a logout with a token that a login had replaced ends the session, under the new token.
#[test]
fn logout_with_a_replaced_token() {
    regression("service_e2e", "logout_with_a_replaced_token");
}

/// The model was wrong: of two tokens of one session the newer came in the fifth cookie of the name, and four are tried.
#[test]
fn newest_token_beyond_the_fourth() {
    regression("service_e2e", "newest_token_beyond_the_fourth");
}

/// The model was wrong: a handler ended its session and began another, which was saved. The session had another token by then, and
/// the store failed there. The handler was told so, and the client was not given the new session.
#[test]
fn end_that_failed_after_its_new_session() {
    regression("session_model", "end_that_failed_after_its_new_session");
}

/// The model was wrong: the end of a session failed where the session had another token by then. The next changes of the handler
/// counted from the session, and not from nothing.
#[test]
fn end_that_failed_where_its_session_goes_on() {
    regression("session_model", "end_that_failed_where_its_session_goes_on");
}

/// The model was wrong: an outer service had saved a session of its own. Its client hung up, and it went on from the session of the
/// inner service, which it ended.
#[test]
fn client_that_left_before_its_session_was_given_up() {
    regression("session_model", "client_that_left_before_its_session_was_given_up");
}
