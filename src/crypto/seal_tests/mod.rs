//! Tokens against a second implementation of their format, and against all that must not open.

mod forgeries;
mod harness;
mod independent;
mod keys;
mod known_answers;
mod secrets;
