//! A log in this process: positions, and nothing that outlives them.

use std::sync::{Mutex, PoisonError};

use super::revocation::MAX_POSITION;
use crate::crypto::Random;
use crate::error::Error;

/// Gives positions. The revocations themselves are in the set of the process, which is the only one that knows them.
pub(super) struct MemoryLog {
    pub(super) incarnation: u64,
    top: Mutex<u64>,
}

impl MemoryLog {
    pub(super) fn new(random: &dyn Random) -> Result<Self, Error> {
        let mut incarnation = [0; 8];
        random.fill(&mut incarnation)?;
        // 1: a position of an earlier incarnation counts as zero, and is below all of this one.
        Ok(Self { incarnation: u64::from_be_bytes(incarnation), top: Mutex::new(1) })
    }

    /// Takes the next position, and lets `apply` make it known before any session can be given it.
    pub(super) fn append(&self, apply: impl FnOnce(u64)) -> u64 {
        let mut top = self.top.lock().unwrap_or_else(PoisonError::into_inner);
        *top = top.saturating_add(1).min(MAX_POSITION);
        apply(*top);
        *top
    }
}
