//! The operator's tool: keys, cookies, and the sessions of a subject.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

mod arguments;
mod cookie;
mod keys;
mod report;
mod sessions;

use std::process::ExitCode;

use self::arguments::Arguments;
use self::report::{Failure, Report};

const HELP: &str = include_str!("help.txt");

fn main() -> ExitCode {
    let mut arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(failure) => return failure.print(false),
    };
    let json = arguments.has("--json");
    if arguments.has("--version") {
        println!("hyper-session {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if arguments.has("--help") || arguments.words.is_empty() {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(&mut arguments) {
        Ok(report) => report.print(json),
        Err(failure) => failure.print(json),
    }
}

fn run(arguments: &mut Arguments) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let words: Vec<String> = std::mem::take(&mut arguments.words);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["key", "new"] => keys::new(arguments),
        ["key", "check"] => keys::check(arguments),
        ["cookie", "open"] => runtime.block_on(cookie::open(arguments)),
        ["sessions", "list", subject] => runtime.block_on(sessions::list(arguments, subject)),
        ["sessions", "show", subject, id] => runtime.block_on(sessions::show(arguments, subject, id)),
        ["sessions", "end", subject] => runtime.block_on(sessions::end_all(arguments, subject)),
        ["sessions", "end", subject, id] => runtime.block_on(sessions::end(arguments, subject, id)),
        _ => Err(Failure::usage("there is no such command")),
    }
}
