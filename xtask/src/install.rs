//! What the tests need beside a Rust toolchain, and how it comes to be there.
//!
//! Two kinds of things. *Tools* (a C, a C++ and a Go compiler, curl, Node, Python, Chromium) belong to the machine: as
//! root on Debian they are installed with apt, elsewhere the task says exactly what to install and
//! stops. *Judges* (other people's webhook libraries, which verify what Hookturn signed, and what drives the
//! browser) belong to this checkout: they go below the target directory, at the versions pinned in `tests/judges`;
//! `promtool` goes there too.
//! Nothing outside these two places is written.

mod promtool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{self, Failure, Outcome};
use crate::workspace::Workspace;

/// One tool of the machine: how to see that it works, and which Debian packages bring it.
struct Tool {
    name: &'static str,
    /// What it is needed for, for people who have to install it by hand.
    purpose: &'static str,
    /// Where to look, in this order: a version manager may hide the system's own.
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
    packages: &'static [&'static str],
}

impl Tool {
    /// The first of its programs that works, if one does.
    fn find(&self, workspace: &Workspace) -> Option<&'static str> {
        self.programs
            .iter()
            .copied()
            .find(|program| works(workspace, program, self.arguments))
    }
}

const PYTHON: Tool = Tool {
    name: "Python 3.11 or newer with venv",
    purpose: "the Python judges",
    programs: &["python3", "/usr/bin/python3"],
    arguments: &[
        "-c",
        "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))",
    ],
    packages: &["python3", "python3-venv", "python3-pip"],
};

const TOOLS: &[Tool] = &[
    Tool {
        name: "a C compiler",
        purpose: "SQLite and aws-lc are built from source",
        programs: &["cc"],
        arguments: &["--version"],
        packages: &["gcc", "libc6-dev"],
    },
    Tool {
        name: "a C++ compiler",
        purpose: "the fuzz targets link libFuzzer",
        programs: &["c++"],
        arguments: &["--version"],
        packages: &["g++"],
    },
    Tool {
        name: "bash",
        purpose: "the README's quick start is run as it is written",
        programs: &["bash"],
        arguments: &["--version"],
        packages: &["bash"],
    },
    Tool {
        name: "curl",
        purpose: "the README's quick start is run as it is written",
        programs: &["curl"],
        arguments: &["--version"],
        packages: &["curl"],
    },
    Tool {
        name: "openssl",
        purpose: "the README's quick start is run as it is written",
        programs: &["openssl"],
        arguments: &["version"],
        packages: &["openssl"],
    },
    Tool {
        name: "Node 18 or newer",
        purpose: "the npm judges",
        programs: &["node"],
        arguments: &[
            "-e",
            "process.exit(+(parseInt(process.versions.node) < 18))",
        ],
        packages: &["nodejs", "ca-certificates"],
    },
    Tool {
        name: "npm",
        purpose: "the npm judges",
        programs: &["npm"],
        arguments: &["--version"],
        packages: &["npm"],
    },
    PYTHON,
    Tool {
        name: "gccgo 12 or newer",
        purpose: "the Go code that the dashboard shows is compiled and run",
        programs: &["gccgo"],
        arguments: &["--version"],
        packages: &["gccgo"],
    },
    Tool {
        name: "Chromium with a font",
        purpose: "the dashboard is tried in a browser",
        programs: &["chromium", "chromium-browser", "google-chrome"],
        arguments: &["--version"],
        packages: &["chromium", "fonts-dejavu-core"],
    },
    Tool {
        name: "PostgreSQL 15 or newer",
        purpose: "the store engine for many nodes is tested on private clusters",
        programs: &[
            "/usr/lib/postgresql/15/bin/postgres",
            "/usr/lib/postgresql/16/bin/postgres",
            "/usr/lib/postgresql/17/bin/postgres",
            "/usr/lib/postgresql/18/bin/postgres",
            "postgres",
        ],
        arguments: &["--version"],
        packages: &["postgresql"],
    },
    Tool {
        name: "systemd-analyze 250 or newer",
        purpose: "the systemd unit is read by systemd",
        programs: &["systemd-analyze"],
        arguments: &["--version"],
        packages: &["systemd"],
    },
];

/// Debian's PostgreSQL makes and starts a cluster when it is installed, unless this file says otherwise. The
/// tests start clusters of their own, and a machine that had none should not have one after them.
const NO_CLUSTER: (&str, &str) = (
    "/etc/postgresql-common/createcluster.conf",
    "create_main_cluster = false\nstart_conf = 'manual'\n",
);

/// Where the judges are, for the scripts and for the tests that start them.
#[derive(Debug)]
pub(crate) struct Judges {
    /// Holds `verify.mjs` beside its `node_modules`, which the scripts of `tests/judges/browser` use too.
    pub(crate) node: PathBuf,
    /// The interpreter that has the Python libraries.
    pub(crate) python: PathBuf,
    /// What judges rules and queries of Prometheus.
    pub(crate) promtool: PathBuf,
}

