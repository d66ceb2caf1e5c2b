//! `hookturn leak` and `hookturn bulk`: from a leaked string to a new secret and a report.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Ready, text};

fn is_done(report: &Value, keyrings: u64) {
    assert_eq!(report["state"], "completed", "{report}");
    assert_eq!(report["counts"]["done"], keyrings, "{report}");
}

#[test]
fn a_leaked_secret_is_found_and_rotated_away() {
    let ready = Ready::new();
    let server = &ready.server;
    let secret = server.place.read("first-secret");
    let log = format!("10:01 start\n10:02 calling with HOOK_SECRET={secret}; ok\n10:03 done\n");
    server.place.file("app.log", &log);
    let found = server.run(&["leak", "app.log"]).done();
    assert!(
        found.contains(&ready.keyring) && found.contains("line 2"),
        "{found}"
    );
    assert!(found.contains("hookturn secret compromise"), "{found}");
    assert!(!found.contains(secret.trim()), "{found}");
    let hash = hex::encode(Sha256::digest(secret.trim().as_bytes()));
    let by_hash = server.json(&["leak", &hash]);
    assert_eq!(by_hash["secrets"][0]["keyringId"], ready.keyring.as_str());
    let nothing = server.run(&["leak", &"ab".repeat(32)]);
    assert_eq!(nothing.code, 6);
    // The value itself is no argument, and is not repeated.
    let refused = server.run(&["leak", secret.trim()]);
    assert_eq!(refused.code, 2);
    assert!(!refused.err.contains(secret.trim()));

    let place = text(&by_hash["secrets"][0], "secretId").to_owned();
    let marked = server.json(&["secret", "compromise", &ready.keyring, &place]);
    assert!(
        text(&marked, "effect").contains("goes on signing"),
        "{marked}"
    );
    let plan = server.look(&[
        "bulk",
        "start",
        "--leaked",
        "app.log",
        "--mode",
        "immediate",
        "--dry-run",
    ]);
    assert_eq!(
        (&plan["keyrings"], &plan["dryRun"]),
        (&1.into(), &true.into())
    );
    assert_eq!(plan["state"], "planned", "{plan}");
    assert!(
        text(&plan, "words").contains("nothing was started"),
        "{plan}"
    );
    // Nobody is there to say yes.
    let unasked = server.run(&["bulk", "start", "--all", "--mode", "immediate"]);
    assert_eq!(unasked.code, 2);
    let report = server.json(&[
        "bulk", "start", "--leaked", "app.log", "--mode", "overlap", "--yes", "--reason", "leaked",
    ]);
    is_done(&report, 1);
    let id = text(&report, "id");
    let items = server.look(&["bulk", "items", id]);
    assert_eq!(items["data"][0]["state"], "done");
    let rotation = text(&items["data"][0], "rotationId").to_owned();
    // It is retired, so it signs nothing, this question included.
    let late = server.run(&["rotation", "released", &rotation]);
    assert!(
        late.code == 7 && late.err.contains("never signs again"),
        "{}",
        late.err
    );
    assert_eq!(server.look(&["bulk", "list"])["data"][0]["id"], id);
    assert_eq!(server.look(&["bulk", "show", id])["state"], "completed");
    let over = server.run(&["bulk", "pause", id]);
    assert_eq!(over.code, 7);
    let found = server.json(&["leak", &hash]);
    assert_eq!(found["secrets"][0]["secret"]["status"], "retired");
}
