//! Help, usage errors, completion.

use crate::support::{Place, Ran, SECRETS};

/// The names under `Commands:` of a help text.
fn commands_in(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A description that goes on in the next line is indented further.
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_tells_its_exit_codes_and_where_its_key_comes_from() {
    let place = Place::new();
    let root = place.run(&["--help"]).done();
    let mut visited = 0;
    for group in commands_in(&root) {
        let help = place.run(&[&group, "--help"]).done();
        let mut pages = vec![(group.clone(), help.clone())];
        for command in commands_in(&help) {
            let page = place.run(&[&group, &command, "--help"]).done();
            pages.push((format!("{group} {command}"), page));
        }
        for (name, page) in pages {
            visited += 1;
            assert!(page.contains("Exit codes:"), "{name}: {page}");
            assert!(page.contains(" 0  done"), "{name}: {page}");
            if page.contains("--server") {
                for variable in ["HOOKTURN_API_KEY", "HOOKTURN_SERVER", " 6  no such thing"] {
                    assert!(page.contains(variable), "{name}: {page}");
                }
            }
        }
    }
    assert!(visited > 50, "only {visited} pages of help were found");
}

/// The numbers under `Exit codes:` of a help text.
fn codes_in(help: &str) -> Vec<i32> {
    help.lines()
        .skip_while(|line| *line != "Exit codes:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn a_command_lists_the_codes_that_are_its_own() {
    let place = Place::new();
    for (command, own) in [
        (&["serve"][..], &[10, 11, 12, 13, 14, 15, 16, 17][..]),
        (&["demo"], &[17, 22]),
        (&["doctor"], &[11, 21]),
        (&["init"], &[11]),
        (&["backup"], &[10, 11, 12, 13, 14]),
        (&["health"], &[3, 4, 10]),
        (&["migrate-store"], &[7, 10, 11, 12, 13, 16, 18, 19, 23]),
        (&["verify"], &[20]),
        (&["listen"], &[15, 20]),
        (&["audit", "verify"], &[1, 3, 20]),
        (&["endpoint", "test"], &[1, 6, 22]),
    ] {
        let help = place.run(&[command, &["--help"]].concat()).done();
        let codes = codes_in(&help);
        assert!(codes.is_sorted(), "{command:?}: {codes:?}");
        for code in [0, 2, 8].iter().chain(own) {
            assert!(codes.contains(code), "{command:?}: no {code} in {codes:?}");
        }
    }
    let app = codes_in(&place.run(&["app", "list", "--help"]).done());
    assert_eq!(app, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn the_exit_codes_are_documented() {
    let place = Place::new();
    let help = place.run(&["help", "exit-codes"]).done();
    for line in [
        " 3  the server cannot be reached",
        "14  the master key",
        "20  a signature",
    ] {
        assert!(help.contains(line), "{help}");
    }
    assert_eq!(place.run(&["exit-codes"]).done().lines().count(), 23);
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    let place = Place::new();
    for arguments in [
        &["revolve"][..],
        &["rotation", "spin"],
        &["rotation", "open"],
        &["rotation", "open", "../apps"],
        &["app", "create", "a", "--output", "xml"],
        &["message", "list", "app_1", "--since", "yesterday"],
        &[
            "sign",
            "--scheme",
            "none",
            "--secret-file",
            "s",
            "--file",
            "b",
        ],
        &[],
    ] {
        place.run(arguments).refused(2);
    }
}

#[test]
fn g8_a_secret_among_the_arguments_is_not_repeated() {
    let place = Place::new();
    let secret = SECRETS[0].1;
    for arguments in [
        vec!["sign".to_owned(), secret.to_owned()],
        vec!["app".into(), "list".into(), format!("--api-key={secret}")],
        vec![
            "secret".into(),
            "create".into(),
            "kr_1".into(),
            format!("--limit=x{secret}"),
        ],
        vec![
            "app".into(),
            "list".into(),
            "--limit".into(),
            "sk_operator_planted".into(),
        ],
    ] {
        let ran = Ran::new(place.command().args(&arguments));
        assert_eq!(ran.code, 2, "{ran:?}");
        let printed = ran.out + &ran.err;
        assert!(!printed.contains("0000000000"), "{printed}");
        assert!(!printed.contains("planted"), "{printed}");
        assert!(printed.contains("Secrets are never arguments"), "{printed}");
    }
}

#[test]
fn every_shell_gets_a_script() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.run(&["completion", shell]).done();
        assert!(
            script.contains("rotation") && script.contains("hookturn"),
            "{shell}"
        );
    }
    place.run(&["completion", "cmd"]).refused(2);
}

#[test]
fn the_description_of_the_api_is_json() {
    let document = Place::new().run(&["openapi"]).json();
    assert_eq!(document["openapi"], "3.1.0");
}
