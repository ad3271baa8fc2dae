//! Guides: longer texts, one subject each.

#[cfg(feature = "astra")]
#[doc = include_str!("guide/moving_from_astra.md")]
pub mod moving_from_astra {}
