//! The parts of the end-to-end bench, tested on their own: a bench that counts wrong proves nothing.
//!
//! `fake` stands for the server: it accepts, gives out ids and delivers, and it can be told to lose or
//! to repeat. The books must say exactly what it did.

#![expect(
    dead_code,
    reason = "the bench's main, which is not part of this test, uses the rest"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and the fake server is part of the tests"
)]

#[path = "../benches/end_to_end/api.rs"]
mod api;
#[path = "../benches/end_to_end/ceiling.rs"]
mod ceiling;
#[path = "../benches/end_to_end/cluster.rs"]
mod cluster;
#[path = "../benches/end_to_end/costs.rs"]
mod costs;
#[path = "../benches/end_to_end/dashboard.rs"]
mod dashboard;
#[path = "bench_parts/fake.rs"]
mod fake;
#[path = "../benches/end_to_end/fence.rs"]
mod fence;
#[path = "../benches/end_to_end/fill.rs"]
mod fill;
#[path = "../benches/end_to_end/fixture.rs"]
mod fixture;
#[path = "../benches/end_to_end/histogram.rs"]
mod histogram;
#[path = "../benches/end_to_end/http.rs"]
mod http;
#[path = "../benches/end_to_end/load.rs"]
mod load;
#[path = "../benches/end_to_end/machine.rs"]
mod machine;
#[path = "../benches/end_to_end/nodes.rs"]
mod nodes;
#[path = "../benches/end_to_end/number.rs"]
mod number;
#[path = "bench_parts/on_postgres.rs"]
mod on_postgres;
#[path = "../benches/end_to_end/pages.rs"]
mod pages;
#[path = "../benches/end_to_end/place.rs"]
mod place;
#[path = "../benches/end_to_end/process.rs"]
mod process;
#[path = "../benches/end_to_end/receiver.rs"]
mod receiver;
#[path = "../benches/end_to_end/report.rs"]
mod report;
#[path = "../benches/end_to_end/scenario.rs"]
mod scenario;
#[path = "../benches/end_to_end/shared.rs"]
mod shared;
#[path = "../benches/end_to_end/signatures.rs"]
mod signatures;
#[path = "../benches/end_to_end/stored.rs"]
mod stored;
#[path = "../benches/end_to_end/storm.rs"]
mod storm;
#[path = "../benches/end_to_end/storm_books.rs"]
mod storm_books;
#[path = "../benches/end_to_end/table.rs"]
mod table;
#[path = "../benches/end_to_end/tally.rs"]
mod tally;
#[path = "../benches/end_to_end/wire.rs"]
mod wire;

use std::path::Path;
use std::time::Duration;

use hookturn_core::id::MessageId;
use hookturn_verify::{Content, Scheme, Secret, Signer, sign};
use proptest::prelude::*;

use crate::api::{Api, make_many, payload, publish};
use crate::dashboard::{Dashboard, Page, Piece};
use crate::fake::{Fake, Faults};
use crate::histogram::Histogram;
use crate::load::{Load, Pace, Plan, Stop};
use crate::number::Epoch;
use crate::process::Stat;
use crate::receiver::Receiver;
use crate::report::{Apart, Row, Starts};
use crate::signatures::{Keys, Request, SignedBy};
use crate::storm::{Receipts, Storm};
use crate::storm_books::{Times, Windows, compare, missing};
use crate::tally::{Arrival, Published, message_id, message_ids, tally};

/// A message id that only its number tells apart.
fn id_text(number: u128) -> String {
    MessageId::from_bytes(number.to_be_bytes()).to_string()
}

