//! Results, from the programs that measure to the one that writes the report: one JSON object a line.

use serde::{Deserialize, Serialize};

/// What `paired` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// `operation/case`
    pub name: String,
    pub arm: String,
    /// Nanoseconds for one.
    pub median: f64,
    /// The second percentile: as it is when nothing interferes.
    pub lowest: f64,
}
