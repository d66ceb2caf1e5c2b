//! Rotations from the command line: what is said before one opens, and following one to its end.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{Ready, text};

#[test]
fn a_rehearsal_is_offered_before_a_rotation_opens() {
    let Ready {
        server,
        endpoint,
        keyring,
        app,
    } = Ready::new();
    let open = ["rotation", "open", &keyring];
    // Nobody answers there, so nothing can be found out, and nothing is opened.
    let proven = [&open[..], &["--mode", "proven", "--rehearse"]].concat();
    let refused = server.run(&proven).refused(7);
    assert!(refused.contains("never_contacted"), "{refused}");
    assert!(refused.contains("mode overlap"), "{refused}");
    let listed = server.json(&["rotation", "list"]);
    assert!(listed["data"].as_array().unwrap().is_empty(), "{listed}");

    let opened = server.run(&[&open[..], &["-o", "json"]].concat());
    let offered = format!("{endpoint}: never rehearsed; --rehearse");
    assert!(opened.err.starts_with(&offered), "{opened:?}");
    let opened = opened.json();
    let said = text(&opened, "deliveries");
    assert!(said.contains("signed when it is sent"), "{opened}");

    let probes = server.json(&["rotation", "probes", &endpoint]);
    assert!(probes["data"].as_array().unwrap().is_empty(), "{probes}");
    server.place.file("body", "{\"ping\": 1}");
    let chosen = [
        "--probes",
        "off",
        "--probe-type",
        "a.b",
        "--probe-body-file",
        "body",
    ];
    let update = ["endpoint", "update", &app, &endpoint];
    let updated = server.json(&[&update[..], &chosen].concat());
    assert_eq!(updated["probe"]["mode"], "off");
    assert_eq!(updated["probe"]["eventType"], "a.b");
    assert_eq!(updated["probe"]["body"]["ping"], 1);
}

#[test]
fn what_is_shown_of_a_rotation_has_the_version_that_is_compared() {
    let Ready {
        server, keyring, ..
    } = Ready::new();
    // So that the keyring has another version than its rotation.
    let first = server.json(&["rotation", "open", &keyring]);
    server
        .run(&["rotation", "finish", text(&first, "id")])
        .done();
    let opened = server.json(&["rotation", "open", &keyring]);
    let rotation = text(&opened, "id");
    let shown = server.run(&["rotation", "show", rotation]).done();
    let version = |shown: &str| {
        let mut words = shown.split_ascii_whitespace();
        words.find(|word| *word == "keyringVersion");
        words.next().unwrap_or_default().to_owned()
    };
    let seen = version(&shown);
    assert_ne!(seen, opened["version"].to_string(), "{shown}");
    let extend = [
        "rotation",
        "extend",
        rotation,
        "--until",
        "100h",
        "--if-version",
    ];
    let extended = server.run(&[&extend[..], &[&seen]].concat()).done();
    // The version of that time is not the one any more, and the answer said which is.
    server.run(&[&extend[..], &[&seen]].concat()).refused(7);
    let then = version(&extended);
    server
        .run(&["rotation", "finish", rotation, "--if-version", &then])
        .done();
}

#[test]
fn a_rotation_is_followed_until_it_is_over() {
    for (command, stage, code) in [("finish", "completed", 0), ("undo", "undone", 22)] {
        let Ready {
            server, keyring, ..
        } = Ready::new();
        let opened = server.json(&["rotation", "open", &keyring]);
        let rotation = text(&opened, "id");
        let follow = ["rotation", "show", rotation, "--watch", "--every", "1s"];
        let mut following = server.place.command();
        following
            .args(follow)
            .args(["-o", "json"])
            .env("HOOKTURN_SERVER", &server.url)
            .env("HOOKTURN_API_KEY", super::KEY)
            .stdout(Stdio::piped());
        let mut following = following.spawn().unwrap();
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&first["open"], &first["stage"]),
            (&true.into(), &"overlap".into())
        );
        server.run(&["rotation", command, rotation]).done();
        let last = lines.last().unwrap().unwrap();
        let last: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(
            (&last["open"], &last["stage"]),
            (&false.into(), &stage.into())
        );
        assert_eq!(following.wait().unwrap().code(), Some(code));
        // Once it is over there is nothing to follow: no terminal, so a line for people and the whole.
        let over = server.run(&follow);
        assert_eq!(over.code, code, "{over:?}");
        assert!(over.err.starts_with(stage), "{over:?}");
        assert!(over.out.contains("deliveries"), "{over:?}");
    }
}
