//! The rights that docs/REDIS.md asks for (A11): exactly these are enough, and the server denies nothing.

use hyper_session::store::redis::Credentials;
use hyper_session::testing::check_backend;
use hyper_session::{Clock, SystemClock};

use crate::app::{App, builder};
use crate::cluster::Cluster;
use crate::deployment::Deployment;
use crate::server::{Server, unhurried_revocations};
use crate::session_lists::{log_in, user};
use crate::values::Raw;

/// The rules of docs/REDIS.md, as they stand there.
pub(crate) fn documented(name: &str) -> Vec<String> {
    let docs = include_str!("../../docs/REDIS.md");
    let line = docs.lines().find(|line| line.starts_with(&format!("ACL SETUSER {name} "))).expect(name);
    line.replace("~shop:session:*", "~test:*")
        .replace("~shop:", "~test:")
        .split(' ')
        .map(ToOwned::to_owned)
        .collect()
}

fn set_user(server: &Server, more: &[&str]) {
    // The other kinds of server do not have these commands, and refuse rules about them.
    for name in ["sessions", "sessions-without-scripts"] {
        let rules = documented(name);
        if name == "sessions" || server.compares_and_sets() {
            let rules = rules.iter().map(String::as_str).chain(more.iter().copied());
            // As the documentation says of other servers than Valkey 9.
            let rules: Vec<_> = rules
                .filter_map(|rule| match rule {
                    "+delifeq" if server.knows("delex") => Some("+delex"),
                    "+delifeq" if !server.knows("delifeq") => None,
                    rule => Some(rule),
                })
                .collect();
            assert_eq!(server.cli(&rules), "OK", "{rules:?}");
        }
    }
    server.cli(&["ACL", "LOG", "RESET"]);
}

