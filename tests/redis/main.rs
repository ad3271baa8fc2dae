//! Sessions in real Redis servers, started and stopped by the tests.
//!
//! The server is `redis-server`, or what `HYPER_SESSION_REDIS_SERVER` names; `tests/engines` runs these tests over several.
//!
//! The names of tests begin with the fault or the situation that they are about. Faults:
//!
//! | number | fault |
//! |---|---|
//! | F1 | the server is gone, and comes back |
//! | F2 | a connection is cut before, after or in the middle of a step |
//! | F3 | the server hangs |
//! | F4 | the server pauses writes |
//! | F5 | the line is slow, cut in pieces, resets or swallows |
//! | F6 | connections are killed |
//! | F7 | the server has no room for another client |
//! | F8 | a pool is exhausted |
//! | F9 | requests are dropped at any await |
//! | F10 | memory is full, entries are evicted |
//! | F11 | a master becomes a replica |
//! | F12 | the server is loading |
//! | F13 | the server refuses: scripts that run, writes, rights, types |
//! | F14 | Sentinel fails over |
//! | F15 | a Cluster is resharded, or loses a master |
//! | F16 | a value is damaged |
//! | F17 | an entry ends during a request, clocks jump |
//! | F18 | what answers is not Redis |
//! | F19 | the server restarts without its data |
//! | F20 | keys are rotated |
//!
//! Situations of deployments:
//!
//! | number | situation |
//! |---|---|
//! | A1 | many requests on one connection over a network, and the options of sockets |
//! | A2 | one node of a Cluster hangs |
//! | A3 | connections are half-open |
//! | A4 | entries are larger than the limit, or of another kind |
//! | A5 | the lists of sessions are evicted or lost |
//! | A6 | the server refuses writes that grow |
//! | A7 | subjects have many sessions |
//! | A8 | the clocks of hosts disagree |
//! | A9 | the URL names servers of another kind |
//! | A10 | sentinels have credentials of their own, passwords change |
//! | A11 | the user has exactly the documented rights |
//! | A12 | renewals over a network |
//! | A13 | the server refuses the first commands |
//! | A14 | idle timeouts to the second |
//! | A16 | the name of a server leads nowhere, to several addresses, or elsewhere after a failover |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // figures, and which tests do not apply to the server under test

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod app;
mod cancellation;
mod clocks;
mod cluster;
mod commands;
mod concurrency;
mod connecting;
mod connections;
mod contract;
mod deployment;
mod full_memory;
mod half_open;
mod host_names;
mod limits;
mod load;
mod mixed_versions;
mod near_cache;
mod refusals;
#[path = "../revocation/requests.rs"]
#[allow(dead_code)] // a part of it is used here
mod requests;
mod revocations;
mod round_trips;
mod sealing;
mod sentinel;
mod server;
mod session_lists;
mod sockets;
mod subjects;
#[cfg(feature = "redis-tls")]
mod tls;
mod values;
