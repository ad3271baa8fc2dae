//! Results, from the programs that measure to the program that writes the report: one JSON object a line.

use serde::{Deserialize, Serialize};

/// The output of `paired`.
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

/// The output of `load`: one arm behind hyper, against the bare service before and after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// `h1` or `h2`
    pub protocol: String,
    pub arm: String,
    pub action: String,
    /// Requests a second, of each round, over those of the bare service in the same round.
    pub ratios: Vec<f64>,
    /// The server's processor time for a request of the bare service over its own, of each round: what the ratio of requests
    /// a second is where nothing else runs on either core.
    pub cpu_ratios: Vec<f64>,
    /// Requests a second, of the median round.
    pub per_second: f64,
    /// Processor time of the server for one request, in microseconds, of the median round.
    pub server_cpu: f64,
    /// How busy the load generator was, as a share of its core: near 1, it is the generator that was measured.
    pub generator: f64,
    /// Requests a second while latencies were measured.
    pub rate: f64,
    /// Microseconds from the moment at which a request was due: median, 99th and 99.9th percentile.
    pub latency: [f64; 3],
}

/// The output of `threads`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThreadsRun {
    pub arm: String,
    pub action: String,
    /// Requests a second of two threads over those of one, by their processor time.
    pub ratio: f64,
}

/// The output of `allocations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Allocations {
    /// `operation/case`
    pub name: String,
    pub arm: String,
    pub count: u64,
    pub bytes: u64,
}

/// How far away a Redis server is, there and back, in milliseconds.
pub const DISTANCES: [u32; 2] = [1, 50];

/// The arm of the Redis benchmark that does in the bare service what `bare` does.
pub const IN_SERVICE: &str = "bare in the bare service";

/// The output of the Redis benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedisRun {
    pub operation: String,
    pub tasks: usize,
    pub arm: String,
    /// Operations a second, of the median round.
    pub per_second: f64,
    /// The same, of each round: the arms take turns.
    pub rounds: Vec<f64>,
    /// Commands that the server processed for one operation, those inside of scripts included.
    pub commands: f64,
}

/// The output of the SQLite benchmark; its other lines say in words what they measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SqliteRun {
    pub case: String,
    pub tasks: usize,
    pub arm: String,
    pub per_second: f64,
    /// Microseconds of processor time for one operation.
    pub cpu_us: Option<f64>,
}
