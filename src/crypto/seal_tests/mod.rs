//! Tokens against a second implementation of their format, and against all that must not open.

mod fixture;
mod forgeries;
mod independent;
mod keys;
mod known_answers;
mod secrets;
