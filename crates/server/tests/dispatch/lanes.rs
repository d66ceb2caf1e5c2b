//! G10: however many endpoints there are, what a shard has open is bounded, for healthy receivers and
//! for those under suspicion apart.

use hookturn::service::endpoints::NewEndpoint;
use hookturn_core::id::ClientId;
use hookturn_core::limits::ENDPOINTS_PER_APP;
use hookturn_core::time::MINUTE;

use crate::delivering::retrying;
use crate::receiver::{Receiver, gated, status};
use crate::rig::{Marker, Rig};

/// Exchanges that all healthy endpoints of a shard, and all suspects, may have open together.
const HEALTHY: usize = 2_048;
const SUSPECT: usize = 512;
/// What an endpoint may have open before it has answered, and after it has failed once.
const FIRST_WINDOW: usize = 4;
const WINDOW_AFTER_FAILURE: usize = 2;

/// Each exchange has a file at both ends, and both are in this process.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let files = limit.maximum.unwrap_or(u64::MAX);
    assert!(files > 3 * HEALTHY as u64, "at most {files} open files");
}

/// More endpoints than fill a lane with this window, in as many apps as that takes.
async fn crowd(rig: &Rig, url: &str, lane: usize, window: usize) -> Vec<ClientId> {
    let mut apps = Vec::new();
    for _ in 0..=lane / window / ENDPOINTS_PER_APP {
        let app = rig.new_app().await;
        for _ in 0..ENDPOINTS_PER_APP {
            let endpoint = NewEndpoint {
                // Longer than the test waits for anything.
                timeout_millis: Some(MINUTE),
                ..retrying(url.to_owned(), &[])
            };
            rig.endpoint_in(app, endpoint).await;
        }
        apps.push(app);
    }
    assert!(apps.len() * ENDPOINTS_PER_APP * window > lane);
    apps
}

async fn publish_to_each(rig: &Rig, apps: &[ClientId], messages: usize) {
    for _ in 0..messages {
        for app in apps {
            rig.publish_to(*app, "{}").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_healthy_endpoints_together_have_2048_exchanges_open() {
    raise_file_limit();
    let mut rig = Rig::new().await;
    // A suspect is served beside the full lane: when it got its message, the shard has looked at all.
    let mut suspect = Receiver::new(&rig.clock, |seen| {
        status(if seen.number == 0 { 500 } else { 200 })
    })
    .await;
    let beside = rig.new_app().await;
    rig.endpoint_in(beside, retrying(suspect.url(), &[])).await;
    rig.publish_to(beside, "{}").await;
    suspect.next().await;
    rig.until_nothing_is_due().await;

    let mut receiver = Receiver::new(&rig.clock, |_| gated(200)).await;
    let apps = crowd(&rig, &receiver.url(), HEALTHY, FIRST_WINDOW).await;
    publish_to_each(&rig, &apps, FIRST_WINDOW).await;
    receiver.take(HEALTHY).await;
    rig.publish_to(beside, "{}").await;
    suspect.next().await;
    assert_eq!(receiver.rest().len(), 0);
    receiver.open_gate();
    rig.until_nothing_is_due().await;
    assert_eq!(receiver.most_open(), HEALTHY);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_suspects_together_have_512_exchanges_open() {
    raise_file_limit();
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    let apps = crowd(&rig, &receiver.url(), SUSPECT, WINDOW_AFTER_FAILURE).await;
    publish_to_each(&rig, &apps, 1).await;
    rig.until_nothing_is_due().await;
    receiver.rest();

    receiver.answer(|_| gated(200));
    publish_to_each(&rig, &apps, WINDOW_AFTER_FAILURE).await;
    receiver.take(SUSPECT).await;
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0);
    receiver.open_gate();
    rig.until_nothing_is_due().await;
    assert_eq!(receiver.most_open(), SUSPECT);
    rig.stop().await;
}
