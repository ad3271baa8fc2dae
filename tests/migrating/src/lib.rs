//! Applications before and after they move to hyper-session. `before` calls each method of the other library, `after` does the
//! same here. That both compile, and that the guide's table names each public name in the source of the other library, is what is
//! tested. `application` is a whole one, driven over sockets.
//!
//! Not compiled: the Redis stores of the others, because each brings a further Redis client, and the traits of their own stores, of
//! which this crate has only the counterpart `Backend`, with an example.
#![forbid(unsafe_code)]
#![allow(dead_code, clippy::missing_errors_doc)]

mod actix_session;
mod application;
mod axum_login;
mod express_session;
mod tower_sessions;
#[cfg(test)]
mod visitor;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    const GUIDE: &str = include_str!("../../../src/guide/migrating.md");

    /// The part of the guide about a library: from its heading to the next.
    fn section(library: &str) -> &'static str {
        let (_, after) = GUIDE.split_once(&format!("# From {library}\n")).expect("a section");
        after.split("\n# ").next().unwrap_or(after)
    }

    /// The left column of the section's tables.
    fn left_column(library: &str) -> String {
        let rows = section(library).lines().filter_map(|line| line.strip_prefix("| "));
        rows.filter_map(|row| row.split(" | ").next()).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn all_are_named(library: &str, methods: &[&str]) {
        let named = left_column(library);
        let word =
            |method: &str| named.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == method);
        let missing: Vec<_> = methods.iter().filter(|method| !word(method)).collect();
        assert!(missing.is_empty(), "{library}: the guide does not name {missing:?}");
    }

    /// The source of another library, as cargo unpacked it to build this package.
    fn source(package: &str, file: &str) -> String {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let cargo = variable("CARGO_HOME")
            .unwrap_or_else(|| variable("HOME").expect("CARGO_HOME or HOME").join(".cargo"));
        let registries = fs::read_dir(cargo.join("registry/src")).expect("cargo's sources");
        let files = registries.flatten().map(|registry| registry.path().join(package).join("src").join(file));
        let found = files.filter_map(|path| fs::read_to_string(path).ok()).next();
        found.unwrap_or_else(|| panic!("{package} has no src/{file}"))
    }

    /// The public names of a source file: functions, those of public traits among them, types, exported macros and fields.
    fn public_names(source: &str) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        let mut in_trait = false;
        for line in source.lines().take_while(|line| !line.contains("#[cfg(test)]")) {
            in_trait = (in_trait && line != "}") || line.starts_with("pub trait ");
            let line = line.trim_start();
            let words = match line.strip_prefix("pub ") {
                Some(words) => words,
                None if in_trait || line.starts_with("macro_rules! ") => line,
                None => continue,
            };
            let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
            let declared = match kind {
                "async" | "const" => rest.strip_prefix("fn "),
                "fn" | "struct" | "enum" | "trait" | "type" | "macro_rules!" => Some(rest),
                field if field.ends_with(':') && !in_trait => Some(field),
                _ => None,
            };
            names.extend(
                declared.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()),
            );
        }
        names
    }

    /// Checks that the guide's table names each public name of these files but the `internal` ones.
    #[track_caller]
    fn all_of_the_source_are_named(library: &str, files: &[(&str, &str)], internal: &[&str]) {
        for (package, file) in files {
            let source = source(package, file);
            let names: Vec<_> =
                public_names(&source).into_iter().filter(|name| !internal.contains(name)).collect();
            assert!(!names.is_empty(), "{package}/{file} is read");
            all_are_named(library, &names);
        }
    }

    #[test]
    fn each_public_name_of_tower_sessions_is_in_the_guide() {
        let core = "tower-sessions-core-0.15.0";
        let files = [
            (core, "session.rs"),
            (core, "session_store.rs"),
            ("tower-sessions-0.15.0", "service.rs"),
            ("tower-sessions-memory-store-0.15.0", "lib.rs"),
        ];
        // Not for applications: a method of `CookieController`, a field of `Record`, and an alias.
        all_of_the_source_are_named("tower-sessions", &files, &["add", "data", "Result"]);
        all_are_named("tower-sessions", &["OnSessionEnd", "OnInactivity", "AtDateTime"]);
    }

    #[test]
    fn each_public_name_of_actix_session_is_in_the_guide() {
        let package = "actix-session-0.11.0";
        let files = [
            "session.rs",
            "session_ext.rs",
            "middleware.rs",
            "config.rs",
            "storage/interface.rs",
            "storage/session_key.rs",
            "storage/utils.rs",
            "storage/cookie.rs",
            "storage/redis_rs.rs",
        ]
        .map(|file| (package, file));
        // Not for applications: the service that the middleware makes.
        all_of_the_source_are_named("actix-session", &files, &["InnerSessionMiddleware"]);
        all_are_named("actix-session", &["OnEveryRequest", "OnStateChanges"]);
    }

    #[test]
    fn each_public_name_of_axum_login_is_in_the_guide() {
        let package = "axum-login-0.18.0";
        let files = ["backend.rs", "middleware.rs", "service.rs", "session.rs"].map(|file| (package, file));
        // Not for applications: a hidden helper of the macros, and the error that wraps those of its parts.
        all_of_the_source_are_named("axum-login", &files, &["url_with_redirect_query", "Error"]);
    }

    #[test]
    fn names_are_found_in_a_source() {
        let source = "pub struct A {\n    pub user: u8,\n    private: u8,\n}\npub trait B {\n    async fn c();\n    fn d() {\n    }\n}\n\
            impl A {\n    pub async fn e() {}\n    fn f() {}\n}\nmacro_rules! g {\n#[cfg(test)]\npub fn h() {}\n";
        assert_eq!(public_names(source), BTreeSet::from(["A", "user", "B", "c", "d", "e", "g"]));
    }

    const EXPRESS_SESSION: [&str; 41] = [
        "all",
        "clear",
        "cookie",
        "createSession",
        "data",
        "destroy",
        "domain",
        "expires",
        "generate",
        "genid",
        "get",
        "httpOnly",
        "id",
        "key",
        "length",
        "load",
        "maxAge",
        "name",
        "on",
        "originalMaxAge",
        "partitioned",
        "path",
        "priority",
        "proxy",
        "regenerate",
        "reload",
        "resave",
        "resetMaxAge",
        "rolling",
        "sameSite",
        "save",
        "saveUninitialized",
        "secret",
        "secure",
        "serialize",
        "sessionID",
        "sessionStore",
        "set",
        "store",
        "touch",
        "unset",
    ];

    #[test]
    fn each_option_and_method_of_express_session_is_in_the_guide() {
        all_are_named("express-session", &EXPRESS_SESSION);
    }

    /// The names come from express-session itself: `tests/migrating/express/run`.
    #[test]
    #[ignore = "needs Node.js and express-session: ./tests/migrating/express/run"]
    fn no_name_of_express_session_is_missing_in_the_list() {
        let names = std::env::var("EXPRESS_SESSION_NAMES").expect("the names");
        // Not for applications: JavaScript's own.
        let is_known = |name: &str| ["constructor", "toJSON"].contains(&name);
        let missing: Vec<_> = names
            .split_whitespace()
            .filter(|name| !is_known(name) && !EXPRESS_SESSION.contains(name))
            .collect();
        assert!(!names.is_empty() && missing.is_empty(), "{missing:?}");
    }
}
