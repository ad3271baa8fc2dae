//! Guides, one for each topic.
//!
//! Every example is compiled, except two that need another crate's server or exporter. It is also run, unless it needs a
//! Redis server.

#[doc = include_str!("choosing_a_store.md")]
pub mod choosing_a_store {}

#[doc = include_str!("values.md")]
pub mod values {}

#[doc = include_str!("cookies.md")]
pub mod cookies {}

#[doc = include_str!("logins.md")]
pub mod logins {}

#[doc = include_str!("revocation.md")]
pub mod revocation {}

#[cfg(feature = "device-bound")]
#[doc = include_str!("device_bound.md")]
pub mod device_bound {}

#[doc = include_str!("forms.md")]
pub mod forms {}

#[doc = include_str!("frameworks.md")]
pub mod frameworks {}

#[doc = include_str!("connections.md")]
pub mod connections {}

#[doc = include_str!("changing_stores.md")]
pub mod changing_stores {}

#[doc = include_str!("key_rotation.md")]
pub mod key_rotation {}

#[cfg(feature = "redis")]
#[doc = include_str!("../../docs/REDIS.md")]
pub mod deploying_on_redis {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[cfg(feature = "astra")]
#[doc = include_str!("moving_from_astra.md")]
pub mod moving_from_astra {}

#[doc = include_str!("limits.md")]
pub mod limits {}
