//! The fixtures of the browser tests: the example behind TLS, and a browser of each engine.

mod browser;
mod deployments;
mod engine;
mod exchanges;
mod marionette;
mod server;
mod webdriver;

pub use browser::{Browser, Cookie};
pub use deployments::{Deployments, Keeping, OUTER, stores};
pub use engine::Engine;
pub use exchanges::{Exchange, Exchanges};
pub use server::Server;
