//! Counts the instructions of each case with callgrind, and holds them against `benches/instructions.txt`.
//!
//! `instructions` compares and fails where a count has moved; `instructions --update` writes the file; `instructions CASE`
//! is what callgrind runs.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use hyper_session_benches::cases::{CASES, TIMES, work};

/// By how much a count may move, in percent of itself: the order of memory differs from build to build.
const TOLERANCE: i64 = 3;

/// Numbers of small holes that the heap has at first. The paths that the allocator takes depend on its state, and so on the build:
/// up to a twentieth of the instructions. The least count of several states is the same in each build.
const HOLES: [usize; 3] = [0, 7, 24];

/// Callgrind counts only inside of this function.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => compare(),
        Some("--update") => {
            std::fs::write(baseline_file(), lines(&count_all())).unwrap();
            ExitCode::SUCCESS
        }
        Some(case) => {
            let holes = std::env::args().nth(2).and_then(|holes| holes.parse().ok()).unwrap_or(0);
            let pieces: Vec<_> = (0..2 * holes).map(|number| vec![1_u8; 16 + 8 * number]).collect();
            std::mem::forget(pieces.into_iter().step_by(2).collect::<Vec<_>>());
            let mut work = work(case);
            (0..3).for_each(|_| work()); // caches of the crate and of the allocator are warm
            measured(&mut *work);
            ExitCode::SUCCESS
        }
    }
}

fn compare() -> ExitCode {
    let baseline = std::fs::read_to_string(baseline_file()).unwrap_or_default();
    let baseline: BTreeMap<&str, i64> = baseline
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .filter_map(|(name, count)| Some((name, count.trim().parse().ok()?)))
        .collect();
    let counts = count_all();
    print!("{}", lines(&counts));
    let mut moved = false;
    for (name, count) in &counts {
        let Some(&before) = baseline.get(*name) else {
            eprintln!("{name}: not in {}", baseline_file());
            moved = true;
            continue;
        };
        if (count - before).abs() * 100 > before.abs() * TOLERANCE {
            eprintln!("{name}: {count} instructions instead of {before}");
            moved = true;
        }
    }
    if moved {
        eprintln!("if that is meant: ./benches/run --instructions --update, and commit what it writes");
    }
    ExitCode::from(u8::from(moved))
}

fn lines(counts: &[(&str, i64)]) -> String {
    counts.iter().map(|(name, count)| format!("{name:22}{count}\n")).collect()
}

fn count_all() -> Vec<(&'static str, i64)> {
    // Several cases are reduced by the same one.
    let mut counted = BTreeMap::new();
    let mut count = |name| {
        *counted
            .entry(name)
            .or_insert_with(|| count(name).unwrap_or_else(|| panic!("valgrind did not count {name}")))
    };
    CASES
        .map(|case| (case.name, count(case.name) - case.less.iter().map(|name| count(name)).sum::<i64>()))
        .to_vec()
}

/// Instructions of one piece of work.
fn count(case: &str) -> Option<i64> {
    HOLES.iter().map(|&holes| count_with(case, holes)).min()?
}

fn count_with(case: &str, holes: usize) -> Option<i64> {
    let itself = std::env::current_exe().ok()?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=instructions::measured")
        .arg(itself)
        .args([case, &holes.to_string()])
        .output()
        .ok()?;
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    let collected = log.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count);
    let count: i64 = collected?.trim().parse().ok()?;
    (run.status.success() && count > 0).then_some(count / TIMES as i64)
}

fn baseline_file() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt")
}
