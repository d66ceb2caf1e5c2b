//! How each kind of scenario is run.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, Endpoint};
use crate::ceiling;
use crate::fence;
use crate::fixture::{Bench, Fixture, patch_endpoints};
use crate::load::{Pace, Plan};
use crate::nodes;
use crate::number::{Error, float, median};
use crate::place::Place;
use crate::report::{Row, Starts};
use crate::rotations::Rotating;
use crate::scenario::{Kind, Scenario, Tempo, Through};
use crate::stored;
use crate::storm;

/// One read of the API at this distance, beside a mixed load.
const READ_EVERY: Duration = Duration::from_millis(50);
/// One rotation after so many reads.
const READS_PER_ROTATION: usize = 10;
/// Two ceilings of one row may differ by this share of the larger one.
const CEILING_SPREAD: f64 = 0.2;
/// A started server is looked at when it has had nothing to do for this long.
const IDLE: Duration = Duration::from_millis(500);

/// Runs a scenario that loads the server, or several.
pub(crate) async fn run(bench: &Bench, scenario: &Scenario) -> Result<Vec<Row>, Error> {
    match scenario.kind {
        Kind::Nodes => nodes::run(bench, scenario).await,
        Kind::Stored => stored::run(bench, scenario).await,
        _ => Ok(vec![one(bench, scenario).await?]),
    }
}

async fn one(bench: &Bench, scenario: &Scenario) -> Result<Row, Error> {
    match scenario.kind {
        Kind::Closed => beside_ceilings(bench, scenario, closed(bench, scenario)).await,
        Kind::Drain => beside_ceilings(bench, scenario, drain(bench, scenario)).await,
        Kind::Paced(per_second) => paced(bench, scenario, per_second).await,
        Kind::HalfOfMaximum => share_of_maximum(bench, scenario, 2).await,
        Kind::Mixed => share_of_maximum(bench, scenario, 4).await,
        Kind::Rotations(through, tempo, per_second) => {
            rotations(bench, scenario, (through, tempo), per_second).await
        }
        Kind::Storm(manner) => storm::run(bench, scenario, manner).await,
        Kind::Fence(nodes) => fence::run(bench, scenario, nodes).await,
        Kind::Start | Kind::Dashboard | Kind::Nodes | Kind::Stored | Kind::Costs => {
            Err("it is not one load".into())
        }
    }
}

/// Measures the ceiling right before and right after.
async fn beside_ceilings(
    bench: &Bench,
    scenario: &Scenario,
    run: impl Future<Output = Result<Row, Error>>,
) -> Result<Row, Error> {
    let measure = || {
        ceiling::measure(
            scenario.connections,
            scenario.payload_bytes,
            bench.effort.ceiling(),
            bench.epoch,
        )
    };
    let before = measure().await?;
    let mut row = run.await?;
    let after = measure().await?;
    if (before - after).abs() > before.max(after) * CEILING_SPREAD {
        row.notes.push(format!(
            "the ceiling went from {before:.0}/s to {after:.0}/s: the machine is not quiet, measure again"
        ));
    }
    Ok(Row {
        ceiling_per_second: Some(f64::midpoint(before, after)),
        ..row
    })
}

async fn closed(bench: &Bench, scenario: &Scenario) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let warm_up = fixture.closed(bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    let plan = fixture.closed(bench.effort.time);
    let measured = fixture.measure(&plan).await?;
    fixture.finish(measured.started, measured.row(&scenario.name))
}

async fn paced(bench: &Bench, scenario: &Scenario, per_second: u32) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let warm_up = fixture.closed(bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    // Longer where little happens: a p99 needs its samples.
    let time = bench.effort.time * if per_second < 1_000 { 3 } else { 1 };
    let plan = fixture.plan(Pace::Paced { per_second }, time);
    let measured = fixture.measure(&plan).await?;
    fixture.finish(measured.started, measured.row(&scenario.name))
}

