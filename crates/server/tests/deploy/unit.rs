//! The systemd unit, as systemd reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::files::{deploy, read};

/// What `systemd-analyze security` calls well protected is below 2.0 of 10.
const EXPOSURE: &str = "15";

/// The unit with its drop-in in a directory of its own, starting the program that was built here.
fn installed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let unit = read("systemd/hookturn.service")
        .replace("/usr/local/bin/hookturn", env!("CARGO_BIN_EXE_hookturn"));
    fs::write(directory.path().join("hookturn.service"), unit).unwrap();
    let beside = directory.path().join("hookturn.service.d");
    fs::create_dir(&beside).unwrap();
    let from = deploy().join("systemd/hookturn.service.d/postgresql.conf");
    fs::copy(from, beside.join("postgresql.conf")).unwrap();
    directory
}

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    )
}

#[test]
fn systemd_reads_the_unit_and_its_drop_in_without_a_word() {
    let place = installed();
    let unit = place.path().join("hookturn.service");
    let (fine, told) = analyze(&["verify", "--man=no"], &unit);
    assert!(fine && told.is_empty(), "{told}");
    // It does say so when something is wrong, in either file.
    for name in ["hookturn.service", "hookturn.service.d/postgresql.conf"] {
        let path = place.path().join(name);
        let right = fs::read_to_string(&path).unwrap();
        fs::write(&path, right.replace("LoadCredential=", "LoadCredentials=")).unwrap();
        let (_, told) = analyze(&["verify", "--man=no"], &unit);
        assert!(told.contains("LoadCredentials"), "{name}: {told}");
        fs::write(&path, right).unwrap();
    }
}

#[test]
fn the_service_may_do_little() {
    let place = installed();
    let unit = place.path().join("hookturn.service");
    let threshold = format!("--threshold={EXPOSURE}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    let (fine, told) = analyze(&arguments, &unit);
    assert!(fine, "{told}");
}

/// Those codes for which starting again is no use, by what the program itself says of them.
#[test]
fn it_is_not_started_again_for_what_that_does_not_mend() {
    use hookturn::cli::exit::Exit;
    let unit = read("systemd/hookturn.service");
    let codes = unit
        .lines()
        .find_map(|line| line.strip_prefix("RestartPreventExitStatus="))
        .unwrap();
    let codes: Vec<u8> = codes.split(' ').map(|code| code.parse().unwrap()).collect();
    let final_ones = [
        Exit::Usage,
        Exit::Config,
        Exit::DatabaseDamaged,
        Exit::DatabaseNewer,
        Exit::MasterKey,
        Exit::HalfCopied,
    ];
    assert_eq!(codes, final_ones.map(Exit::code));
}

/// The time that the server takes to stop is within what everybody gives it.
#[test]
fn there_is_time_to_stop() {
    let drain = hookturn_core::limits::DRAIN_MAX / 1_000;
    let unit = read("systemd/hookturn.service");
    let given = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .unwrap();
    let given: u64 = given.trim_end_matches('s').parse().unwrap();
    assert!(given > drain, "{given}");
    let compose = crate::files::document("compose/compose.yaml");
    let given = compose["services"]["hookturn"]["stop_grace_period"]
        .as_str()
        .unwrap();
    let given: u64 = given.trim_end_matches('s').parse().unwrap();
    assert!(given > drain, "{given}");
    let chart = crate::files::document("helm/hookturn/values.yaml");
    let given = chart["terminationGracePeriodSeconds"].as_u64().unwrap();
    let pause = chart["preStopSleepSeconds"].as_u64().unwrap();
    assert!(given > drain + pause, "{given}");
}
