//! The operator's tool: keys, cookies, the sessions of a subject, and revocations.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

mod arguments;
mod cookie;
mod keys;
mod named_sessions;
mod report;
mod revocations;
mod sessions;

use std::process::ExitCode;

use self::arguments::{Arguments, Command, Request};
use self::report::{Failure, Report};

const HELP: &str = include_str!("help.txt");

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Also if the rest of the command line cannot be read.
    let json = arguments.iter().any(|argument| argument == "--json");
    match Request::parse(arguments) {
        Ok(Request::Help) => report::print(HELP),
        Ok(Request::Version) => report::print(concat!("hyper-session ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Request::Run(command, arguments)) => match run(command, &arguments) {
            Ok(report) => report.print(json),
            Err(failure) => failure.print(json),
        },
        Err(failure) => failure.print(json),
    }
}

fn run(command: Command, arguments: &Arguments) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::KeyNew => keys::new(),
        Command::KeyCheck => keys::check(arguments),
        Command::CookieOpen => runtime.block_on(cookie::open(arguments)),
        Command::List { subject } => runtime.block_on(sessions::list(arguments, &subject)),
        Command::Show { subject, id } => runtime.block_on(sessions::show(arguments, &subject, &id)),
        Command::End { subject, id: Some(id) } => runtime.block_on(sessions::end(arguments, &subject, &id)),
        Command::End { subject, id: None } => runtime.block_on(sessions::end_all(arguments, &subject)),
        Command::Revoke(named) => runtime.block_on(revocations::revoke(arguments, &named)),
        Command::Revocations(named) => runtime.block_on(revocations::find(arguments, named.as_ref())),
    }
}