impl Judges {
    /// Tells `command` where the judges are; `tests/judges/verify.mjs` documents the contract.
    pub(crate) fn announce(&self, command: &mut Command) {
        command
            .env("HOOKTURN_JUDGE_NODE", &self.node)
            .env("HOOKTURN_JUDGE_PYTHON", &self.python)
            .env("HOOKTURN_JUDGE_PROMTOOL", &self.promtool);
    }
}

/// Installs the missing tools where that is possible, and otherwise says what to install.
pub(crate) fn tools(workspace: &Workspace) -> Result<Outcome, Failure> {
    let missing = missing(workspace);
    if missing.is_empty() {
        return Ok(Outcome::Passed("all there".into()));
    }
    if !(is_debian() && is_root(workspace)?) {
        return Err(Failure::Missing(by_hand(&missing)));
    }
    let packages: Vec<&str> = packages(&missing);
    eprintln!("apt-get install {}", packages.join(" "));
    if packages.contains(&"postgresql") {
        forbid_a_cluster()?;
    }
    let fetch = &["update", "-q"][..];
    let install = [
        &[
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            // What is configured stays as it is; nobody is there to be asked.
            "-o",
            "Dpkg::Options::=--force-confold",
        ],
        &packages[..],
    ]
    .concat();
    for arguments in [fetch, &install] {
        let mut apt = workspace.command("apt-get");
        apt.args(arguments).stdin(Stdio::null());
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        if !steps::status(&mut apt)? {
            let advice = by_hand(&missing);
            return Err(Failure::Missing(format!(
                "apt-get failed (see above)\n{advice}"
            )));
        }
    }
    let still = self::missing(workspace);
    if still.is_empty() {
        Ok(Outcome::Passed(format!(
            "installed {}",
            packages.join(", ")
        )))
    } else {
        Err(Failure::Missing(format!(
            "apt-get succeeded, yet not everything works\n{}",
            by_hand(&still)
        )))
    }
}

/// Writes what [`NO_CLUSTER`] says, where nobody has configured it.
fn forbid_a_cluster() -> Result<(), Failure> {
    let (path, text) = (Path::new(NO_CLUSTER.0), NO_CLUSTER.1);
    if path.exists() {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        make(directory)?;
    }
    fs::write(path, text).map_err(|error| Failure::file(path, error))
}

fn missing(workspace: &Workspace) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| tool.find(workspace).is_none())
        .collect()
}

fn packages(tools: &[&Tool]) -> Vec<&'static str> {
    tools
        .iter()
        .flat_map(|tool| tool.packages)
        .copied()
        .collect()
}

/// What a person has to do, with the reason for each thing.
fn by_hand(missing: &[&Tool]) -> String {
    let needs: Vec<String> = missing
        .iter()
        .map(|tool| format!("  {}, because {}", tool.name, tool.purpose))
        .collect();
    format!(
        "the tests need what this machine does not have:\n{}\n\
         on Debian or Ubuntu: sudo apt-get install {}\n\
         then run `cargo xtask test` again",
        needs.join("\n"),
        packages(missing).join(" ")
    )
}

