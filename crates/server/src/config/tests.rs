use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn in_file(text: &str) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.toml");
    std::fs::write(&path, text).unwrap();
    (
        dir,
        Flags {
            config: Some(path),
            ..Flags::default()
        },
    )
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let (_dir, flags) = in_file("listen = \"127.0.0.1:1\"\ndata_dir = \"file\"\n");
    let from_file = load(flags.clone(), &env(&[])).unwrap();
    assert_eq!(from_file.listen.port(), 1);
    assert_eq!(from_file.data_dir, Path::new("file"));
    let from_env = load(flags.clone(), &env(&[("HOOKTURN_LISTEN", "127.0.0.1:2")])).unwrap();
    assert_eq!(from_env.listen.port(), 2);
    let flags = Flags {
        listen: Some("127.0.0.1:3".to_owned()),
        ..flags
    };
    let from_flags = load(flags, &env(&[("HOOKTURN_LISTEN", "127.0.0.1:2")])).unwrap();
    assert_eq!(from_flags.listen.port(), 3);
}

#[test]
fn the_sample_is_valid_and_shows_the_defaults() {
    let (_dir, flags) = in_file(sample());
    let sampled = load(flags, &env(&[])).unwrap();
    let (_dir, flags) = in_file("");
    let default = load(flags, &env(&[])).unwrap();
    assert_eq!(format!("{sampled:?}"), format!("{default:?}"));
}

