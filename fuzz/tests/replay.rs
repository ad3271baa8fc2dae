//! Replays every seed and every regression, and a few thousand inputs more, on the stable compiler.

use std::fs;
use std::path::Path;

use checks::{CHECKS, Check};

/// The inputs kept for a target in `folder`.
fn inputs(folder: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn seeds_and_regressions_hold() {
    for (target, check) in CHECKS {
        let seeds = inputs("seeds", target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for (name, input) in seeds.into_iter().chain(inputs("regressions", target)) {
            println!("{name}");
            check(&input);
        }
    }
}

fn holds_for_random_bytes(check: Check) {
    arbtest::arbtest(|bytes| {
        check(bytes.bytes(bytes.len())?);
        Ok(())
    })
    .budget_ms(1_000);
}

#[test]
fn random_bytes_hold() {
    for (_, check) in CHECKS {
        holds_for_random_bytes(check);
    }
}
