//! The dashboard over a large store: how much its first load weighs, and how long each list takes.
//!
//! The store is filled while no server runs; then the real binary is started on it and a browser without
//! scripts loads every page again and again. The first load of each page, with cold caches, counts like the
//! others. Times are from the request to the last byte of the answer, on loopback.

use std::time::Duration;

use bytes::Bytes;
use hookturn::ui::frame::Part;
use hookturn_core::time::{DAY, HOUR};
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::api::{make_many, payload};
use crate::fill::{COMMON_TYPE, Filled, RARE_TYPE, fill};
use crate::fixture::{Bench, store_dir};
use crate::histogram::Histogram;
use crate::number::Error;
use crate::pages::Browser;
use crate::process::Server;
use crate::scenario::Scenario;

const SETTERS: u32 = 32;
/// Nothing is sent to it; discard, and a port that nothing listens on.
const NOWHERE: &str = "http://127.0.0.1:9/";
/// Loads of each page.
const LOADS: u32 = 25;

/// What the pages came to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dashboard {
    pub(crate) deliveries: u64,
    pub(crate) apps: u32,
    pub(crate) filled_seconds: f64,
    pub(crate) store_mb: f64,
    /// From starting on the filled store to being ready.
    pub(crate) start_ms: f64,
    pub(crate) first_load: Vec<Piece>,
    pub(crate) pages: Vec<Page>,
    pub(crate) peak_memory_mb: f64,
}

/// A part of the first load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) bytes: usize,
}

/// One page, loaded again and again.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) bytes: usize,
    pub(crate) first_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time of the server for each load: what another program at work does not change.
    pub(crate) cpu_ms: f64,
    pub(crate) loads: u32,
}

impl Dashboard {
    /// Everything that a browser loads before somebody sees the overview for the first time.
    pub(crate) fn first_load_bytes(&self) -> usize {
        self.first_load.iter().map(|piece| piece.bytes).sum()
    }

    /// The page with the longest p99.
    pub(crate) fn slowest(&self) -> Option<&Page> {
        let pages = self.pages.iter();
        pages.max_by(|one, other| one.p99_ms.total_cmp(&other.p99_ms))
    }
}

