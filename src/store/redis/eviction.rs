//! Whether a server may evict entries when its memory is full.

use std::time::Duration;

use bb8_redis::redis::cmd;

use super::dialer::text;
use super::transport::Transport;

/// Returns the first eviction policy of the servers that `evicts` is true for. A server whose user may not ask for it counts as one
/// that evicts nothing.
pub(super) async fn evicting_policy(
    transport: &Transport,
    patience: Duration,
    evicts: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut info = cmd("INFO");
    info.arg("memory");
    let replies = transport.ask_each(&info, patience).await;
    let policies = replies.iter().filter_map(|reply| {
        let reply = text(reply)?;
        let policy = reply.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
        Some(policy.trim().to_owned())
    });
    policies.into_iter().find(|policy| evicts(policy))
}
