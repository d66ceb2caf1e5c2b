//! Lists and pages.

use std::sync::Arc;

use hookturn_core::delivery::{CodeClass, Delivery, DeliveryStatus, ExhaustedReason, Next};
use hookturn_core::id::{DeliveryId, MessageId};
use hookturn_core::message::EventType;
use hookturn_core::store::{
    Accept, Change, DeliveryQuery, DeliverySearch, Due, DueQuery, Page, SearchFrom, Write,
};
use hookturn_core::time::Timestamp;
use tokio::sync::Semaphore;

use super::Engine;
use super::world::{START, Tenant, World, accepted, all_of, finished};

/// Forty deliveries of two endpoints and two types, one third of each status; newest first.
async fn mixed<E: Engine>(world: &World<'_, E>, tenant: &Tenant) -> Vec<(Due, DeliveryStatus)> {
    let [one, two] = &tenant.endpoints;
    let mut all = Vec::new();
    for index in 0..20_u64 {
        let event_type = if index % 2 == 0 { "even" } else { "odd" };
        let at = START.after(index / 2);
        let new = world.message(&tenant.app, at, event_type, 8, &[one, two]);
        world.accept(new.clone()).await;
        all.extend(accepted(&new));
    }
    let mut stored = Vec::new();
    for (index, due) in all.into_iter().enumerate() {
        let (status, next) = match index % 3 {
            0 => (DeliveryStatus::Pending, None),
            1 => (DeliveryStatus::Delivered, Some(Next::Delivered)),
            _ => {
                let reason = ExhaustedReason::AttemptsUsed;
                (DeliveryStatus::Exhausted, Some(Next::Exhausted(reason)))
            }
        };
        if let Some(next) = next {
            world.finish(vec![finished(&due, 200, next)]).await;
        }
        stored.push((due, status));
    }
    stored.sort_by_key(|(due, _)| std::cmp::Reverse(due.delivery));
    stored
}

fn matches(query: &DeliveryQuery, due: &Due, status: DeliveryStatus) -> bool {
    query.status.is_none_or(|only| only == status)
        && query.endpoint.is_none_or(|only| only == due.endpoint)
        && query.message.is_none_or(|only| only == due.message.id)
        && query.since.is_none_or(|since| due.due_at >= since)
        && query.until.is_none_or(|until| due.due_at < until)
        && query
            .event_type
            .as_ref()
            .is_none_or(|only| *only == due.message.event_type)
}

/// Every filter, alone and with every other, selects exactly what it names.
pub async fn deliveries_are_filtered_by_everything_together(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let stored = mixed(&world, &tenant).await;
    let statuses = [
        None,
        Some(DeliveryStatus::Pending),
        Some(DeliveryStatus::Delivered),
        Some(DeliveryStatus::Exhausted),
    ];
    for (case, status) in (0..64).flat_map(|case| statuses.map(|status| (case, status))) {
        let chosen = |bit: u32| case >> bit & 1 == 1;
        let query = DeliveryQuery {
            status,
            endpoint: chosen(0).then_some(tenant.endpoints[1].id),
            event_type: chosen(1).then(|| EventType::new("odd").unwrap()),
            message: chosen(2).then_some(stored[9].0.message.id),
            since: chosen(3).then_some(START.after(3)),
            until: chosen(4).then_some(START.after(8)),
            page: Page {
                before: chosen(5).then_some(stored[4].0.delivery),
                limit: 100,
            },
            ..all_of(&tenant.app)
        };
        let found = world.store().deliveries(query.clone()).await.unwrap();
        let found: Vec<_> = found.iter().map(|d| (d.id, d.state.status())).collect();
        let expected: Vec<_> = stored
            .iter()
            .filter(|(due, status)| matches(&query, due, *status))
            .filter(|(due, _)| query.page.before.is_none_or(|before| due.delivery < before))
            .map(|(due, status)| (due.delivery, *status))
            .collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let unknown = DeliveryQuery {
        event_type: Some(EventType::new("never.published").unwrap()),
        ..all_of(&tenant.app)
    };
    assert!(world.store().deliveries(unknown).await.unwrap().is_empty());
}

/// Pages of every size put together are the whole list.
pub async fn pages_of_pending_and_settled_deliveries_have_no_gap_and_no_repeat(
    engine: &impl Engine,
) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let stored = mixed(&world, &tenant).await;
    for limit in [1, 3, 7, 40] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let query = DeliveryQuery {
                page: Page { before, limit },
                ..all_of(&tenant.app)
            };
            let page: Vec<Delivery> = world.store().deliveries(query).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            seen.extend(page.iter().map(|delivery| delivery.id));
        }
        let expected: Vec<_> = stored.iter().map(|(due, _)| due.delivery).collect();
        assert_eq!(seen, expected, "{limit}");
    }
}