proptest! {
    #[test]
    fn a_quantile_is_the_sorted_value_or_slightly_above(
        mut values in prop::collection::vec(any::<u64>(), 1..300),
        share in 1..=1_000_u64,
    ) {
        let mut histogram = Histogram::new();
        for value in &values {
            histogram.record(*value);
        }
        values.sort_unstable();
        let rank = (values.len() as u64 * share).div_ceil(1_000);
        let exact = values[usize::try_from(rank).unwrap() - 1];
        let found = u64::try_from(histogram.per_mille(share).unwrap().as_nanos()).unwrap();
        prop_assert!(exact <= found && found - exact <= exact / 64, "{exact} became {found}");
    }

    #[test]
    fn an_id_is_read_as_the_server_writes_it(number in any::<u128>()) {
        prop_assert_eq!(message_id(id_text(number).as_bytes()), Some(number));
    }

    #[test]
    fn what_is_no_id_is_none(text in "msg_[0-9a-z]{25,27}|[a-z]{2,4}_[0-9a-z]{26}|.{0,40}") {
        let ours = message_id(text.as_bytes());
        let theirs = text.parse::<MessageId>().ok();
        prop_assert_eq!(ours, theirs.map(|id| u128::from_be_bytes(id.to_bytes())));
    }

    #[test]
    fn a_payload_is_json_of_exactly_the_asked_length(bytes in 40..5_000_usize) {
        let text = payload(bytes);
        prop_assert_eq!(text.len(), bytes);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}

#[test]
fn an_empty_histogram_has_no_quantile() {
    assert_eq!(Histogram::new().per_mille(990), None);
}

#[test]
fn ids_are_found_in_both_answers() {
    let one = format!(r#"{{"id":"{}"}}"#, id_text(7));
    assert_eq!(message_ids(one.as_bytes()).collect::<Vec<_>>(), [7]);
    let two = format!(r#"{{ "ids": ["{}", "{}"] }}"#, id_text(8), id_text(9));
    assert_eq!(message_ids(two.as_bytes()).collect::<Vec<_>>(), [8, 9]);
}

#[test]
fn the_books_count_by_message_and_endpoint() {
    let mut published: Vec<Published> = [(3, 100), (1, 200), (2, 50)]
        .map(|(id, sent)| Published {
            id,
            sent,
            request: 0,
        })
        .into();
    let arrivals = [
        // Message 1 arrived at both endpoints, at the first one three times.
        (1, 0, 210),
        (1, 0, 290),
        (1, 1, 230),
        (1, 0, 300),
        // Message 2 at the first alone, sent before the measured time; message 3 nowhere.
        (2, 0, 90),
        // Nobody published message 9, and nobody has a third endpoint.
        (9, 0, 95),
        (1, 2, 300),
    ]
    .map(|(id, endpoint, at)| Arrival { id, at, endpoint });
    let books = tally(&mut published, &arrivals, 2, 100);
    assert_eq!(books.lost, 3);
    assert_eq!(books.duplicates, 2);
    assert_eq!(books.unacknowledged, 2);
    let receipt = |share| books.receipt.per_mille(share);
    assert_eq!(receipt(1), Some(Duration::from_nanos(10)));
    assert_eq!(receipt(1_000), Some(Duration::from_nanos(30)));
}

#[test]
fn a_head_is_read_when_it_is_whole() {
    let request = b"POST /3 HTTP/1.1\r\nWebhook-Id:  msg_1 \r\ncontent-length: 2\r\n\r\n{}";
    let head = request.len() - 2;
    for cut in 0..head {
        let part = http::read_head(&request[..cut], |_, _| {});
        assert_eq!(part, None, "after {cut} bytes");
    }
    let mut fields = Vec::new();
    let read = http::read_head(request, |name, value| fields.push((name, value)));
    assert_eq!(read, Some((&b"POST /3 HTTP/1.1"[..], head)));
    let expected: [(&[u8], &[u8]); 2] = [(b"Webhook-Id", b"msg_1"), (b"content-length", b"2")];
    assert_eq!(fields, expected);
}

#[test]
fn proc_files_are_read_by_their_fields() {
    let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 500 0 3 0 170 30 5 6 20 0 9 0 1000 1 2";
    let read = Stat {
        parent: 1,
        own: 200,
        ended_children: 11,
    };
    assert_eq!(Stat::read(stat), Some(read));
    assert_eq!(Stat::read("42 (a) S 1"), None);
    let mounts = "\
/dev/a / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/b /tmp/deep xfs rw 0 0
";
    let kind = |path| machine::file_system(mounts, Path::new(path));
    assert_eq!(kind("/home/x"), "ext4");
    assert_eq!(kind("/tmp/x"), "tmpfs");
    assert_eq!(kind("/tmp/deep/x"), "xfs");
}

#[test]
fn the_readiness_line_is_found_among_others() {
    let addr = |line| process::address(line).map(|addr| addr.port());
    assert_eq!(addr("listening on http://127.0.0.1:8080"), Some(8080));
    assert_eq!(
        addr("INFO listening on http://127.0.0.1:9/, store /x"),
        Some(9)
    );
    assert_eq!(addr("opening the store"), None);
}

/// Publishes against the fake and closes the books when everything it owes has arrived.
async fn run_against(faults: Faults, fan_out: u32, messages: u32, plan: Plan) -> (Load, Books) {
    let epoch = Epoch::start();
    let receiver = Receiver::start(epoch).unwrap();
    let fake = Fake::start(faults).await;
    let mut api = Api::open(fake.addr()).await.unwrap();
    let app = api.create_app().await.unwrap();
    for number in 0..fan_out {
        let url = receiver.url(number);
        api.create_endpoint(&app, &url, 8).await.unwrap();
    }
    let plan = Plan {
        addrs: [fake.addr()].into(),
        requests: [publish(fake.addr(), &app, messages, 256)].into(),
        messages: u64::from(messages),
        fan_out: u64::from(fan_out),
        ..plan
    };
    let mut load = load::run(&plan, &receiver, epoch).await.unwrap();
    fake.all_delivered().await;
    assert_eq!(receiver.strange(), 0);
    let arrivals = receiver.arrivals();
    assert_eq!(receiver.count(), arrivals.len() as u64);
    let books = tally(&mut load.published, &arrivals, fan_out, 0);
    (load, books)
}

type Books = crate::tally::Tally;

fn closed(max_messages: u64) -> Plan {
    Plan {
        addrs: [([127, 0, 0, 1], 1).into()].into(),
        requests: [].into(),
        messages: 1,
        fan_out: 1,
        connections: 8,
        pace: Pace::Closed { backlog: 100 },
        time: Duration::from_mins(1),
        max_messages,
        stop: Stop::default(),
    }
}

#[tokio::test]
async fn a_faultless_server_loses_and_repeats_nothing() {
    let (load, books) = run_against(Faults::default(), 1, 1, closed(2_000)).await;
    assert_eq!((load.accepted, load.refused, load.broken), (2_000, 0, 0));
    assert_eq!(load.published.len(), 2_000);
    assert!(load.accept.per_mille(500).is_some());
    assert!(books.receipt.per_mille(500).is_some());
    assert_eq!(
        (books.lost, books.duplicates, books.unacknowledged),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn batches_and_fan_out_are_counted_by_delivery() {
    let (load, books) = run_against(Faults::default(), 3, 100, closed(2_000)).await;
    assert_eq!(load.accepted, 20);
    assert_eq!(load.published.len(), 2_000);
    assert_eq!(
        (books.lost, books.duplicates, books.unacknowledged),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn every_loss_repetition_and_refusal_is_counted() {
    let faults = Faults {
        lost: Some(10),
        repeated: Some(25),
        refused: Some(100),
    };
    // 1,010 requests are 1,000 accepted ones; losses hold the backlog, which is wide enough.
    let plan = Plan {
        pace: Pace::Closed { backlog: 10_000 },
        ..closed(1_010)
    };
    let (load, books) = run_against(faults, 1, 1, plan).await;
    assert_eq!((load.accepted, load.refused), (1_000, 10));
    assert!(load.refusal.unwrap().starts_with("503: "));
    assert_eq!(books.lost, 100);
    // Deliveries 25, 75, … are repeated; every second of them, 50, 100, … is lost instead.
    assert_eq!(books.duplicates, 20);
}

#[tokio::test]
async fn a_paced_load_sends_exactly_what_is_due() {
    let plan = Plan {
        pace: Pace::Paced { per_second: 2_000 },
        time: Duration::from_millis(200),
        ..closed(u64::MAX)
    };
    let (load, books) = run_against(Faults::default(), 1, 1, plan).await;
    assert_eq!(load.accepted, 400);
    // The last one is due one period before the end.
    assert!(load.answered - load.started >= 199_000_000);
    assert_eq!((books.lost, books.duplicates), (0, 0));
}

#[tokio::test]
async fn the_ceiling_is_measured_with_signed_requests() {
    let rate = ceiling::measure(4, 256, Duration::from_millis(100), Epoch::start())
        .await
        .unwrap();
    assert!(rate > 100.0, "{rate} requests/s");
}

fn storm() -> Storm {
    let receipts = |p99| Receipts {
        second_p99_ms: None,
        messages: 25_000,
        p50_ms: Some(1.5),
        p99_ms: Some(p99),
    };
    Storm {
        mode: "overlap",
        endpoints: 10_000,
        rotated: 9_998,
        per_second: 1_000,
        bulk_seconds: 25.0,
        before: receipts(5.0),
        during: receipts(6.0),
        after: receipts(4.0),
        beside: receipts(5.0),
        ..Storm::default()
    }
}

fn dashboard() -> Dashboard {
    let page = |name: &str, p99_ms| Page {
        name: name.to_owned(),
        bytes: 55_000,
        first_ms: p99_ms,
        p50_ms: 2.0,
        p99_ms,
        cpu_ms: 1.5,
        loads: 25,
    };
    let piece = |name: &str, bytes| Piece {
        name: name.to_owned(),
        bytes,
    };
    Dashboard {
        deliveries: 1_000_000,
        apps: 1_000,
        filled_seconds: 30.0,
        store_mb: 600.0,
        start_ms: 70.0,
        first_load: vec![piece("sign-in", 900), piece("overview", 59_100)],
        pages: vec![page("overview", 3.0), page("deliveries", 100.1)],
        peak_memory_mb: 80.0,
    }
}

/// A request signed with these secrets, in order, over a body that may be another one than arrives.
fn signed(secrets: &[&str], body: &str) -> Request {
    let secrets = secrets.iter().map(|text| Secret::parse(text).unwrap());
    let signers: Vec<Signer> = secrets
        .map(|secret| Signer::new(Scheme::Standard, &secret).unwrap())
        .collect();
    let content = Content {
        id: "msg_1",
        timestamp: 1_784_505_600,
        method: "POST",
        url: "",
        body: body.as_bytes(),
    };
    let all: Vec<&Signer> = signers.iter().collect();
    let signature = sign(Scheme::Standard, &all, &content).unwrap();
    Request {
        id: b"msg_1".to_vec().into(),
        timestamp: b"1784505600".to_vec().into(),
        signature: signature.into_bytes().into(),
        body: b"{}".to_vec().into(),
    }
}

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn a_signature_counts_if_its_secret_may_sign_and_the_body_is_what_arrived() {
    let keys = Keys::new(OLD, NEW).unwrap();
    let judged = |request: &Request| [false, true].map(|retired| keys.signed(request, retired));
    let (old, new) = (Some(SignedBy::Old), Some(SignedBy::New));
    assert_eq!(judged(&signed(&[OLD], "{}")), [old, None]);
    assert_eq!(judged(&signed(&[NEW], "{}")), [new, new]);
    assert_eq!(judged(&signed(&[OLD, NEW], "{}"))[1], new);
    assert_eq!(judged(&signed(&[OTHER], "{}")), [None, None]);
    assert_eq!(judged(&signed(&[NEW], "[]")), [None, None]);
    let unsigned = Request {
        signature: b"".to_vec().into(),
        ..signed(&[NEW], "{}")
    };
    assert_eq!(judged(&unsigned), [None, None]);
}

#[test]
fn a_storm_is_judged_by_message_endpoint_signature_and_window() {
    let sent = [5, 15, 25, 35, 45, 26];
    let mut published: Vec<Published> = (1..)
        .zip(sent)
        .map(|(id, sent)| Published {
            id,
            sent,
            // Messages 1, 3 and 5 are for endpoint 0, the others for endpoint 1.
            request: usize::from(id % 2 == 0),
        })
        .collect();
    let arrivals = [
        (1, 0, 8, NEW),
        (2, 1, 19, OLD),
        (2, 1, 20, OLD),
        (3, 0, 31, NEW),
        // Message 4 was sent when no old secret might sign any more.
        (4, 1, 37, OLD),
        // Message 5 went to another endpoint, message 6 nowhere; nobody published message 9.
        (5, 1, 46, OTHER),
        (9, 0, 46, NEW),
    ];
    let requests = arrivals.map(|(_, _, _, secret)| signed(&[secret], "{}"));
    let arrivals = arrivals.map(|(id, endpoint, at, _)| Arrival { id, at, endpoint });
    let keys = [OLD, OLD].map(|old| Keys::new(old, NEW).unwrap());
    let windows = Windows {
        before: 0..20,
        during: 20..30,
        after: 30..40,
    };
    let books = compare(
        &mut published,
        &arrivals,
        &requests,
        &keys,
        &windows,
        Some(30),
    );
    assert_eq!(
        (books.lost, books.duplicates, books.unacknowledged),
        (2, 1, 2)
    );
    assert_eq!((books.unsigned, books.by_old, books.by_new), (2, 2, 3));
    let counted = [&books.before, &books.during, &books.after].map(|times| times.all().total());
    assert_eq!(counted, [2, 1, 1]);
    assert_eq!(books.beside.all().total(), 3);
    let took = books.during.all().per_mille(1_000);
    assert_eq!(took, Some(Duration::from_nanos(6)));
    assert_eq!(missing(&mut published, &arrivals), 2);
}

#[test]
fn a_stall_decides_its_own_second_and_not_the_median_one() {
    const SECOND: u64 = 1_000_000_000;
    let mut times = Times::default();
    for (second, took) in [(7, 3), (8, 90_000), (9, 2)] {
        for message in 0..10 {
            times.record(second * SECOND + message, took);
        }
    }
    assert_eq!(times.all().per_mille(990), Some(Duration::from_micros(90)));
    assert_eq!(times.median_second(990), Some(Duration::from_nanos(3)));
    assert_eq!(Times::default().median_second(990), None);
}

#[test]
fn a_page_names_its_files_and_an_answer_its_cookie() {
    let html =
        br#"<link href="assets/a.css"><script src="assets/b.js"></script><a href="assets/a.css">"#;
    assert_eq!(pages::assets(html), ["assets/a.css", "assets/b.js"]);
    assert!(pages::assets(b"<p>assets/none</p>").is_empty());
    let head = b"HTTP/1.1 303 See Other\r\nSet-Cookie: name=value; Path=/; HttpOnly\r\n\r\n";
    assert_eq!(pages::cookie(head).as_deref(), Some("name=value"));
    assert_eq!(pages::cookie(b"HTTP/1.1 200 OK\r\n\r\n"), None);
}

#[tokio::test]
async fn many_things_are_made_in_order_over_few_connections() {
    let fake = Fake::start(Faults::default()).await;
    let made = make_many(fake.addr(), 10, 3, async |api, number| {
        api.create_app().await?;
        Ok(number)
    });
    assert_eq!(made.await.unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_take_turns_until_the_load_is_told_to_stop() {
    let epoch = Epoch::start();
    let receiver = Receiver::keeping(epoch).unwrap();
    let fake = Fake::start(Faults::default()).await;
    let mut api = Api::open(fake.addr()).await.unwrap();
    let app = api.create_app().await.unwrap();
    api.create_endpoint(&app, &receiver.url(0), 8)
        .await
        .unwrap();
    let request = || publish(fake.addr(), &app, 1, 256);
    let plan = Plan {
        addrs: [fake.addr()].into(),
        requests: [request(), request(), request()].into(),
        pace: Pace::Paced { per_second: 1_000 },
        ..closed(u64::MAX)
    };
    let enough = async {
        while receiver.count() < 30 {
            tokio::task::yield_now().await;
        }
        plan.stop.now();
    };
    let (load, ()) = tokio::join!(load::run(&plan, &receiver, epoch), enough);
    let load = load.unwrap();
    fake.all_delivered().await;
    // Its time is a minute.
    assert!(load.accepted >= 30 && load.accepted < 60_000);
    let turns = |turn: usize| {
        let all = load.published.iter();
        all.filter(|message| message.request == turn).count()
    };
    let turns = [0, 1, 2].map(turns);
    assert!(
        turns[0] - turns[2] <= 1 && turns[0] >= turns[1],
        "{turns:?}"
    );
    assert_eq!(receiver.take_kept().len(), load.published.len());
}

fn a_machine() -> machine::Machine {
    machine::Machine {
        date: "2026-11-21T00:00:00Z".to_owned(),
        version: "0.1.0",
        processor: "a processor".to_owned(),
        cores: 2,
        kernel: "6".to_owned(),
        file_system: "ext4".to_owned(),
        sync_median_micros: 100,
        sync_p99_micros: 400,
        load_average: "0 0 0".to_owned(),
    }
}

#[test]
fn targets_are_judged_by_the_rows_they_name() {
    let row = Row {
        deliveries_per_second: Some(12_000.0),
        ceiling_per_second: Some(100_000.0),
        cpu_seconds_per_10k: Some(0.91),
        lost: Some(0),
        duplicates: Some(1),
        ..Row::named(scenario::SINGLE)
    };
    let rotations = Row {
        rotations_per_second: Some(500.0),
        rotation_p99_ms: Some(50.1),
        ..Row::named(scenario::ROTATIONS)
    };
    let paced = Row {
        scenario: scenario::ROTATIONS_PACED.to_owned(),
        ..rotations.clone()
    };
    let starts = Starts {
        first_ms: Some(40.0),
        again_ms: Some(101.0),
        stop_ms: Some(5.0),
        idle_memory_mb: Some(29.9),
    };
    let dialect = Row {
        rotations_per_second: Some(499.9),
        rotation_p99_ms: Some(50.0),
        ..Row::named(scenario::ROTATIONS_HOPAE_PACED)
    };
    let storm = Row {
        storm: Some(storm()),
        ..Row::named(scenario::STORM)
    };
    let apart = Apart {
        starts: Some(starts),
        dashboard: Some(dashboard()),
        ..Apart::default()
    };
    let report = report::Report::new(
        a_machine(),
        apart,
        vec![row, rotations, paced, dialect, storm],
    );
    let passed: Vec<Option<bool>> = report.targets.iter().map(|target| target.passed).collect();
    assert_eq!(
        passed,
        [
            Some(true),
            None,
            Some(false),
            None,
            Some(true),
            Some(true),
            Some(false),
            Some(false),
            Some(true),
            Some(true),
            Some(false),
            // The storm left two keyrings, took 1.2 times as long, and signed everything.
            Some(false),
            Some(true),
            Some(true),
            None,
            None,
            None,
            Some(true),
            Some(false),
            Some(true),
            Some(false)
        ]
    );
    assert!(report.missed() && !report.failed());
    insta::assert_snapshot!(report::text(&report));
}
