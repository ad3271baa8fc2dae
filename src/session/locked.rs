//! The lock of a session's state: closures of the application are dropped after it is released.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::changes::Displaced;
use super::state::State;

/// The locked state. Closures of the application that the state no longer needs are dropped after it is unlocked, because
/// dropping a closure may run code that uses this session.
pub(super) struct Locked<'a> {
    // Fields are dropped in this order.
    state: MutexGuard<'a, State>,
    displaced: Displaced,
}

impl<'a> Locked<'a> {
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
        Self { state, displaced: Displaced::default() }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.displaced = self.state.take_displaced();
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}
