//! The dashboard and the alerts of the guide, against what the exporter that it names renders.

use std::collections::BTreeSet;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::every_event::cause_every_event;
use crate::{GUIDE, alone};

/// The queries of the guide: code in its tables that asks for a metric over time.
fn queries() -> Vec<&'static str> {
    let rows = GUIDE.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|code| code.contains("rate(")).collect()
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metrics that a query names.
fn metrics(query: &str) -> Vec<&str> {
    query.split(|letter| !is_name(letter)).filter(|word| word.starts_with("hyper_session_")).collect()
}

/// The labels that it groups by or selects.
fn labels(query: &str) -> BTreeSet<&str> {
    let grouped = query
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .flat_map(|list| list.split(','));
    let selected = query.split('{').skip(1).filter_map(|rest| rest.split(['=', '!']).next());
    grouped.chain(selected).map(str::trim).collect()
}

/// The values that it selects labels by.
fn values(query: &str) -> Vec<&str> {
    let quoted = query.split('"').skip(1).step_by(2);
    quoted.flat_map(|pattern| pattern.split("\\|")).collect()
}

#[test]
fn every_query_of_the_guide_finds_what_it_asks_for() {
    let _turn = alone();
    // As the guide sets it up.
    let buckets = GUIDE.split("&[").nth(1).unwrap().split(']').next().unwrap();
    let buckets: Vec<f64> =
        buckets.split(',').map(|bucket| bucket.trim().replace('_', "").parse().unwrap()).collect();
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("hyper_session_store_seconds".to_owned()), &buckets)
        .unwrap()
        .build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        hyper_session::describe_metrics();
        cause_every_event();
    });
    let rendered = handle.render();
    let queries = queries();
    assert!(queries.len() >= 14, "{queries:?}");
    for query in queries {
        let labels = labels(query);
        let names = metrics(query);
        assert!(!names.is_empty(), "{query}");
        for name in names {
            let series: Vec<_> =
                rendered.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect();
            assert!(!series.is_empty(), "{query} finds no {name} in\n{rendered}");
            for label in &labels {
                let label = format!("{label}=\"");
                assert!(series.iter().all(|line| line.contains(&label)), "{query}: {name} has no {label}");
            }
        }
        for value in values(query) {
            let known = GUIDE.contains(&format!("`{value}`")) || value == "unavailable";
            assert!(known, "{query} asks for {value}");
        }
    }
    // Rates are of counters.
    for line in rendered.lines().filter(|line| line.starts_with("# TYPE")) {
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "histogram" }, "{line}");
    }
}

/// Two logins of new visitors, and one of a visitor who had a session: three, whatever happens to their ids.
#[test]
fn logins_are_counted_as_logins() {
    let _turn = alone();
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, crate::every_event::three_logins);
    let rendered = handle.render();
    for (name, count) in [("logins", 3), ("created", 3), ("regenerated", 1)] {
        let line = format!("hyper_session_{name}_total{{cookie=\"__Host-session\"}} {count}");
        assert!(rendered.contains(&line), "no {line} in\n{rendered}");
    }
}