fn works(workspace: &Workspace, program: &str, arguments: &[&str]) -> bool {
    workspace
        .command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

fn is_root(workspace: &Workspace) -> Result<bool, Failure> {
    let id = steps::output(workspace.command("id").arg("-u"))?;
    Ok(id.is_some_and(|id| id.trim_ascii() == b"0"))
}

/// Installs the judges, or does nothing if exactly these are installed already.
pub(crate) fn judges(workspace: &Workspace) -> Result<(Judges, Outcome), Failure> {
    let base = workspace.target().join("judges");
    let (promtool, prometheus) = promtool::find(workspace, &base.join("promtool"))?;
    let judges = Judges {
        node: base.join("node"),
        python: base.join("python/bin/python"),
        promtool,
    };
    let installed = [
        node_judges(workspace, &judges.node)?,
        python_judges(workspace, &base.join("python"))?,
        prometheus,
    ];
    let place = base.display();
    let mut outcome = Outcome::Passed("installed before".into());
    for one in installed {
        match one {
            Installed::Before => {}
            Installed::Now => outcome = Outcome::Passed(format!("installed in {place}")),
            Installed::Failed(what) => {
                outcome = Outcome::Failed(what);
                break;
            }
        }
    }
    Ok((judges, outcome))
}

enum Installed {
    Before,
    Now,
    Failed(String),
}

fn node_judges(workspace: &Workspace, directory: &Path) -> Result<Installed, Failure> {
    let sources = workspace.root().join("tests/judges");
    make(directory)?;
    // The script stands beside its libraries because that is where Node looks for them; it is
    // copied on every run so that an edit counts.
    copy("verify.mjs", &sources, directory)?;
    let manifests = ["package.json", "package-lock.json", ".npmrc"];
    let stamp = Stamp::of(directory, &sources, &manifests)?;
    if stamp.is_current() && directory.join("node_modules").is_dir() {
        return Ok(Installed::Before);
    }
    stamp.clear()?;
    for manifest in manifests {
        copy(manifest, &sources, directory)?;
    }
    let mut npm = workspace.command("npm");
    npm.args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    npm.current_dir(directory).stdin(Stdio::null());
    if !steps::status(&mut npm)? {
        return Ok(Installed::Failed(
            "`npm ci` failed (see above); the npm judges are not installed".into(),
        ));
    }
    stamp.write()?;
    Ok(Installed::Now)
}

fn python_judges(workspace: &Workspace, directory: &Path) -> Result<Installed, Failure> {
    let sources = workspace.root().join("tests/judges");
    make(directory)?;
    let stamp = Stamp::of(directory, &sources, &["requirements.txt"])?;
    if stamp.is_current() && works(workspace, &interpreter(directory), &["-c", ""]) {
        return Ok(Installed::Before);
    }
    stamp.clear()?;
    let interpreter = interpreter(directory);
    let Some(python) = PYTHON.find(workspace) else {
        return Err(Failure::Missing(by_hand(&[&PYTHON])));
    };
    let mut venv = workspace.command(python);
    venv.args(["-m", "venv", "--clear"]).arg(directory);
    let mut pip = workspace.command(&interpreter);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    pip.arg(sources.join("requirements.txt"))
        .stdin(Stdio::null());
    if !(steps::status(&mut venv)? && steps::status(&mut pip)?) {
        return Ok(Installed::Failed(
            "`pip install` failed (see above); the Python judges are not installed".into(),
        ));
    }
    stamp.write()?;
    Ok(Installed::Now)
}

fn interpreter(directory: &Path) -> String {
    directory.join("bin/python").display().to_string()
}

/// Remembers in a directory from which manifests it was filled, and where it stood then: virtual
/// environments do not survive being moved.
struct Stamp {
    path: PathBuf,
    content: String,
}

impl Stamp {
    fn of(directory: &Path, sources: &Path, manifests: &[&str]) -> Result<Self, Failure> {
        let mut content = format!("{}\n", directory.display());
        for manifest in manifests {
            let path = sources.join(manifest);
            let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
            content.push_str(&text);
        }
        Ok(Self {
            path: directory.join("installed-from"),
            content,
        })
    }

    fn is_current(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|kept| kept == self.content)
    }

    /// Taken away before an installation, so that one which is interrupted is repeated.
    fn clear(&self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::file(&self.path, error))
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<(), Failure> {
        fs::write(&self.path, &self.content).map_err(|error| Failure::file(&self.path, error))
    }
}

fn make(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, error))
}

fn copy(name: &str, from: &Path, to: &Path) -> Result<(), Failure> {
    let source = from.join(name);
    fs::copy(&source, to.join(name)).map_err(|error| Failure::file(&source, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_every_package_that_is_missing() {
        let all: Vec<&Tool> = TOOLS.iter().collect();
        let advice = by_hand(&all);
        for package in [
            "gcc",
            "g++",
            "nodejs",
            "npm",
            "python3-venv",
            "chromium",
            "postgresql",
        ] {
            assert!(advice.contains(package), "{advice}");
        }
        assert!(!by_hand(&all[..1]).contains("nodejs"));
    }

    /// Rust sources below a directory.
    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// A minimal Debian has few programs (not even `kill`): what a test starts must be installed.
    #[test]
    fn every_program_that_a_test_starts_is_a_tool_or_always_there() {
        const START: &str = "Command::new(\"";
        let known = |program: &str| {
            let mut tools = TOOLS.iter().flat_map(|tool| tool.programs);
            // Every Debian has `setpriv`: it is in an essential package.
            let always = ["/bin/sh", "setpriv"].contains(&program);
            always || tools.any(|known| *known == program)
        };
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/server");
        let mut found = Vec::new();
        sources(&server.join("tests"), &mut found);
        sources(&server.join("benches"), &mut found);
        let mut started = 0;
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices(START) {
                let rest = &text[at + START.len()..];
                let program = rest.split('"').next().unwrap();
                assert!(known(program), "{}: {program}", path.display());
                started += 1;
            }
        }
        assert!(
            started > 0,
            "no test starts a program: is this still the way?"
        );
    }

    #[test]
    fn a_stamp_is_current_only_for_the_same_manifests_in_the_same_place() {
        let base = std::env::temp_dir().join(format!("hookturn-stamp-{}", std::process::id()));
        let (here, there) = (base.join("here"), base.join("there"));
        make(&here).unwrap();
        make(&there).unwrap();
        fs::write(base.join("manifest"), "one").unwrap();
        let stamp = Stamp::of(&here, &base, &["manifest"]).unwrap();
        assert!(!stamp.is_current());
        stamp.write().unwrap();
        assert!(stamp.is_current());

        fs::copy(&stamp.path, there.join("installed-from")).unwrap();
        assert!(
            !Stamp::of(&there, &base, &["manifest"])
                .unwrap()
                .is_current()
        );
        fs::write(base.join("manifest"), "two").unwrap();
        assert!(!Stamp::of(&here, &base, &["manifest"]).unwrap().is_current());

        stamp.clear().unwrap();
        stamp.clear().unwrap();
        assert!(!stamp.is_current());
        fs::remove_dir_all(base).unwrap();
    }
}