/// Fills a store and loads its pages.
pub(crate) async fn run(bench: &Bench, scenario: &Scenario) -> Result<Dashboard, Error> {
    let store = store_dir(&bench.dir)?;
    let deliveries = bench.effort.deliveries;
    let apps = u32::try_from(deliveries / 10).unwrap_or(u32::MAX);
    let apps = bench.effort.apps.min(apps).max(1);
    let (large_app, paused) = set_up(bench, &store, apps).await?;
    let began = Instant::now();
    let database = store.path().join(hookturn::app::DATABASE);
    let body = Bytes::from(payload(scenario.payload_bytes));
    let filled = fill(&database, (&large_app, &paused), body, deliveries).await?;
    let filled_seconds = began.elapsed().as_secs_f64();
    let store_bytes = std::fs::metadata(&database)?.len();
    let server = Server::start(&bench.binary, store.path())?;
    let mut browser = Browser::open(server.addr(), bench.epoch).await?;
    let first_load = first_load(&mut browser).await?;
    let mut pages = Vec::new();
    for (name, path) in asked(&filled) {
        pages.push(load(&mut browser, &server, &name, &path).await?);
    }
    let dashboard = Dashboard {
        deliveries,
        apps,
        filled_seconds,
        store_mb: crate::number::float(store_bytes) / 1e6,
        start_ms: millis(server.start_time()),
        first_load,
        pages,
        peak_memory_mb: crate::number::float(server.memory()?.peak) / 1e6,
    };
    server.stop()?;
    Ok(dashboard)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Makes the apps and endpoints with a server that is stopped again. Returns the large app and the endpoint
/// that is paused.
async fn set_up(bench: &Bench, store: &TempDir, apps: u32) -> Result<(String, String), Error> {
    let server = Server::start(&bench.binary, store.path())?;
    let made = make_many(server.addr(), apps, SETTERS, async |api, number| {
        let app = api.create_app().await?;
        api.create_endpoint(&app, NOWHERE, 1).await?;
        if number > 0 {
            return Ok((app, None));
        }
        let paused = api.create_endpoint(&app, NOWHERE, 1).await?.id;
        let path = format!("/v1/apps/{app}/endpoints/{paused}");
        api.call("PATCH", &path, &json!({ "state": "paused" }))
            .await?;
        Ok((app, Some(paused)))
    })
    .await?;
    server.stop()?;
    let large = made
        .into_iter()
        .find_map(|(app, paused)| Some((app, paused?)));
    large.ok_or_else(|| "the large app was not made".into())
}

/// Signs in as somebody does who was never here: the page that asks for the key, all files, the overview.
async fn first_load(browser: &mut Browser) -> Result<Vec<Piece>, Error> {
    let piece = |name: &str, bytes| Piece {
        name: name.to_owned(),
        bytes,
    };
    let sign_in = browser.get("/sign-in").await?;
    browser.sign_in().await?;
    let overview = browser.get("/").await?;
    let mut assets = sign_in.assets;
    for asset in overview.assets {
        if !assets.contains(&asset) {
            assets.push(asset);
        }
    }
    if assets.is_empty() {
        return Err("the pages name no file: the bench does not understand them".into());
    }
    let mut pieces = vec![
        piece("sign-in", sign_in.bytes),
        piece("overview", overview.bytes),
    ];
    for asset in assets {
        let loaded = browser.get(&format!("/{asset}")).await?;
        pieces.push(piece(&asset, loaded.bytes));
    }
    Ok(pieces)
}

/// Every list, as it is and with each of its filters, and the pages that a list leads to.
fn asked(filled: &Filled) -> Vec<(String, String)> {
    let Filled {
        large_app,
        busy,
        paused,
        small_app,
        middle: (delivery, message),
        middle_at,
    } = filled;
    let lists = Part::ALL.iter().map(|(_, path, word)| {
        let path = path.trim_start_matches("./");
        (word.to_lowercase(), format!("/{path}"))
    });
    let day = format!("since={}&until={}", middle_at.before(DAY), middle_at);
    let hour = middle_at.before(HOUR);
    let filters = [
        ("status pending", "status=pending".to_owned()),
        ("status delivered", "status=delivered".to_owned()),
        ("status exhausted", "status=exhausted".to_owned()),
        ("a common type", format!("type={COMMON_TYPE}")),
        ("a rare type", format!("type={RARE_TYPE}")),
        ("the large app", format!("app={large_app}")),
        ("a small app", format!("app={small_app}")),
        ("a busy endpoint", format!("endpoint={busy}")),
        (
            "a rare endpoint, delivered",
            format!("endpoint={paused}&status=delivered"),
        ),
        ("last answer 5xx", "class=5xx".to_owned()),
        ("no answer", "class=none".to_owned()),
        ("a day", day.clone()),
        (
            "before an hour, exhausted",
            format!("until={hour}&status=exhausted"),
        ),
        (
            "all filters",
            format!(
                "{day}&app={large_app}&endpoint={busy}&type={COMMON_TYPE}&status=exhausted&class=5xx"
            ),
        ),
        ("from the middle", format!("before={delivery}")),
        ("newer than the middle", format!("after={delivery}")),
        ("one message", format!("id={message}")),
        ("a text that is everywhere", "text=ord_20417".to_owned()),
        ("a text that is nowhere", "text=nowhere".to_owned()),
    ];
    let filters = filters.into_iter().map(|(name, query)| {
        (
            format!("deliveries, {name}"),
            format!("/deliveries?{query}"),
        )
    });
    let others = [
        ("a delivery", format!("/deliveries/{delivery}")),
        ("an app", format!("/apps/{large_app}")),
        ("an endpoint", format!("/apps/{large_app}/endpoints/{busy}")),
        (
            "audit, one action",
            "/audit?action=endpoint.created".to_owned(),
        ),
        ("audit, nobody", "/audit?subject=nobody".to_owned()),
    ];
    let others = others
        .into_iter()
        .map(|(name, path)| (name.to_owned(), path));
    lists.chain(filters).chain(others).collect()
}

async fn load(
    browser: &mut Browser,
    server: &Server,
    name: &str,
    path: &str,
) -> Result<Page, Error> {
    let mut times = Histogram::new();
    let before = server.cpu()?;
    let mut page = Page {
        name: name.to_owned(),
        loads: LOADS,
        ..Page::default()
    };
    for turn in 0..LOADS {
        let loaded = browser.get(path).await?;
        times.record(loaded.took);
        page.bytes = page.bytes.max(loaded.bytes);
        if turn == 0 {
            page.first_ms = millis(Duration::from_nanos(loaded.took));
        }
    }
    let share = |share| times.per_mille(share).map(millis).unwrap_or_default();
    page.cpu_ms = millis(server.cpu()?.saturating_sub(before) / LOADS);
    (page.p50_ms, page.p99_ms) = (share(500), share(990));
    Ok(page)
}
