//! How much code a session takes: the examples that say so, counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// The lines that a reader must read: neither blank nor documentation, and not the lint's.
fn lines(source: &str) -> usize {
    let counts = |line: &&str| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#![");
    source.lines().map(str::trim).filter(counts).count()
}

#[test]
fn a_service_with_a_session_is_short() {
    for (name, source, limit) in [
        ("hyper", include_str!("../examples/counter.rs"), 30),
        ("tower", include_str!("../examples/tower_layer.rs"), 30),
        ("axum", include_str!("../examples/axum_app.rs"), 25),
    ] {
        let lines = lines(source);
        assert!(source.contains("\nuse ") && lines >= 10, "{name}: what is counted is the example");
        assert!(lines <= limit, "{name} takes {lines} lines, {limit} were promised");
    }
}