#[test]
fn unknown_keys_and_impossible_values_are_refused_by_name() {
    for (text, wanted) in [
        ("data_dri = \"x\"", "data_dri"),
        ("[outbound]\nallow_net = []", "allow_net"),
        ("[delivery]\nmax_in_flight = 0", "max_in_flight"),
        ("[delivery]\nshards = -1", "shards"),
        ("[outbound]\nhosts = { a = \"b\" }", "`a=b` is not"),
        ("[api]\nrequest_burst = 0", "request_burst"),
        ("listen = \"nowhere\"", "--listen"),
    ] {
        let (_dir, flags) = in_file(text);
        let error = load(flags, &env(&[])).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let (_dir, flags) = in_file("");
    let error = load(flags, &env(&[("HOOKTURN_ALLOW_NETS", "10.0.0.0/99")])).unwrap_err();
    assert!(error.to_string().contains("10.0.0.0/99"));
}

#[test]
fn numbers_that_cannot_work_are_refused_with_key_bound_and_line() {
    for (section, key, variable, most) in [
        ("delivery", "shards", "HOOKTURN_SHARDS", 256),
        (
            "delivery",
            "disable_after_hours",
            "HOOKTURN_DISABLE_AFTER_HOURS",
            8_760,
        ),
        ("delivery", "max_in_flight", "HOOKTURN_MAX_IN_FLIGHT", 1_000),
        ("retention", "days", "HOOKTURN_RETENTION_DAYS", 3_650),
        ("nodes", "lease_seconds", "HOOKTURN_LEASE_SECONDS", 300),
        (
            "api",
            "requests_per_second",
            "HOOKTURN_REQUESTS_PER_SECOND",
            1_000_000,
        ),
        ("api", "request_burst", "HOOKTURN_REQUEST_BURST", 1_000_000),
        (
            "dashboard",
            "session_seconds",
            "HOOKTURN_SESSION_SECONDS",
            2_592_000,
        ),
    ] {
        let least = match key {
            "shards" | "requests_per_second" => 0,
            "lease_seconds" => 3,
            _ => 1,
        };
        let with = |number: &str| {
            let (_dir, flags) = in_file(&format!("# one\n[{section}]\n{key} = {number}\n"));
            let from_file = load(flags, &env(&[]));
            let (_dir, flags) = in_file("");
            (from_file, load(flags, &env(&[(variable, number)])))
        };
        let bounds = format!("from {least} to {most}");
        let beyond = (most + 1).to_string();
        for bad in ["-1", &beyond, "9999999999999999999999", "1.5", "0"] {
            if bad == "0" && least == 0 {
                continue;
            }
            let (file, variables) = with(bad);
            let (file, set) = (file.unwrap_err(), variables.unwrap_err());
            assert!(file.to_string().contains("line 3"), "{bad}: {file}");
            if bad.parse::<i64>().is_ok() {
                let wanted = format!("{section}.{key} must be a whole number {bounds}, not {bad}");
                assert!(file.to_string().contains(&wanted), "{file}");
            }
            let wanted = format!("{variable} must be a whole number {bounds}, not {bad:?}");
            assert_eq!(set.to_string(), wanted);
        }
        for good in [least, most] {
            let (file, variables) = with(&good.to_string());
            file.unwrap();
            variables.unwrap();
        }
    }
}

#[test]
fn g8_secrets_come_from_files_too_and_are_never_shown() {
    let (dir, flags) = in_file("");
    let path = dir.path().join("key");
    std::fs::write(&path, "planted-secret\n").unwrap();
    let given = path.display().to_string();
    let config = load(flags.clone(), &env(&[("HOOKTURN_MASTER_KEY_FILE", &given)])).unwrap();
    assert_eq!(
        config.master_key.as_ref().unwrap().expose(),
        "planted-secret"
    );
    assert!(!format!("{config:?}").contains("planted"));
    let both = env(&[
        ("HOOKTURN_MASTER_KEY_FILE", &given),
        ("HOOKTURN_MASTER_KEY", "x"),
    ]);
    assert!(matches!(load(flags, &both), Err(ConfigError::Twice { .. })));
}

#[test]
fn misspelt_variables_are_reported() {
    let (_dir, flags) = in_file("");
    let config = load(
        flags,
        &env(&[("HOOKTURN_LITSEN", "x"), ("HOOKTURN_SERVER", "y")]),
    )
    .unwrap();
    assert_eq!(config.unknown_variables, ["HOOKTURN_LITSEN"]);
}

#[test]
fn misspelt_variables_of_keys_and_of_what_is_allowed_are_refused() {
    for (name, wanted) in [
        ("HOOKTURN_MASTERKEY", "HOOKTURN_MASTER_KEY"),
        ("HOOKTURN_MASTER_KEY_FIEL", "HOOKTURN_MASTER_KEY_FILE"),
        ("HOOKTURN_STORE_PASSWORT", "HOOKTURN_STORE_PASSWORD"),
        ("HOOKTURN_STORE_URL", "HOOKTURN_STORE"),
        ("HOOKTURN_BOOTSTRAP_KEY", "HOOKTURN_BOOTSTRAP_API_KEY"),
        ("HOOKTURN_ALLOW_NET", "HOOKTURN_ALLOW_NETS"),
    ] {
        let (_dir, flags) = in_file("");
        // Whatever it holds.
        for value in ["x", ""] {
            match load(flags.clone(), &env(&[(name, value)])) {
                Err(ConfigError::UnknownVariable {
                    name: said,
                    nearest,
                }) => {
                    assert_eq!((said.as_str(), nearest), (name, wanted));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    // Those of the tests, and of whoever uses the prefix too.
    let (_dir, flags) = in_file("");
    let others = [
        "HOOKTURN_JUDGE_NODE",
        "HOOKTURN_KILL_ROUNDS",
        "HOOKTURN_TEST_BINARY",
    ];
    let config = load(flags, &env(&others.map(|name| (name, "1")))).unwrap();
    assert_eq!(config.unknown_variables, others);
}

#[test]
fn a_variable_of_a_key_or_a_file_is_not_empty() {
    for &name in NEVER_EMPTY {
        let (_dir, flags) = in_file("");
        let refused = load(flags, &env(&[(name, "")]));
        assert!(
            matches!(&refused, Err(ConfigError::EmptyVariable { name: said }) if *said == name),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn the_store_is_embedded_unless_a_database_is_named() {
    let (_dir, flags) = in_file("");
    let embedded = load(flags.clone(), &env(&[])).unwrap();
    assert!(matches!(embedded.store, StorePlace::Embedded));
    let url = "postgres://hookturn@db/hookturn";
    let named = Flags {
        store: Some(url.to_owned()),
        ..flags.clone()
    };
    let (_file, in_file) = in_file(&format!("store = \"{url}\""));
    for given in [
        load(named, &env(&[])),
        load(flags, &env(&[("HOOKTURN_STORE", url)])),
        load(in_file, &env(&[])),
    ] {
        let StorePlace::Postgres(database) = given.unwrap().store else {
            panic!("the database was not taken");
        };
        assert_eq!(database.url.expose(), url);
        assert!(database.password.is_none());
    }
}

#[test]
fn g8_a_stores_password_is_refused_where_others_read_it_and_never_shown() {
    const URLS: [&str; 4] = [
        "postgres://hookturn:planted-secret@db/hookturn",
        "postgresql://hookturn@db/hookturn?sslmode=require&password=planted-secret",
        "postgres://hookturn:planted-secret/with@db/hookturn",
        "mysql://hookturn:planted-secret@db/hookturn",
    ];
    for url in URLS {
        let (_dir, flags) = in_file(&format!("store = \"{url}\""));
        let from_file = load(flags, &env(&[])).unwrap_err();
        let (_dir, flags) = in_file("");
        let flags = Flags {
            store: Some(url.to_owned()),
            ..flags
        };
        let from_flag = load(flags, &env(&[])).unwrap_err();
        for error in [from_file, from_flag] {
            assert!(!format!("{error:?} {error}").contains("planted"), "{error}");
        }
    }
    let (dir, flags) = in_file("");
    let given = load(flags.clone(), &env(&[("HOOKTURN_STORE", URLS[0])])).unwrap();
    assert!(!format!("{given:?}").contains("planted"));
    let path = dir.path().join("password");
    std::fs::write(&path, "planted-secret\n").unwrap();
    let path = path.display().to_string();
    let file = ("HOOKTURN_STORE_PASSWORD_FILE", path.as_str());
    let twice = load(flags.clone(), &env(&[("HOOKTURN_STORE", URLS[0]), file]));
    assert!(matches!(twice, Err(ConfigError::StorePasswordTwice)));
    let apart = [("HOOKTURN_STORE", "postgres://hookturn@db/hookturn"), file];
    let config = load(flags, &env(&apart)).unwrap();
    assert!(!format!("{config:?}").contains("planted"));
    let StorePlace::Postgres(Database { password, .. }) = config.store else {
        panic!("the database was not taken");
    };
    assert_eq!(password.unwrap().expose(), "planted-secret");
}
