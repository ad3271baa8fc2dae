//! What the browser tests are made of: the example behind TLS, and Chromium through its driver.

mod driver;
mod server;

pub use driver::{Browser, Cookie};
pub use server::Server;
