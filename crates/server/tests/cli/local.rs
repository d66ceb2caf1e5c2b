//! Commands that work on files of this machine, and clients without a server.

use std::net::TcpListener;

use crate::support::{Place, Ran};

#[test]
fn init_writes_a_usable_configuration_and_overwrites_nothing() {
    let place = Place::new();
    let arguments = ["init", "--config", "h.toml", "--data-dir", "da\"ta"];
    place.run(&arguments).done();
    assert!(place.path("da\"ta").is_dir());
    let first = place.read("h.toml");
    assert!(
        place
            .run(&arguments)
            .refused(8)
            .contains("nothing is overwritten")
    );
    assert_eq!(place.read("h.toml"), first);
    let looked = place
        .run(&[
            "doctor",
            "--config",
            "h.toml",
            "--listen",
            "127.0.0.1:0",
            "-o",
            "json",
        ])
        .json();
    assert_eq!(looked["healthy"], true, "{looked}");
    let directory = looked["checks"][1]["detail"].as_str().unwrap();
    assert!(directory.contains("da\"ta is writable"), "{looked}");
}

#[test]
fn a_master_key_is_written_once_and_for_its_owner() {
    let place = Place::new();
    let printed = place.run(&["master-key", "generate", "key"]).done();
    let key = place.read("key");
    assert_eq!(key.trim().len(), 64);
    assert!(!printed.contains(key.trim()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = place.path("key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    place.run(&["master-key", "generate", "key"]).refused(8);
    assert_eq!(place.read("key"), key);
}

#[test]
fn doctor_says_what_must_be_repaired() {
    let place = Place::new();
    place.file("h.toml", "data_dri = \"x\"\n");
    let ran = place.run(&["doctor", "--config", "h.toml"]);
    assert_eq!(ran.code, 21);
    assert!(ran.out.contains("data_dri"), "{ran:?}");

    std::fs::create_dir(place.path("data")).unwrap();
    place.file(
        "data/hookturn.db",
        "this is no database, but it is long enough to be read as one".repeat(20),
    );
    std::fs::create_dir(place.path("newer")).unwrap();
    let newer = rusqlite::Connection::open(place.path("newer/hookturn.db")).unwrap();
    newer
        .execute_batch(
            "CREATE TABLE a (b); PRAGMA application_id = 0x686b746e; PRAGMA user_version = 9999;",
        )
        .unwrap();
    newer.close().unwrap();
    place.file("newer/master.key", "0".repeat(64));
    let newer = ["serve", "--data-dir", "newer", "--listen", "127.0.0.1:0"];
    let said = place.run(&newer).refused(13);
    assert!(said.contains("start the newer hookturn"), "{said}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ran = place.run(&["doctor", "--data-dir", "data", "--listen", &listen]);
    assert_eq!(ran.code, 21);
    for part in [
        "fail  database",
        "is damaged",
        "fail  address",
        "choose another --listen",
    ] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
}

/// Whatever `serve` would end with, and nothing is made to find out.
#[test]
fn doctor_and_serve_agree_on_a_data_directory_that_cannot_be_used() {
    let place = Place::new();
    place.file("file", "x");
    std::os::unix::fs::symlink("nowhere/at/all", place.path("link")).unwrap();
    for (directory, words) in [
        ("/proc/foo", "cannot be made"),
        ("/proc/foo/bar", "cannot be made"),
        ("file/data", "choose another --data-dir"),
        ("file", "no directory"),
        ("link", "link to nothing"),
    ] {
        let at = ["--data-dir", directory, "--listen", "127.0.0.1:0"];
        place.run(&[&["serve"], &at[..]].concat()).refused(11);
        let doctor = place.run(&[&["doctor"], &at[..]].concat());
        assert_eq!(doctor.code, 11, "{doctor:?}");
        let said = doctor.out.lines();
        let found = said
            .into_iter()
            .find(|line| line.starts_with("fail  data directory"));
        assert!(found.is_some_and(|line| line.contains(words)), "{doctor:?}");
        let json = place.run(&[&["doctor", "--output", "json"], &at[..]].concat());
        assert!(json.out.contains("\"healthy\":false"), "{json:?}");
    }
    for fine in ["new", "new/and/deep"] {
        let out = place.run(&["doctor", "--data-dir", fine, "--listen", "127.0.0.1:0"]);
        assert!(out.done().contains("does not exist yet"));
    }
    let left = std::fs::read_dir(place.path(".")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "link"]);
}

#[test]
fn doctor_and_serve_agree_on_what_is_no_database() {
    type Make<'m> = &'m dyn Fn(&Place);
    let theirs = |place: &Place| {
        let theirs = rusqlite::Connection::open(place.path("data/hookturn.db")).unwrap();
        theirs.execute_batch("CREATE TABLE cats (name)").unwrap();
        theirs.close().unwrap();
    };
    let cases: [(&str, Make<'_>); 4] = [
        ("is empty", &|place| {
            place.file("data/hookturn.db", "");
        }),
        ("damaged", &|place| {
            place.file("data/hookturn.db", [0; 4096]);
        }),
        ("not a Hookturn database", &theirs),
        ("not a file", &|place| {
            std::fs::create_dir(place.path("data/hookturn.db")).unwrap();
        }),
    ];
    for (words, make) in cases {
        let place = Place::new();
        std::fs::create_dir(place.path("data")).unwrap();
        place.file("data/master.key", "0".repeat(64));
        make(&place);
        let at = ["--data-dir", "data", "--listen", "127.0.0.1:0"];
        let serve = place.run(&[&["serve"], &at[..]].concat()).refused(12);
        assert!(serve.contains(words), "{serve}");
        let doctor = place.run(&[&["doctor"], &at[..]].concat());
        assert_eq!(doctor.code, 21, "{doctor:?}");
        let found = doctor
            .out
            .lines()
            .find(|line| line.starts_with("fail  database"));
        assert!(found.is_some_and(|line| line.contains(words)), "{doctor:?}");
    }
}

#[test]
fn doctor_tells_of_a_master_key_that_is_missing_or_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    place.file("data/master.key", "0".repeat(64));
    let doctor = ["doctor", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    for (mode, warned) in [(0o600, false), (0o644, true)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.path("data/master.key"), mode).unwrap();
        let out = place.run(&doctor).done();
        assert_eq!(out.contains("warn  master key"), warned, "{out}");
        assert_eq!(out.contains("chmod 600"), warned, "{out}");
    }
    let named = |command: &[&str]| {
        Ran::new(
            place
                .command()
                .args(command)
                .env("HOOKTURN_MASTER_KEY_FILE", "nowhere.key"),
        )
    };
    let ran = named(&doctor);
    assert_eq!(ran.code, 21);
    assert!(ran.out.contains("fail  master key"), "{ran:?}");
    assert!(ran.out.contains("nowhere.key"), "{ran:?}");
    let said = named(&["backup", "copy", "--data-dir", "data"]).refused(14);
    assert!(said.contains("correct HOOKTURN_MASTER_KEY_FILE"), "{said}");
}

#[test]
fn doctor_tells_an_address_of_another_machine_from_a_taken_one() {
    let place = Place::new();
    let ran = place.run(&["doctor", "--listen", "192.0.2.1:0"]);
    assert_eq!(ran.code, 21);
    assert!(ran.out.contains("no such address"), "{ran:?}");
    assert!(!ran.out.contains("another program"), "{ran:?}");
}

#[test]
fn serve_ends_with_the_code_of_what_is_wrong() {
    let place = Place::new();
    place.file("h.toml", "listen = \"nowhere\"\n");
    place.run(&["serve", "--config", "h.toml"]).refused(10);

    place.file("file", "");
    let below = [
        "serve",
        "--data-dir",
        "file/data",
        "--listen",
        "127.0.0.1:0",
    ];
    place.run(&below).refused(11);

    std::fs::create_dir(place.path("data")).unwrap();
    place.file("data/hookturn.db", "no database".repeat(200));
    place.file("data/master.key", "0".repeat(64));
    let damaged = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    assert!(place.run(&damaged).refused(12).contains("damaged"));

    std::fs::remove_file(place.path("data/master.key")).unwrap();
    assert!(place.run(&damaged).refused(14).contains("missing"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ran = place.run(&["serve", "--data-dir", "fresh", "--listen", &listen]);
    assert!(ran.refused(15).contains("choose another --listen"));
}

#[test]
fn backup_needs_a_database_and_overwrites_nothing() {
    let place = Place::new();
    let error = place
        .run(&["backup", "copy", "--data-dir", "none"])
        .refused(11);
    assert!(error.contains("no database"), "{error}");
    std::fs::create_dir(place.path("data")).unwrap();
    place.file("data/hookturn.db", "no database".repeat(200));
    place
        .run(&["backup", "copy", "--data-dir", "data"])
        .refused(12);
    assert!(!place.path("copy").exists());
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let place = Place::new();
    // A port that was free a moment ago, and that nobody else is told.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = format!("http://127.0.0.1:{port}");
    let mut command = place.command();
    command
        .env("HOOKTURN_API_KEY", "sk_operator_planted")
        .args(["app", "list", "--server", &server]);
    let error = Ran::new(&mut command).refused(3);
    for part in [
        server.as_str(),
        "nothing was sent",
        "hookturn serve",
        "--server",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let json = Ran::new(command.args(["-o", "json"])).refused(3);
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["exitCode"], 3);
    assert!(!(error + &json).contains("planted"));
}

#[test]
fn without_a_usable_key_nothing_is_sent() {
    let place = Place::new();
    let error = place.run(&["app", "list"]).refused(5);
    assert!(error.contains("--api-key-file"), "{error}");
    place.file("key", "two\nlines\n");
    let error = place
        .run(&["app", "list", "--api-key-file", "key"])
        .refused(2);
    assert!(error.contains("exactly one line"), "{error}");
    place
        .run(&["app", "list", "--api-key-file", "none"])
        .refused(8);
    let mut command = place.command();
    command
        .env("HOOKTURN_API_KEY", "sk_x")
        .args(["app", "list", "--server", "127.0.0.1"]);
    assert!(
        Ran::new(&mut command)
            .refused(2)
            .contains("http://127.0.0.1:8090")
    );
}

#[test]
fn what_is_no_json_is_not_sent() {
    let place = Place::new();
    let arguments = ["message", "send", "app_1", "a.b", "--json", "{"];
    assert!(
        place
            .run(&arguments)
            .refused(2)
            .contains("nothing was sent")
    );
}