/// Finds the maximum of this very server first, then runs at a share of it.
async fn share_of_maximum(bench: &Bench, scenario: &Scenario, part: u32) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let maximum = fixture.closed(bench.effort.warm_up() * 2);
    let maximum = fixture.measure(&maximum).await?.deliveries_per_second();
    let per_second = (maximum / f64::from(part)).clamp(1.0, 1e6);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=1,000,000"
    )]
    let pace = Pace::Paced {
        per_second: per_second as u32,
    };
    let plan = fixture.plan(pace, bench.effort.time);
    let measured = if scenario.kind == Kind::Mixed {
        fixture.measure_beside(&plan, read_and_rotate).await?
    } else {
        fixture.measure(&plan).await?
    };
    let mut row = measured.row(&scenario.name);
    row.notes.push(format!(
        "1/{part} of a maximum of {maximum:.0} deliveries/s"
    ));
    fixture.finish(measured.started, row)
}

/// Rotates over as many connections as the scenario has, while deliveries flow at a fixed rate.
async fn rotations(
    bench: &Bench,
    scenario: &Scenario,
    (through, tempo): (Through, Tempo),
    per_second: u32,
) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let endpoints = fixture.endpoints.clone();
    let rotating = match through {
        Through::Native => {
            Rotating::native(&mut fixture.api, &endpoints, scenario.connections).await?
        }
        Through::Hopae => Rotating::hopae(&mut fixture.api, scenario.connections).await?,
    };
    let warm_up = fixture.plan(Pace::Paced { per_second }, bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    let plan = fixture.plan(Pace::Paced { per_second }, bench.effort.time);
    let measured = fixture
        .measure_beside(&plan, async |api, _, _| {
            rotating.run(api.addr(), bench.epoch, tempo).await
        })
        .await?;
    let row = rotating.complete(measured.row(&scenario.name), measured.publishing);
    fixture.finish(measured.started, row)
}

/// What dashboards and rotations do while events are published.
async fn read_and_rotate(api: &mut Api, app: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
    let reads = [
        format!("/v1/apps/{app}/messages"),
        format!("/v1/apps/{app}/deliveries"),
        format!("/v1/apps/{app}/endpoints"),
        "/v1/audit".to_owned(),
    ];
    for (turn, read) in reads.iter().cycle().enumerate() {
        sleep(READ_EVERY).await;
        api.call("GET", read, &Value::Null).await?;
        if turn % READS_PER_ROTATION == 0 {
            for endpoint in endpoints {
                let path = format!("/v1/keyrings/{}/rotations", endpoint.keyring);
                api.call("POST", &path, &json!({ "mode": "immediate" }))
                    .await?;
            }
        }
    }
    Ok(())
}

async fn drain(bench: &Bench, scenario: &Scenario) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let warm_up = fixture.closed(bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    fixture
        .patch_endpoints(&json!({ "state": "paused" }))
        .await?;
    let backlog = Plan {
        // Nothing arrives while the endpoint is paused, so nothing must be waited for.
        fan_out: 0,
        max_messages: bench.effort.backlog,
        ..fixture.plan(Pace::Closed { backlog: u64::MAX }, Duration::from_mins(2))
    };
    fixture.publish(&backlog).await?;
    let measured = fixture
        .drain(async |api, app, endpoints| {
            patch_endpoints(api, app, endpoints, &json!({ "state": "enabled" })).await
        })
        .await?;
    let row = Row {
        requests_per_second: None,
        ..measured.row(&scenario.name)
    };
    fixture.finish(u64::MAX, row)
}

/// Starts the server again and again: in an empty place, and on the store that it left.
pub(crate) async fn starts(bench: &Bench) -> Result<Starts, Error> {
    let mut first = Vec::new();
    let mut again = Vec::new();
    let mut idle = Vec::new();
    let mut stops = Vec::new();
    let some = Place::make(bench).await?;
    for number in 0..bench.effort.starts {
        let place = some.beside(bench, &format!("start_{number}")).await?;
        let server = place.serve(&bench.binary)?;
        first.push(server.start_time());
        stops.push(server.stop()?);
        let server = place.serve(&bench.binary)?;
        again.push(server.start_time());
        sleep(IDLE).await;
        idle.push(server.memory()?.resident);
        stops.push(server.stop()?);
    }
    idle.sort_unstable();
    let millis = |times| median(times).map(|time: Duration| time.as_secs_f64() * 1e3);
    Ok(Starts {
        first_ms: millis(first),
        again_ms: millis(again),
        stop_ms: millis(stops),
        idle_memory_mb: idle.last().map(|bytes| float(*bytes) / 1e6),
    })
}
