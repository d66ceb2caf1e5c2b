//! What the run stands on: processor, kernel, file system, and how long the disk takes to sync.

use std::fmt;
use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::Clock;
use serde::Serialize;
use tokio::time::Instant;

use crate::number::Error;

const SYNCS: usize = 200;
/// What a small commit writes.
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// The header of a report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) version: &'static str,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) sync_median_micros: u64,
    pub(crate) sync_p99_micros: u64,
    pub(crate) load_average: String,
}

impl Machine {
    /// Looks at the machine and writes a small file below `dir` to time the disk.
    pub(crate) fn look(dir: &Path) -> Result<Self, Error> {
        let mut syncs = time_syncs(dir)?;
        syncs.sort_unstable();
        let now = jiff::Timestamp::from_millisecond(SystemClock.now().as_millis())?;
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mounts = read_to_string("/proc/self/mounts").unwrap_or_default();
        let averages = read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            date: format!("{now:.0}"),
            version: env!("CARGO_PKG_VERSION"),
            processor: processor(&cpuinfo),
            cores: std::thread::available_parallelism()?.get(),
            kernel: read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system: file_system(&mounts, &dir.canonicalize()?),
            sync_median_micros: micros(syncs[SYNCS / 2]),
            sync_p99_micros: micros(syncs[SYNCS * 99 / 100]),
            load_average: averages.split(' ').take(3).collect::<Vec<_>>().join(" "),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hookturn {} end to end, {}", self.version, self.date)?;
        writeln!(
            f,
            "{}, {} cores, Linux {}, load average {}",
            self.processor, self.cores, self.kernel, self.load_average
        )?;
        writeln!(
            f,
            "{}; one sync of 4 KiB: median {} us, p99 {} us ({SYNCS} syncs)",
            self.file_system, self.sync_median_micros, self.sync_p99_micros
        )
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn time_syncs(dir: &Path) -> Result<Vec<Duration>, Error> {
    let path = dir.join("sync-time");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&BLOCK)?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(times)
}

fn processor(cpuinfo: &str) -> String {
    let name = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'));
    match name {
        Some((_, name)) => name.trim().to_owned(),
        None => std::env::consts::ARCH.to_owned(),
    }
}

/// The type of the file system that holds the path: the one mounted closest above it.
pub(crate) fn file_system(mounts: &str, path: &Path) -> String {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((Path::new(fields.next()?), fields.next()?))
        })
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}
