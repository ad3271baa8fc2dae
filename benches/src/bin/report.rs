//! Writes `docs/BENCHMARKS.md` and its plots from the output of the other programs: `report FOLDER`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hyper_session_benches::SIZES;
use hyper_session_benches::plot::bars;
use hyper_session_benches::results::{
    Allocations, DISTANCES, IN_SERVICE, Load, RedisRun, SqliteRun, ThreadsRun, Timing,
};
use hyper_session_benches::services::{MEMO, NEAR};
use serde::de::DeserializeOwned;

/// All measurements.
struct Results {
    timings: Vec<Timing>,
    loads: Vec<Load>,
    threads: Vec<ThreadsRun>,
    redis: Vec<RedisRun>,
    allocations: Vec<Allocations>,
    /// Nanoseconds, by criterion's id.
    criterion: BTreeMap<String, f64>,
}

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("the folder of the results"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let results = Results {
        timings: lines(&folder.join("paired.jsonl")),
        loads: lines(&folder.join("load.jsonl")),
        threads: lines(&folder.join("threads.jsonl")),
        redis: lines(&folder.join("redis.jsonl")),
        allocations: lines(&folder.join("allocations.jsonl")),
        criterion: criterion(&root.join("benches/target/criterion")),
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let text = [
        read(&root.join("benches/report/head.md")),
        format!("## Where it was measured\n\n```text\n{}```\n", read(&folder.join("machine.txt"))),
        results.targets(),
        results.service(),
        results.tokens(),
        results.load(),
        results.redis(),
        sqlite(&read(&folder.join("sqlite.txt"))),
        revocations(&read(&folder.join("revocations.txt"))),
        instructions(&read(&root.join("benches/instructions.txt"))),
        results.parts(),
        read(&root.join("benches/report/notes.md")),
    ];
    fs::write(root.join("docs/BENCHMARKS.md"), text.join("\n")).unwrap();
    let plots = root.join("docs/benchmarks");
    fs::create_dir_all(&plots).unwrap();
    for (name, plot) in results.plots() {
        fs::write(plots.join(name), plot).unwrap();
    }
}

impl Results {
    fn time(&self, name: &str, arm: &str) -> Option<f64> {
        self.timings
            .iter()
            .find(|timing| timing.name == name && timing.arm == arm)
            .map(|timing| timing.median)
    }

    fn arms(&self, name: &str) -> impl Iterator<Item = &Timing> {
        self.timings.iter().filter(move |timing| timing.name == name)
    }

    /// Nanoseconds added to the bare service.
    fn added(&self, case: &str, arm: &str) -> Option<f64> {
        let name = format!("service/{case}");
        Some(self.time(&name, arm)? - self.time(&name, "bare")?)
    }

    fn load_of(&self, protocol: &str, arm: &str, action: &str) -> Option<&Load> {
        self.loads.iter().find(|load| load.protocol == protocol && load.arm == arm && load.action == action)
    }

    /// The goals, and the results.
    fn targets(&self) -> String {
        let ours = "hyper-session";
        let ratio = |name: &str, of: &str, over: &str| Some(self.time(name, of)? / self.time(name, over)?);
        let times_less =
            |case: &str, arm: &str, peer: &str| Some(self.added(case, peer)? / self.added(case, arm)?);
        let load = |arm: &str, action: &str| Some(median(&self.load_of("h1", arm, action)?.cpu_ratios));
        let h2 = |arm: &str, action: &str| Some(median(&self.load_of("h2", arm, action)?.cpu_ratios));
        let threads = |arm: &str, action: &str| {
            let found = self.threads.iter().find(|run| run.arm == arm && run.action == action)?;
            Some(found.ratio)
        };
        let count = |case: &str, arm: &str| {
            let name = format!("service/{case}");
            let found = self.allocations.iter().find(|line| line.name == name && line.arm == arm)?;
            Some(found.count as f64)
        };
        let cookie = "cookie-private";
        let rows: Vec<(&str, Option<f64>, char, f64)> = vec![
            ("open 256 B, over the limit", ratio("open/256", ours, "limit"), '≤', 1.15),
            ("open 3000 B, over the limit", ratio("open/3000", ours, "limit"), '≤', 1.10),
            ("seal 256 B, over the limit", ratio("seal/256", ours, "limit"), '≤', 1.25),
            ("open 64 B: cookie-private over ours", ratio("open/64", cookie, ours), '≥', 1.0),
            ("open 256 B: cookie-private over ours", ratio("open/256", cookie, ours), '≥', 1.2),
            ("open 1024 B: cookie-private over ours", ratio("open/1024", cookie, ours), '≥', 1.0),
            ("open 3000 B: cookie-private over ours", ratio("open/3000", cookie, ours), '≥', 1.3),
            ("untouched, added ns (extensions)", self.added("untouched", ours), '≤', 100.0),
            ("untouched, added ns (`session_fn`)", self.added("untouched", "hyper-session-fn"), '≤', 100.0),
            ("untouched, allocations (extensions)", count("untouched", ours), '≤', 4.0),
            ("untouched, allocations (`session_fn`)", count("untouched", "hyper-session-fn"), '≤', 1.0),
            (
                "untouched, times less added than seshcookie",
                times_less("untouched", ours, "seshcookie"),
                '≥',
                6.0,
            ),
            ("read, times less added than seshcookie", times_less("read", ours, "seshcookie"), '≥', 2.0),
            (
                "read with the memo, times less than seshcookie",
                times_less("read", MEMO, "seshcookie"),
                '≥',
                2.0,
            ),
            (
                "read, times less added than tower-sessions in memory",
                times_less("read", ours, "tower-sessions-memory"),
                '≥',
                1.0,
            ),
            (
                "read with the memo, times less than tower-sessions in memory",
                times_less("read", MEMO, "tower-sessions-memory"),
                '≥',
                1.0,
            ),
            ("change, times less added than seshcookie", times_less("change", ours, "seshcookie"), '≥', 2.0),
            (
                "change with the memo, times less than seshcookie",
                times_less("change", MEMO, "seshcookie"),
                '≥',
                2.0,
            ),
            ("read with the memo, added ns (extensions)", self.added("read", MEMO), '≤', 300.0),
            (
                "change with the memo over tower-sessions in memory",
                self.added("change", MEMO)
                    .zip(self.added("change", "tower-sessions-memory"))
                    .map(|(ours, peer)| ours / peer),
                '≤',
                0.85,
            ),
            (
                "HTTP/1 untouched, requests a second of one core over bare hyper",
                load(ours, "untouched"),
                '≥',
                0.98,
            ),
            ("HTTP/1 read", load(ours, "read"), '≥', 0.88),
            ("HTTP/1 read with the memo", load(MEMO, "read"), '≥', 0.96),
            ("HTTP/1 change", load(ours, "change"), '≥', 0.70),
            ("HTTP/2 untouched (extensions)", h2(ours, "untouched"), '≥', 0.95),
            ("HTTP/2 read with the memo", h2(MEMO, "read"), '≥', 0.92),
            ("HTTP/2 change", h2(ours, "change"), '≥', 0.62),
            ("untouched, two threads over one", threads(ours, "untouched"), '≥', 1.95),
            ("read, two threads over one", threads(ours, "read"), '≥', 1.95),
            ("read with the memo, two threads over one", threads(MEMO, "read"), '≥', 1.95),
            (
                "Redis load, 256 tasks, over one bare connection",
                self.redis_ratio("load", 256, ours, "bare"),
                '≥',
                0.6,
            ),
            (
                "Redis load, 256 tasks, over axum_session's bb8 pool as shipped",
                self.redis_ratio("load", 256, ours, "axum_session bb8"),
                '≥',
                3.0,
            ),
            (
                "Redis load, 256 tasks, over tower-sessions-redis-store",
                self.redis_ratio("load", 256, ours, "tower-sessions-redis-store"),
                '≥',
                1.2,
            ),
            (
                "Redis change by script, 256 tasks, over one bare connection",
                self.redis_ratio("change", 256, ours, "bare"),
                '≥',
                0.55,
            ),
            (
                "Redis load, 256 tasks, with a near-cache over without",
                self.redis_ratio("load", 256, NEAR, ours),
                '≥',
                10.0,
            ),
            (
                "read from the near-cache over read with the memo, added to a request",
                self.added_to_read(NEAR).zip(self.added_to_read(MEMO)).map(|(near, memo)| near / memo),
                '≤',
                1.3,
            ),
        ];
        let mut text = "## Goals\n\n| measure | goal | measured | |\n|---|---:|---:|---|\n".to_owned();
        for (name, measured, sign, aim) in rows {
            let Some(measured) = measured else { continue };
            let reached = if sign == '≤' { measured <= aim } else { measured >= aim };
            let off = (measured / aim - 1.0).abs() * 100.0;
            let verdict = if reached { "reached".to_owned() } else { format!("**missed** by {off:.0} %") };
            let _ = writeln!(text, "| {name} | {sign} {aim} | {} | {verdict} |", short(measured));
        }
        text + "\n[Notes](#notes) explains the goals that were missed.\n"
    }

    fn service(&self) -> String {
        let mut text = "## A request in process\n\nNanoseconds added to the bare service, and allocations in brackets. \
            The first row has the time of the bare service. The session has 256 bytes of values. The `Cookie` header \
            holds nothing else.\n\n\
            ![added nanoseconds](benchmarks/service.svg)\n\n"
            .to_owned();
        let cases = ["no-cookie", "untouched", "read", "change", "destroy"];
        let _ = writeln!(text, "| | {} |\n|---{}|", cases.join(" | "), "|---:".repeat(cases.len()));
        for arm in self.arms("service/untouched").map(|timing| &timing.arm) {
            let cells = cases.map(|case| {
                let name = format!("service/{case}");
                let time = match arm.as_str() {
                    "bare" => self.time(&name, arm),
                    _ => self.added(case, arm),
                };
                let found = self.allocations.iter().find(|line| line.name == name && line.arm == *arm);
                let count = found.map_or_else(String::new, |line| format!(" [{}]", line.count));
                format!("{}{count}", time.map_or("-".to_owned(), |time| format!("{time:.0}")))
            });
            let _ = writeln!(text, "| {arm} | {} |", cells.join(" | "));
        }
        text
    }

    fn tokens(&self) -> String {
        let mut text = "## Opening and sealing a token\n\nNanoseconds, and the ratio to `limit`: the same primitives, \
            called directly on the same bytes in one buffer. hyper-session calls `Store::load` and `Store::save`, with \
            deadlines, the record and the index of its values. cookie-private opens a string, with AES-GCM \
            only.\n\n![nanoseconds](benchmarks/tokens.svg)\n\n"
            .to_owned();
        let _ = writeln!(
            text,
            "| | limit | hyper-session | | cookie-private | |\n|---|---:|---:|---:|---:|---:|"
        );
        for operation in ["open", "seal"] {
            for size in SIZES {
                let name = format!("{operation}/{size}");
                let Some(limit) = self.time(&name, "limit") else { continue };
                let _ = write!(text, "| {operation} {size} B | {limit:.0} |");
                for arm in ["hyper-session", "cookie-private"] {
                    let time = self.time(&name, arm).unwrap_or(f64::NAN);
                    let _ = write!(text, " {time:.0} | {:.2} |", time / limit);
                }
                text.push('\n');
            }
        }
        text
    }

    fn load(&self) -> String {
        let mut text = "## Over sockets\n\nServer and load generator have one core each, with 32 requests in flight. Each \
            arm runs between two runs of the bare service. *Ratio*: requests per second relative to bare hyper, the \
            median of the rounds. *By processor time*: the same ratio, from the processor time of the server's thread per \
            request, which other work on the machine disturbs less. *Latency*: at a fixed rate (half of what the bare \
            service reaches), counted from the moment at which a request was due.\n\n\
            ![ratios](benchmarks/load.svg)\n\n"
            .to_owned();
        for protocol in ["h1", "h2"] {
            let Some(bare) = self.load_of(protocol, "bare", "untouched") else { continue };
            let name = if protocol == "h1" { "HTTP/1.1, 32 connections" } else { "HTTP/2, 4 connections" };
            let _ = writeln!(text, "### {name}, latency at {:.0} a second\n", bare.rate);
            let _ = writeln!(
                text,
                "| | requests/s | ratio | by processor time | server µs | generator busy | p50 µs | p99 µs | p99.9 µs |"
            );
            let _ = writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|---:|");
            for load in self.loads.iter().filter(|load| load.protocol == protocol) {
                let [p50, p99, p999] = load.latency;
                let _ = writeln!(
                    text,
                    "| {}, {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} % | {p50:.0} | {p99:.0} | {p999:.0} |",
                    load.arm,
                    load.action,
                    load.per_second,
                    median(&load.ratios),
                    median(&load.cpu_ratios),
                    load.server_cpu,
                    load.generator * 100.0,
                );
            }
            text.push('\n');
        }
        text
    }

    /// Operations a second of `arm` over those of `other`, taken round by round.
    fn redis_ratio(&self, operation: &str, tasks: usize, arm: &str, other: &str) -> Option<f64> {
        let rounds = |arm: &str| {
            let run = self
                .redis
                .iter()
                .find(|run| run.operation == operation && run.tasks == tasks && run.arm == arm)?;
            Some(&run.rounds)
        };
        Some(median(
            &rounds(arm)?.iter().zip(rounds(other)?).map(|(one, other)| one / other).collect::<Vec<_>>(),
        ))
    }

    /// Nanoseconds that reading from this arm's session adds to a request.
    fn added_to_read(&self, arm: &str) -> Option<f64> {
        let nanoseconds = |arm: &str| {
            let run = self.redis.iter().find(|run| run.operation == "read" && run.arm == arm)?;
            Some(1e9 / run.per_second)
        };
        Some(nanoseconds(arm)? - nanoseconds("no session")?)
    }

    fn redis(&self) -> String {
        let mut text = "## Redis\n\nOne server over loopback, a runtime with two threads, one session per task. The \
            numbers are thousands of operations per second, and in brackets the ratio to `bare`: `GET` (and `SET`) over \
            one multiplexed connection. *Load* is the store's own call, with decoding. *Change* reads a number and writes \
            the next one. For hyper-session that is a whole request through the service, with a check that no other \
            request wrote meanwhile. For the others it is the calls of their stores, without such a check. `bare, compared by \
            script` reads and writes the same bytes by `GET` and the script of the store, which shows what Redis itself takes for \
            the check; `bare in the bare service` reads and writes as `bare` does, in a whole request through the same hyper service \
            without a session; `the store's primitives` are the store without the service. *Commands* are the commands that Redis \
            executed for one operation, including those in scripts.\n\n"
            .to_owned();
        for operation in ["load", "change"] {
            let _ = writeln!(
                text,
                "| {operation} | 1 task | 16 | 64 | 256 | commands |\n|---|---:|---:|---:|---:|---:|"
            );
            for arm in self.redis.iter().filter(|run| run.operation == operation && run.tasks == 1) {
                let cells = [1, 16, 64, 256].map(|tasks| {
                    let same = |run: &&RedisRun| {
                        run.operation == operation && run.tasks == tasks && run.arm == arm.arm
                    };
                    let run = self.redis.iter().find(same).expect("each arm at each number of tasks");
                    let ratio = self.redis_ratio(operation, tasks, &arm.arm, "bare").unwrap_or(f64::NAN);
                    format!("{:.0} [{ratio:.2}]", run.per_second / 1e3)
                });
                let _ = writeln!(text, "| {} | {} | {:.0} |", arm.arm, cells.join(" | "), arm.commands);
            }
            if operation == "change" {
                let ratios = [1, 16, 64, 256].map(|tasks| {
                    let ratio = self.redis_ratio(operation, tasks, "hyper-session", IN_SERVICE);
                    format!("{:.2}", ratio.unwrap_or(f64::NAN))
                });
                let _ = writeln!(
                    text,
                    "\nA change of hyper-session over one of `{IN_SERVICE}`: {}, with 1, 16, 64 and 256 tasks.",
                    ratios.join(", ")
                );
            }
            text.push('\n');
        }
        text += &self.at_a_distance();
        text
    }

    fn at_a_distance(&self) -> String {
        let columns: Vec<(String, f64)> = ["load", "change"]
            .into_iter()
            .flat_map(|name| {
                DISTANCES.map(|distance| (format!("{name} at {distance} ms"), f64::from(distance) / 1e3))
            })
            .collect();
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut text = "The same with 16 tasks and a server that is 1 or 50 ms away, there and back. The numbers are round trips for \
            one operation.\n\n"
            .to_owned();
        let _ = writeln!(text, "| | {} |\n|---{}|", names.join(" | "), "|---:".repeat(names.len()));
        for arm in self.redis.iter().filter(|run| run.operation == names[0]) {
            let cells: Vec<_> = columns
                .iter()
                .map(|(name, seconds)| {
                    let run = self.redis.iter().find(|run| run.operation == *name && run.arm == arm.arm);
                    let run = run.expect("each arm at each distance");
                    format!("{:.2}", run.tasks as f64 / run.per_second / seconds)
                })
                .collect();
            let _ = writeln!(text, "| {} | {} |", arm.arm, cells.join(" | "));
        }
        text
    }

    /// The measurements of criterion that no table above has.
    fn parts(&self) -> String {
        let mut text =
            "## Parts\n\nNanoseconds, by criterion.\n\n| operation, case | arms |\n|---|---|\n".to_owned();
        let mut groups: BTreeMap<(String, u32, String), Vec<String>> = BTreeMap::new();
        for (id, time) in &self.criterion {
            let Some((group, arm)) = id.rsplit_once('/') else { continue };
            let (operation, case) = group.split_once('/').unwrap_or((group, ""));
            if ["open", "seal", "service"].contains(&operation) {
                continue;
            }
            let key = (operation.to_owned(), case.parse().unwrap_or(0), case.to_owned());
            groups.entry(key).or_default().push(format!("{arm} {}", short(*time)));
        }
        for ((operation, _, case), arms) in groups {
            let _ = writeln!(text, "| {operation} {case} | {} |", arms.join(" · "));
        }
        text
    }

    fn plots(&self) -> Vec<(&'static str, String)> {
        let group = |names: &[(&str, String)], baseline: Option<&str>| -> Vec<(String, Vec<(String, f64)>)> {
            names
                .iter()
                .map(|(label, name)| {
                    let base = baseline.and_then(|arm| self.time(name, arm)).unwrap_or(0.0);
                    let arms = self.arms(name).filter(|timing| Some(timing.arm.as_str()) != baseline);
                    (
                        (*label).to_owned(),
                        arms.map(|timing| (timing.arm.clone(), timing.median - base)).collect(),
                    )
                })
                .collect()
        };
        let cases = ["untouched", "read", "change"].map(|case| (case, format!("service/{case}")));
        let sizes = [
            ("open 64 B", "open/64"),
            ("open 256 B", "open/256"),
            ("open 3000 B", "open/3000"),
            ("seal 256 B", "seal/256"),
        ];
        let sizes = sizes.map(|(label, name)| (label, name.to_owned()));
        let loads = ["untouched", "read", "change"].map(|action| {
            let arms = self
                .loads
                .iter()
                .filter(|load| load.protocol == "h1" && load.action == action && load.arm != "bare");
            (
                format!("HTTP/1, {action}"),
                arms.map(|load| (load.arm.clone(), median(&load.cpu_ratios))).collect(),
            )
        });
        vec![
            (
                "service.svg",
                bars(
                    "nanoseconds added to a request in process: less is better",
                    &group(&cases, Some("bare")),
                ),
            ),
            ("tokens.svg", bars("nanoseconds for one token: less is better", &group(&sizes, None))),
            ("load.svg", bars("requests per second of server core, over bare hyper: more is better", &loads)),
        ]
    }
}

fn sqlite(output: &str) -> String {
    let (words, runs): (Vec<&str>, Vec<&str>) = output.lines().partition(|line| line.starts_with('#'));
    let runs = runs.iter().map(|line| serde_json::from_str::<SqliteRun>(line).expect("a run"));
    let mut text = "## SQLite\n\nOne file in WAL mode with `synchronous = FULL`, on the machine's disk. *Load* is the store's own \
        call, *beside* the same while other connections commit, *change* reads a number and writes the next one durably: a whole \
        request for hyper-session, the calls of the store for the other. *Commit* compares and sets an entry. *Shared* is that with \
        four stores on one file. [`benches/sqlite`](../benches/sqlite/src/main.rs) prints this.\n\n\
        | case | tasks | arm | a second | processor time, µs |\n|---|---:|---|---:|---:|\n"
        .to_owned();
    for run in runs {
        let cpu = run.cpu_us.map_or("-".to_owned(), short);
        let _ =
            writeln!(text, "| {} | {} | {} | {:.0} | {cpu} |", run.case, run.tasks, run.arm, run.per_second);
    }
    let words: Vec<_> = words.iter().map(|line| line.trim_start_matches("# ")).collect();
    format!("{text}\n```text\n{}\n```\n", words.join("\n"))
}

fn revocations(output: &str) -> String {
    format!(
        "## Revocations\n\nA million revocations, over loopback and on the machine's disk. \
            [`benches/revocation`](../benches/revocation/src/main.rs) prints this.\n\n```text\n{output}```\n"
    )
}

fn instructions(counts: &str) -> String {
    format!(
        "## Instructions\n\nInstructions without those of the primitives and of the bare service, which are counted and \
            subtracted. CI compares each change with these numbers, because they do not depend on other work on the \
            machine.\n\n```text\n{counts}```\n"
    )
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The medians that criterion left, by id.
fn criterion(folder: &Path) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
        let value = |name: &str| -> Option<serde_json::Value> {
            serde_json::from_str(&fs::read_to_string(path.join(name)).ok()?).ok()
        };
        if let (Some(benchmark), Some(estimates)) = (value("benchmark.json"), value("estimates.json")) {
            let (id, median) = (&benchmark["full_id"], &estimates["median"]["point_estimate"]);
            if let (Some(id), Some(median), true) = (id.as_str(), median.as_f64(), path.ends_with("new")) {
                found.insert(id.to_owned(), median);
            }
        }
        found.extend(criterion(&path));
    }
    found
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn short(value: f64) -> String {
    if value < 20.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
