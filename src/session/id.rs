//! Ids of new sessions.

use crate::crypto::Random;
use crate::error::Error;
use crate::id::SessionId;

impl SessionId {
    pub(crate) fn generate(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self::from_bytes(bytes))
    }
}