/// Reads beside writes: a few for each step of these, so that a step is met at any moment and nobody reads the processors
/// full while a disk is slow.
#[derive(Clone)]
struct Beside(Arc<Semaphore>);

/// Whoever writes. The reads end with it, however it ends.
struct Steps(Beside);

impl Default for Beside {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Beside {
    /// Waits for the next read. There is none when everything is written.
    async fn once_more(&self) -> bool {
        self.0.acquire().await.is_ok_and(|read| {
            read.forget();
            true
        })
    }
}

impl Steps {
    fn begins(&self) {
        self.0.0.add_permits(20);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.0.close();
    }
}

/// While deliveries settle and are queued again, each is on the list exactly once and can be read.
pub async fn a_delivery_is_found_at_every_moment_while_it_settles(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let row = world.accept_one(&tenant, START).await;
    let (workspace, id) = (tenant.workspace.id, row.delivery);
    let (store, query) = (Arc::clone(world.store()), all_of(&tenant.app));
    let due = DueQuery {
        workspace,
        endpoint: row.endpoint,
        until: Timestamp::FAR_FUTURE,
        limit: 1,
        payload_bytes: 0,
    };
    let change = world.changing(workspace, Vec::new());
    let reads = Beside::default();
    let steps = reads.clone();
    let moving = tokio::spawn(async move {
        let steps = Steps(steps);
        for _ in 0..100 {
            steps.begins();
            let row = store.due(due).await.unwrap().rows.remove(0);
            let finish = finished(&row, 200, Next::Delivered);
            store.finish(vec![finish], Vec::new()).await.unwrap();
            let (delivery, _) = store.delivery(workspace, id).await.unwrap().unwrap();
            let requeue = Write::Requeue {
                delivery,
                at: START,
            };
            let change = Change {
                writes: vec![requeue],
                ..change.clone()
            };
            store.change(change).await.unwrap();
        }
    });
    while reads.once_more().await {
        let listed = world.store().deliveries(query.clone()).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert!(
            world
                .store()
                .delivery(workspace, id)
                .await
                .unwrap()
                .is_some()
        );
    }
    moving.await.unwrap();
}

/// Whoever reads while the first message of a type is accepted finds it whole or not at all.
pub async fn a_new_event_type_never_disturbs_a_reader(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let messages: Vec<_> = (0..200)
        .map(|index| {
            let event_type = format!("type.{index}");
            let to = [&tenant.endpoints[0]];
            world.message(&tenant.app, START, &event_type, 8, &to)
        })
        .collect();
    let store = Arc::clone(world.store());
    let reads = Beside::default();
    let steps = reads.clone();
    let accepting = tokio::spawn(async move {
        let steps = Steps(steps);
        for new in messages {
            steps.begins();
            let accept = Accept {
                messages: vec![new],
                idempotency: None,
            };
            store.accept(accept).await.unwrap();
        }
    });
    let mut seen = 0;
    while reads.once_more().await {
        let query = all_of(&tenant.app);
        let found = world.store().deliveries(query).await.unwrap().len();
        assert!(found >= seen);
        seen = found;
    }
    accepting.await.unwrap();
    assert_eq!(world.due(&tenant.endpoints[0], START).await.rows.len(), 200);
}

/// Messages newest first, in `[since, until)`, page by page.
pub async fn messages_are_paged_within_their_times(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut stored = Vec::new();
    for index in 0..10 {
        let new = world.message(&tenant.app, START.after(index), "a", 8, &[]);
        world.accept(new.clone()).await;
        stored.insert(0, new.message);
    }
    let (workspace, app) = (tenant.workspace.id, tenant.app.id);
    for (since, until) in [
        (None, None),
        (Some(2), None),
        (None, Some(7)),
        (Some(2), Some(7)),
    ] {
        let (since, until) = (
            since.map(|at| START.after(at)),
            until.map(|at| START.after(at)),
        );
        let (mut seen, mut before) = (Vec::new(), None::<MessageId>);
        loop {
            let page = Page { before, limit: 3 };
            let found = world.store().messages(workspace, app, since, until, page);
            let found = found.await.unwrap();
            let Some(last) = found.last() else { break };
            before = Some(last.id);
            seen.extend(found);
        }
        let mut expected = stored.clone();
        expected.retain(|message| {
            since.is_none_or(|since| message.accepted_at >= since)
                && until.is_none_or(|until| message.accepted_at < until)
        });
        assert_eq!(seen, expected);
    }
}

/// No read with another workspace's id finds anything.
pub async fn nothing_is_read_across_workspaces(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let (pending, settled) = (
        world.accept_one(&tenant, START).await,
        world.accept_one(&tenant, START).await,
    );
    world
        .finish(vec![finished(&settled, 200, Next::Delivered)])
        .await;
    let (store, stranger, app) = (world.store(), other.workspace.id, tenant.app.id);
    for due in [&pending, &settled] {
        assert!(
            store
                .delivery(stranger, due.delivery)
                .await
                .unwrap()
                .is_none()
        );
        let message = store.message(stranger, app, due.message.id).await.unwrap();
        assert!(message.is_none());
    }
    let listed = DeliveryQuery {
        workspace: stranger,
        ..all_of(&tenant.app)
    };
    assert!(store.deliveries(listed).await.unwrap().is_empty());
    let by_endpoint = DeliveryQuery {
        endpoint: Some(pending.endpoint),
        ..all_of(&other.app)
    };
    assert!(store.deliveries(by_endpoint).await.unwrap().is_empty());
    let due = DueQuery {
        workspace: stranger,
        endpoint: pending.endpoint,
        until: START,
        limit: 10,
        payload_bytes: 100,
    };
    assert!(store.due(due).await.unwrap().rows.is_empty());
    let unknown = DeliveryId::first_at(START);
    let found = store.delivery(tenant.workspace.id, unknown).await.unwrap();
    assert!(found.is_none());
}

pub(super) fn search_of(tenant: &Tenant) -> DeliverySearch {
    DeliverySearch {
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
        limit: 100,
        effort: u32::MAX,
        with_attempts: false,
    }
}

/// Everything that a search finds, asked for in steps of `effort`, and by `limit` at once.
async fn all_found<E: Engine>(
    world: &World<'_, E>,
    search: &DeliverySearch,
) -> Vec<(DeliveryId, DeliveryStatus)> {
    let forwards = matches!(search.from, SearchFrom::NewerThan(_));
    let (mut search, mut found) = (search.clone(), Vec::new());
    loop {
        let step = world.store().search(search.clone()).await.unwrap();
        assert!(step.items.len() <= search.limit);
        let items = step.items.into_iter().map(|item| item.delivery);
        let items: Vec<_> = items.map(|d| (d.id, d.state.status())).collect();
        if forwards {
            found.splice(0..0, items);
        } else {
            found.extend(items);
        }
        let Some(resume) = step.resume else {
            return found;
        };
        search.from = if forwards {
            SearchFrom::NewerThan(resume)
        } else {
            SearchFrom::OlderThan(resume)
        };
    }
}

/// A search finds exactly what its filters name, both ways, over an app and over the workspace, however
/// little it may look at in one step.
pub async fn a_search_finds_what_it_names_in_steps_of_any_size(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let other = world.tenant("other").await;
    let stored = mixed(&world, &tenant).await;
    mixed(&world, &other).await;
    let statuses = [
        None,
        Some(DeliveryStatus::Pending),
        Some(DeliveryStatus::Delivered),
        Some(DeliveryStatus::Exhausted),
    ];
    for (case, status) in (0..128_u32).flat_map(|case| statuses.map(|status| (case, status))) {
        let chosen = |bit: u32| case >> bit & 1 == 1;
        let search = DeliverySearch {
            app: chosen(6).then_some(tenant.app.id),
            status,
            endpoint: chosen(0).then_some(tenant.endpoints[1].id),
            event_type: chosen(1).then(|| EventType::new("odd").unwrap()),
            message: chosen(2).then_some(stored[9].0.message.id),
            since: chosen(3).then_some(START.after(3)),
            until: chosen(4).then_some(START.after(8)),
            from: if chosen(5) {
                SearchFrom::NewerThan(stored[30].0.delivery)
            } else {
                SearchFrom::OlderThan(stored[4].0.delivery)
            },
            ..search_of(&tenant)
        };
        let query = DeliveryQuery {
            status,
            endpoint: search.endpoint,
            event_type: search.event_type.clone(),
            message: search.message,
            since: search.since,
            until: search.until,
            ..all_of(&tenant.app)
        };
        let expected: Vec<_> = stored
            .iter()
            .filter(|(due, status)| matches(&query, due, *status))
            .filter(|(due, _)| match search.from {
                SearchFrom::OlderThan(id) => due.delivery < id,
                SearchFrom::NewerThan(id) => due.delivery > id,
                SearchFrom::Newest => true,
            })
            .map(|(due, status)| (due.delivery, *status))
            .collect();
        for (limit, effort) in [(100, u32::MAX), (3, u32::MAX), (100, 1)] {
            let search = DeliverySearch {
                limit,
                effort,
                ..search.clone()
            };
            assert_eq!(all_found(&world, &search).await, expected, "{search:?}");
        }
    }
}

/// The same over a workspace with so many apps that an engine may walk them in another way.
pub async fn a_search_finds_the_same_over_many_apps(engine: &impl Engine) {
    const APPS: usize = 40;
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let other = world.tenant("other").await;
    mixed(&world, &other).await;
    let mut apps = vec![tenant.app.clone()];
    let mut endpoints = vec![tenant.endpoints[0].clone()];
    for _ in 1..APPS {
        let app = world.app(tenant.workspace.id);
        let endpoint = world.endpoint(&app);
        let writes = vec![
            Write::App(app.clone()),
            Write::Keyring(world.keyring(&endpoint)),
            Write::Endpoint(endpoint.clone()),
        ];
        world.write(tenant.workspace.id, writes).await;
        apps.push(app);
        endpoints.push(endpoint);
    }
    let mut stored = Vec::new();
    for index in 0..4 * APPS {
        let (app, endpoint) = (&apps[index * 7 % APPS], &endpoints[index * 7 % APPS]);
        let at = START.after(index as u64 / 3);
        let new = world.message(app, at, "a", 16, &[endpoint]);
        world.accept(new.clone()).await;
        let due = accepted(&new).remove(0);
        let (status, outcome) = match index % 5 {
            0 => (DeliveryStatus::Pending, None),
            1 => {
                let given_up = Next::Exhausted(ExhaustedReason::AttemptsUsed);
                (DeliveryStatus::Exhausted, Some((503, given_up)))
            }
            _ => (DeliveryStatus::Delivered, Some((200, Next::Delivered))),
        };
        if let Some((code, next)) = outcome {
            world.finish(vec![finished(&due, code, next)]).await;
        }
        stored.push((due, status));
    }
    stored.reverse();
    for status in [
        None,
        Some(DeliveryStatus::Pending),
        Some(DeliveryStatus::Delivered),
        Some(DeliveryStatus::Exhausted),
    ] {
        for from in [
            SearchFrom::Newest,
            SearchFrom::OlderThan(stored[20].0.delivery),
            SearchFrom::NewerThan(stored[90].0.delivery),
        ] {
            let expected: Vec<_> = stored
                .iter()
                .filter(|(_, is)| status.is_none_or(|only| only == *is))
                .filter(|(due, _)| match from {
                    SearchFrom::OlderThan(id) => due.delivery < id,
                    SearchFrom::NewerThan(id) => due.delivery > id,
                    SearchFrom::Newest => true,
                })
                .map(|(due, status)| (due.delivery, *status))
                .collect();
            for (limit, effort) in [(200, u32::MAX), (7, u32::MAX), (200, 1)] {
                let search = DeliverySearch {
                    status,
                    from,
                    limit,
                    effort,
                    ..search_of(&tenant)
                };
                assert_eq!(all_found(&world, &search).await, expected, "{search:?}");
            }
        }
    }
}

/// What is not in the rows themselves is looked up: the code of the last attempt, the payload.
pub async fn a_search_looks_into_attempts_and_payloads(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut rows = Vec::new();
    for (index, status) in [200, 301, 404, 503].into_iter().enumerate() {
        let at = START.after(index as u64);
        let new = world.message(
            &tenant.app,
            at,
            "a",
            8 + 100 * index,
            &[&tenant.endpoints[0]],
        );
        world.accept(new.clone()).await;
        let due = accepted(&new).remove(0);
        let next = match status {
            200 => Next::Delivered,
            503 => Next::RetryAt(START.after(900_000)),
            _ => Next::Exhausted(ExhaustedReason::AttemptsUsed),
        };
        world.finish(vec![finished(&due, status, next)]).await;
        rows.push(due);
    }
    for (class, wanted) in [
        (CodeClass::Accepted, 0),
        (CodeClass::Redirect, 1),
        (CodeClass::Refused, 2),
        (CodeClass::Failed, 3),
    ] {
        let search = DeliverySearch {
            class: Some(class),
            with_attempts: true,
            ..search_of(&tenant)
        };
        let found = world.store().search(search).await.unwrap();
        let found: Vec<_> = found.items.iter().collect();
        assert_eq!(found.len(), 1, "{class:?}");
        assert_eq!(found[0].delivery.id, rows[wanted].delivery);
        let attempt = found[0].last_attempt.as_ref().unwrap();
        assert_eq!(CodeClass::of(attempt), class);
    }
    for due in &rows {
        // Payloads differ in length alone, so a whole one is in the longer ones too.
        let text = String::from_utf8(due.message.payload.to_vec()).unwrap();
        let search = DeliverySearch {
            text: Some(text.clone()),
            ..search_of(&tenant)
        };
        let found = all_found(&world, &search).await;
        let holds = |row: &&Due| {
            let payload = std::str::from_utf8(&row.message.payload).unwrap();
            payload.contains(&text)
        };
        let expected: Vec<_> = rows
            .iter()
            .rev()
            .filter(holds)
            .map(|d| d.delivery)
            .collect();
        let found: Vec<_> = found.into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, expected);
    }
}
