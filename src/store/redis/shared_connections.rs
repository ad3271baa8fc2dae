//! Handles of the pool's connections, kept at hand: while all of them work, a command needs no checkout.

use std::sync::{PoisonError, RwLock};

use tokio::time::Instant;

use super::connection::Connection;

/// For so many milliseconds all commands go over the same connection, and for as many over the next: what is written
/// together costs both ends a fraction of what it costs in parts, and none of them is idle for long.
const TURN_MILLIS: u128 = 5;

/// One of each connection that the pool is to have. Only the pool makes connections and finds out which are missing, when it
/// is asked for one. Whoever gets none here asks it: so there is none here while one is missing.
pub(super) struct SharedConnections {
    made: RwLock<Vec<Connection>>,
    since: Instant,
}

impl SharedConnections {
    pub(super) fn new() -> Self {
        Self { made: RwLock::default(), since: Instant::now() }
    }

    /// The one whose turn it is `now`, if all work.
    pub(super) fn at(&self, now: Instant) -> Option<Connection> {
        let turn = now.saturating_duration_since(self.since).as_millis() / TURN_MILLIS;
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        if made.iter().any(Connection::is_broken) {
            return None;
        }
        let place = usize::try_from(turn.checked_rem(made.len() as u128)?).ok()?;
        made.get(place).cloned()
    }

    /// Keeps a handle of a new connection, in the place of one that broke. No other is let go: the pool is still to find it.
    pub(super) fn add(&self, connection: &Connection) {
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        match made.iter_mut().find(|made| made.is_broken()) {
            Some(broken) => *broken = connection.clone(),
            None => made.push(connection.clone()),
        }
    }
}
