//! G8: what is secret is in no file in plain text, and what is erased is in no file at all.

use std::path::Path;
use std::sync::Arc;

use hookturn::store::conformance::world::World;
use hookturn::store::seal::{MasterKey, Place, Sealer};
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::SystemEntropy;
use hookturn_core::store::{SealedSecret, Store, Write};

use super::engine::{Sqlite, database};

const PLANTED: &str = "whsec_5e1f0c6a9b3d7e2f48a1c0b5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809";

fn found(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Every file of a directory, by name.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

#[tokio::test]
async fn g8_a_planted_secret_is_in_no_file_and_an_erased_box_neither() {
    let place = tempfile::tempdir().unwrap();
    let open = || {
        SqliteStore::open(SqliteOptions {
            path: database(&place),
            live: Arc::default(),
            hints: Arc::new(hookturn::store::conformance::Recorder::default()),
        })
        .unwrap()
    };
    let store = open();
    let values = World::new(&Sqlite).await;
    let tenant = values.tenant("acme").await;
    let keyring = values.keyring(&tenant.endpoints[0]);
    let master = MasterKey::generate(&SystemEntropy);
    let sealer = Sealer::new(vec![master.clone()], Arc::new(SystemEntropy));
    let in_box = |empty: SealedSecret| SealedSecret {
        sealed: sealer
            .seal(Place::Secret(&empty), PLANTED.as_bytes())
            .into(),
        ..empty
    };
    let (kept, erased) = (
        in_box(values.secret(&keyring, b"")),
        in_box(values.secret(&keyring, b"")),
    );
    let mut answer = values.answer(b"");
    let boxed = sealer.seal(Place::Answer(answer.key), PLANTED.as_bytes());
    answer.sealed_response = Some(boxed.into());
    let mut change = values.changing(
        tenant.workspace.id,
        vec![
            Write::Workspace(tenant.workspace.clone()),
            Write::Secret(kept.clone()),
            Write::Secret(erased.clone()),
        ],
    );
    change.idempotency = Some(answer);
    store.change(change).await.unwrap();
    let backup = place.path().join("backup.db");
    store.backup(backup).await.unwrap();

    let running = files(place.path());
    assert!(running.iter().any(|(name, _)| name.ends_with("-wal")));
    let hex = &PLANTED["whsec_".len()..];
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let key = master.expose();
    for (name, contents) in &running {
        for needle in [
            hex.as_bytes(),
            &bytes,
            key.as_bytes(),
            &hex.as_bytes()[..16],
        ] {
            assert!(!found(contents, needle), "{name}");
        }
    }
    let holding = |secret: &SealedSecret| {
        let all = files(place.path());
        let with = all.into_iter().filter(|(_, c)| found(c, &secret.sealed));
        let names: Vec<_> = with.map(|(name, _)| name).collect();
        names.contains(&"hookturn.db".to_owned()) || names.contains(&"hookturn.db-wal".to_owned())
    };
    assert!(
        holding(&kept) && holding(&erased),
        "the search finds what is there"
    );

    let erase = Write::EraseSecret {
        workspace: erased.workspace,
        keyring: erased.keyring,
        secret: erased.secret,
        answers: true,
    };
    let change = values.changing(tenant.workspace.id, vec![erase]);
    store.change(change).await.unwrap();
    let fresh = in_box(kept.clone());
    let swaps = vec![(fresh.clone(), Arc::clone(&kept.sealed))];
    assert_eq!(store.reseal(swaps).await.unwrap(), 1);
    drop(store);
    assert!(holding(&fresh));
    assert!(
        !holding(&erased) && !holding(&kept),
        "old boxes are overwritten"
    );
    drop(open());
}
