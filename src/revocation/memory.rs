//! A log within this process: it gives positions, and does not outlive the process.

use std::sync::Mutex;

use super::revocation::MAX_POSITION;
use crate::crypto::Random;
use crate::error::Error;
use crate::lock::lock;

/// Gives positions. The revocations are only in the set of this process.
pub(super) struct MemoryLog {
    pub(super) incarnation: u64,
    top: Mutex<u64>,
}

impl MemoryLog {
    pub(super) fn new(random: &dyn Random) -> Result<Self, Error> {
        let mut incarnation = [0; 8];
        random.fill(&mut incarnation)?;
        // 1: a position of an earlier incarnation counts as zero, which is below all of this one.
        Ok(Self { incarnation: u64::from_be_bytes(incarnation), top: Mutex::new(1) })
    }

    /// Takes the next position, and calls `apply` before any session can be given it.
    pub(super) fn append(&self, apply: impl FnOnce(u64)) -> u64 {
        let mut top = lock(&self.top);
        *top = top.saturating_add(1).min(MAX_POSITION);
        apply(*top);
        *top
    }
}
