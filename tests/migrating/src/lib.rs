//! Applications before and after they move to hyper-session. `before` calls each method of the other library, `after` does the
//! same here. That both compile, and that the guide's table names each method, is what is tested. `application` is a whole one,
//! driven over sockets.
#![forbid(unsafe_code)]
#![allow(dead_code, clippy::missing_errors_doc)]

mod actix_session;
mod application;
mod axum_login;
mod tower_sessions;
#[cfg(test)]
mod visitor;

#[cfg(test)]
mod tests {
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

    #[test]
    fn each_method_of_tower_sessions_is_in_the_guide() {
        all_are_named(
            "tower-sessions",
            &[
                "insert",
                "insert_value",
                "get",
                "get_value",
                "remove",
                "remove_value",
                "clear",
                "is_empty",
                "id",
                "expiry",
                "set_expiry",
                "expiry_date",
                "expiry_age",
                "is_modified",
                "save",
                "load",
                "delete",
                "flush",
                "cycle_id",
                "with_name",
                "with_http_only",
                "with_same_site",
                "with_expiry",
                "with_secure",
                "with_path",
                "with_domain",
                "with_always_save",
                "with_signed",
                "with_private",
                "OnSessionEnd",
                "OnInactivity",
                "AtDateTime",
                "SessionStore",
                "CachingSessionStore",
            ],
        );
    }

    #[test]
    fn each_method_of_actix_session_is_in_the_guide() {
        all_are_named(
            "actix-session",
            &[
                "get_session",
                "get",
                "contains_key",
                "entries",
                "status",
                "insert",
                "update",
                "update_or",
                "remove",
                "remove_as",
                "clear",
                "purge",
                "renew",
                "cookie_name",
                "cookie_secure",
                "session_lifecycle",
                "cookie_same_site",
                "cookie_path",
                "cookie_domain",
                "cookie_content_security",
                "cookie_http_only",
                "state_ttl",
                "state_ttl_extension_policy",
                "session_ttl",
                "session_ttl_extension_policy",
                "CookieSessionStore",
                "RedisSessionStore",
            ],
        );
    }

    #[test]
    fn each_method_of_axum_login_is_in_the_guide() {
        all_are_named(
            "axum-login",
            &[
                "authenticate",
                "login",
                "logout",
                "user",
                "session",
                "backend",
                "session_auth_hash",
                "with_data_key",
                "get_user",
                "has_perm",
                "get_user_permissions",
                "get_group_permissions",
                "get_all_permissions",
                "login_required",
                "permission_required",
                "predicate_required",
                "AuthManagerLayerBuilder",
            ],
        );
    }

    const EXPRESS_SESSION: [&str; 37] = [
        "all",
        "clear",
        "cookie",
        "createSession",
        "data",
        "destroy",
        "domain",
        "expires",
        "genid",
        "get",
        "httpOnly",
        "id",
        "length",
        "load",
        "maxAge",
        "name",
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
        // Not for applications: JavaScript's own, and an old name of `name`.
        let is_known = |name: &str| ["constructor", "toJSON", "key"].contains(&name);
        let missing: Vec<_> = names
            .split_whitespace()
            .filter(|name| !is_known(name) && !EXPRESS_SESSION.contains(name))
            .collect();
        assert!(!names.is_empty() && missing.is_empty(), "{missing:?}");
    }
}
