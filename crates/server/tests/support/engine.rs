//! Which store the tests stand on: the embedded one, or PostgreSQL when `HOOKTURN_TEST_ENGINE` says so.

use std::path::Path;

use hookturn::store::postgres::Target;

use super::cluster::cluster;

/// Whether these tests are to run on PostgreSQL.
pub(crate) fn is_postgres() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let named = std::env::var("HOOKTURN_TEST_ENGINE").ok();
    match named.as_deref() {
        None | Some("" | "sqlite") => false,
        Some("postgres") => true,
        Some(other) => panic!("HOOKTURN_TEST_ENGINE is sqlite or postgres, not {other}"),
    }
}

/// A database of a name that no other test has.
pub(crate) async fn fresh() -> Target {
    let database = cluster().create_database().await;
    Target::parse(&cluster().url(&database)).unwrap()
}

/// The environment that leads a server of this data directory to its store: nothing for the embedded one;
/// otherwise a database of its own, which it finds again when it is started again, and a master key.
pub(crate) async fn variables(data_dir: &Path) -> Vec<(&'static str, String)> {
    if !is_postgres() {
        return Vec::new();
    }
    let (place, key) = (data_dir.join("store.url"), data_dir.join("given.key"));
    if !place.exists() {
        let database = cluster().create_database().await;
        std::fs::write(&place, cluster().url(&database)).unwrap();
        std::fs::write(&key, "a7".repeat(32)).unwrap();
    }
    let url = std::fs::read_to_string(&place).unwrap();
    vec![
        ("HOOKTURN_STORE", url),
        ("HOOKTURN_MASTER_KEY_FILE", key.display().to_string()),
    ]
}
