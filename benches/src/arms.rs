//! The arms that are called in process: ours, the bare service, and the peers.

use crate::services::{Arm, MEMO, bare, by_argument, by_extension};
use crate::tokens::{default_store, plain_store, revocable_store};

/// Every arm, checked; the bare service first.
pub fn arms() -> Vec<Arm> {
    let mut without = Arm::hyper("bare", bare());
    without.has_session = false;
    let mut arms = vec![
        without,
        Arm::hyper("hyper-session", by_extension(plain_store())),
        Arm::hyper("hyper-session-fn", by_argument(plain_store())),
        Arm::hyper(MEMO, by_extension(default_store())),
        Arm::hyper("hyper-session, revocations", by_extension(revocable_store())),
    ];
    #[cfg(feature = "peers")]
    arms.extend(crate::peers::arms());
    arms.iter_mut().for_each(Arm::check);
    arms
}