async fn everything(app: &App, servers: &[&Server]) {
    check_backend(app.store.backend(), SystemClock.now()).await;
    let mut jar = app.jar().await;
    for path in ["/add", "/regenerate", "/read", "/clear"] {
        app.ok(path, &mut jar).await;
    }
    let jar = log_in(&app.store, "ada").await;
    assert_eq!(user(&app.store, &jar).await.as_deref(), Some("ada"));
    assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 1);
    // A user who comes back within the quarter of an hour for which an expired entry is kept.
    let mut jar = app.jar().await;
    for (left, expected) in [(1_000_000, "1"), (800_000, "none")] {
        for server in servers {
            let mut raw = Raw::of(server);
            for key in raw.keys() {
                let mut entry = raw.get(&key);
                if entry.is_empty() {
                    continue; // Valkey 8 keeps it for a millisecond after it was deleted
                }
                entry[..8].copy_from_slice(&(SystemClock.now().as_unix() - 100).to_be_bytes());
                raw.set(&key, &entry);
                server.cli(&["PEXPIRE", &key, &left.to_string()]);
            }
        }
        assert_eq!(app.ok("/read", &mut jar).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_the_documented_rights_are_enough_and_nothing_is_denied() {
    let server = Server::start();
    set_user(&server, &[]);
    let url = |user: &str| format!("redis://{user}:password@127.0.0.1:{}", server.port);
    let app = App::with(builder(url("sessions")).scripts_only()).await;
    everything(&app, &[&server]).await;
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
    if server.compares_and_sets() {
        let app = App::connect(url("sessions-without-scripts")).await;
        everything(&app, &[&server]).await;
        assert_eq!(server.cli(&["ACL", "LOG"]), "");
    }
    // In another database, with the right that the documentation names for that.
    set_user(&server, &["+select"]);
    App::with(builder(format!("{}/3", url("sessions"))).scripts_only()).await;
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_in_a_cluster_and_behind_sentinel_too() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    for node in cluster.servers() {
        set_user(node, &["+cluster|slots", "+asking", "+client|tracking"]);
    }
    let url = cluster.url().replace("://", "://sessions:password@");
    let masters = cluster.masters();
    let masters: Vec<_> =
        cluster.servers().iter().filter(|node| masters.iter().any(|(_, port)| *port == node.port)).collect();
    let near_cache = hyper_session::store::redis::NearCache::new();
    for builder in [builder(&*url), builder(&*url).near_cache(near_cache)] {
        everything(&App::with(builder.scripts_only()).await, &masters).await;
    }
    for node in cluster.servers() {
        assert_eq!(node.cli(&["ACL", "LOG"]), "");
    }
    let deployment = tokio::task::block_in_place(Deployment::start);
    for server in deployment.servers() {
        set_user(server, &[]);
    }
    let url = deployment.url().replace("://", "://sessions:password@");
    let port = deployment.master_port().unwrap();
    let master = deployment.servers().iter().find(|server| server.port == port).unwrap();
    everything(&App::with(builder(url).scripts_only()).await, &[master]).await;
    for server in deployment.servers() {
        assert_eq!(server.cli(&["ACL", "LOG"]), "");
    }
}

/// Without the right to ask for a time to live, the host's clock decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_rights_that_may_be_left_out() {
    let server = Server::start();
    set_user(&server, &["-time", "-pttl", "-info"]);
    let url = format!("redis://sessions:password@127.0.0.1:{}", server.port);
    let app = App::with(builder(url).scripts_only()).await;
    let mut jar = app.jar().await;
    let mut raw = Raw::of(&server);
    let key = raw.keys()[0].clone();
    let mut entry = raw.get(&key);
    entry[..8].copy_from_slice(&(SystemClock.now().as_unix() - 100).to_be_bytes());
    raw.set(&key, &entry);
    assert_eq!(app.ok("/read", &mut jar).await, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_the_documented_rights_are_enough_for_revocations() {
    let server = Server::start();
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let rules = documented("revocations");
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    assert_eq!(server.cli(&rules), "OK");
    for node in cluster.servers() {
        assert_eq!(node.cli(&[&rules[..], &["+cluster|slots", "+asking"]].concat()), "OK");
    }
    for url in [server.url(), cluster.url()] {
        let url = url.replace("://", "://revocations:password@");
        let revocations = unhurried_revocations(url, "test").connect().await.unwrap();
        revocations.end_sessions_of("ada").await.unwrap();
    }
    for server in cluster.servers().iter().chain([&server]) {
        assert_eq!(server.cli(&["ACL", "LOG"]), "");
    }
}

/// While a slot moves, its old node names the new one for single commands, and the store asks that one with ASKING. Rights belong to
/// a node: where it is missing on one of them, connecting says so, and not the first resharding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_a_slot_on_the_move_needs_no_more_rights() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let url = |user: &str| cluster.url().replace("://", &format!("://{user}:password@"));
    let sessions = || builder(url("sessions")).scripts_only();
    let revocations = || unhurried_revocations(url("revocations"), "test");
    let rules = documented("revocations");
    let rules: Vec<_> = rules.iter().map(String::as_str).chain(["+cluster|slots", "+asking"]).collect();
    let nodes = cluster.servers();
    for node in nodes {
        set_user(node, &["+cluster|slots", "+asking"]);
        assert_eq!(node.cli(&rules), "OK");
    }
    for user in ["sessions", "revocations"] {
        assert_eq!(nodes[2].cli(&["ACL", "SETUSER", user, "-asking"]), "OK");
    }
    for error in [sessions().connect().await.map(drop), revocations().connect().await.map(drop)] {
        let error = error.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("+asking"), "{error:?}");
    }
    for user in ["sessions", "revocations"] {
        assert_eq!(nodes[2].cli(&["ACL", "SETUSER", user, "+asking"]), "OK");
    }
    nodes[2].cli(&["ACL", "LOG", "RESET"]);

    let app = App::with(sessions()).await;
    let mut jar = app.jar().await;
    let key = nodes.iter().map(|node| node.cli(&["KEYS", "test:*"])).find(|key| !key.is_empty()).unwrap();
    tokio::task::block_in_place(|| cluster.move_key(&key));
    assert_eq!(app.ok("/read", &mut jar).await, "1");
    assert_eq!(app.ok("/add", &mut jar).await, "2");
    app.ok("/regenerate", &mut jar).await;
    app.ok("/logout", &mut jar).await;

    let before = revocations().connect().await.unwrap();
    before.end_sessions_of("ada").await.unwrap();
    tokio::task::block_in_place(|| cluster.move_key("test:revoked"));
    before.end_sessions_of("bob").await.unwrap();
    assert_eq!(revocations().connect().await.unwrap().len(), 2);
    for node in nodes {
        assert_eq!(node.cli(&["ACL", "LOG"]), "");
    }
}

/// The sentinels' own rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_the_documented_rights_are_enough_for_sentinels() {
    let deployment = tokio::task::block_in_place(Deployment::start);
    let set = |more: &[&str]| {
        let rules = documented("master-lookup");
        let rules: Vec<_> = rules.iter().map(String::as_str).chain(more.iter().copied()).collect();
        for (_, port, _) in &deployment.sentinels {
            assert_eq!(deployment.ask(*port, &rules), "OK");
            deployment.ask(*port, &["ACL", "LOG", "RESET"]);
        }
    };
    let options =
        || builder(deployment.url()).sentinel_credentials(Credentials::new("master-lookup", "password"));
    set(&[]);
    App::with(options()).await.jar().await;
    for (_, port, _) in &deployment.sentinels {
        assert_eq!(deployment.ask(*port, &["ACL", "LOG"]), "");
    }
    set(&["-sentinel"]);
    let error = options().connect().await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("+sentinel|get-master-addr-by-name"),
        "{error:?}"
    );
}
