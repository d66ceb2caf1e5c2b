//! How long a page of a search takes in a large store. Not run by default: it fills one.

use std::time::Duration;

use hookturn::store::conformance::world::{START, World, accepted, finished};
use hookturn_core::delivery::{CodeClass, DeliveryStatus, ExhaustedReason, Next};
use hookturn_core::limits;
use hookturn_core::message::EventType;
use hookturn_core::store::{Accept, DeliverySearch, SearchFrom, Store};
use tokio::time::Instant;

use super::engine::Sqlite;

/// Deliveries in the store.
const ROWS: usize = 1_000_000;
/// Of them pending, the newest ones.
const PENDING: usize = 20_000;
/// Deliveries stored together.
const BLOCK: usize = 5_000;
/// Longest time that a page may take.
const LONGEST: Duration = Duration::from_millis(100);

async fn took(store: &dyn Store, search: &DeliverySearch) -> (Duration, usize, bool) {
    let mut best = (Duration::MAX, 0, false);
    for _ in 0..5 {
        let begun = Instant::now();
        let found = store.search(search.clone()).await.unwrap();
        let took = begun.elapsed();
        if took < best.0 {
            best = (took, found.items.len(), found.resume.is_some());
        }
    }
    best
}

#[tokio::test]
#[ignore = "fills a store with a million deliveries, which takes minutes"]
async fn every_page_of_a_large_store_is_found_within_a_tenth_of_a_second() {
    let world = World::new(&Sqlite).await;
    let tenant = world.tenant("acme").await;
    let mut middle = None;
    for block in 0..ROWS / BLOCK {
        let messages: Vec<_> = (0..BLOCK)
            .map(|index| {
                let number = block * BLOCK + index;
                // One of a hundred thousand goes to the second endpoint, one of a thousand is odd.
                let to = &tenant.endpoints[usize::from(number.is_multiple_of(100_000))];
                let event_type = if number.is_multiple_of(1_000) {
                    "odd"
                } else {
                    "even"
                };
                let at = START.after(number as u64 / 10);
                world.message(&tenant.app, at, event_type, 256, &[to])
            })
            .collect();
        let rows: Vec<_> = messages.iter().flat_map(accepted).collect();
        if block == ROWS / BLOCK / 2 {
            middle = rows.first().map(|due| due.delivery);
        }
        let accept = Accept {
            messages,
            idempotency: None,
        };
        world.store().accept(accept).await.unwrap();
        if block * BLOCK >= ROWS - PENDING {
            continue;
        }
        let finish = |(index, due)| match index % 1_000 {
            0 => finished(due, 503, Next::Exhausted(ExhaustedReason::AttemptsUsed)),
            _ => finished(due, 200, Next::Delivered),
        };
        world
            .finish(rows.iter().enumerate().map(finish).collect())
            .await;
    }
    let all = DeliverySearch {
        workspace: tenant.workspace.id,
        app: None,
        status: None,
        class: None,
        endpoint: None,
        event_type: None,
        message: None,
        delivery: None,
        since: None,
        until: None,
        text: None,
        from: SearchFrom::Newest,
        limit: 51,
        effort: limits::SEARCH_EFFORT,
        with_attempts: true,
    };
    let middle = SearchFrom::OlderThan(middle.unwrap());
    let rare = EventType::new("odd").unwrap();
    let with = |change: &dyn Fn(&mut DeliverySearch)| {
        let mut search = all.clone();
        change(&mut search);
        search
    };
    let cases = [
        ("newest", all.clone()),
        ("from the middle", with(&|s| s.from = middle)),
        (
            "delivered",
            with(&|s| s.status = Some(DeliveryStatus::Delivered)),
        ),
        (
            "exhausted",
            with(&|s| s.status = Some(DeliveryStatus::Exhausted)),
        ),
        (
            "pending",
            with(&|s| s.status = Some(DeliveryStatus::Pending)),
        ),
        ("a rare type", with(&|s| s.event_type = Some(rare.clone()))),
        (
            "a rare endpoint",
            with(&|s| s.endpoint = Some(tenant.endpoints[1].id)),
        ),
        (
            "a rare code",
            with(&|s| (s.class, s.from) = (Some(CodeClass::Failed), middle)),
        ),
        (
            "a text that is nowhere",
            with(&|s| (s.text, s.from) = (Some("x".into()), middle)),
        ),
    ];
    for (name, search) in cases {
        let (took, found, goes_on) = took(world.store().as_ref(), &search).await;
        println!("{name}: {took:?}, {found} found, more to look at: {goes_on}");
        assert!(took < LONGEST, "{name}: {took:?}");
    }
}
