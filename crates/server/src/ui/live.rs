//! Streams of live updates (server-sent events): how many new deliveries there are beyond those a page
//! shows. The page says so and loads them when its reader asks; it never moves under their eyes.
//!
//! A stream asks the store every [`PACE`] with a search of bounded effort. There are at most
//! [`limits::LIVE_STREAMS`]; one more is refused, and its page stays as it is. A stream ends after
//! [`LONGEST`] (the browser opens another, which asks anew who is looking), when the key is no longer
//! good, and when the server stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use hookturn_core::id::DeliveryId;
use hookturn_core::limits;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::UiState;
use super::visitor::Visitor;
use crate::service::searching::Search;

/// Time between two looks.
const PACE: Duration = Duration::from_secs(2);
/// Longest time that one stream lasts.
const LONGEST: Duration = Duration::from_mins(5);

/// The streams that may be open at once, and whether they shall end.
#[derive(Debug, Clone)]
pub struct Streams {
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Streams {
    /// None open yet; all end when `stopping` changes.
    pub fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits::LIVE_STREAMS)),
            stopping,
        }
    }
}

/// One stream.
struct Looking {
    ui: UiState,
    visitor: Visitor,
    search: Search,
    than: DeliveryId,
    told: Option<String>,
    looks: Interval,
    ends: Instant,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// Answers with a stream that says how many deliveries of a search are newer than one.
pub(super) fn of_newer(
    ui: UiState,
    visitor: Visitor,
    search: Search,
    than: DeliveryId,
) -> Response {
    let Ok(place) = Arc::clone(&ui.streams.places).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut looks = interval(PACE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = Looking {
        stopping: ui.streams.stopping.clone(),
        ui,
        visitor,
        search,
        than,
        told: None,
        looks,
        ends: Instant::now() + LONGEST,
        _place: place,
    };
    let events = stream::unfold(looking, |mut looking| async {
        let event = looking.next().await?;
        Some((Ok::<_, Infallible>(event), looking))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

impl Looking {
    /// The next count that differs from the last one told.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                _ = self.stopping.changed() => return None,
                at = self.looks.tick() => if at >= self.ends { return None },
            }
            let service = &self.ui.service;
            let caller = service.session_caller(&self.visitor.session, "live").ok()?;
            let newer = service.count_newer(&caller, &self.search, self.than).await;
            let newer = newer.ok()?;
            let more = if newer.has_more { "+" } else { "" };
            let text = format!("{}{more}", newer.count);
            if self.told.as_ref() != Some(&text) {
                self.told = Some(text.clone());
                return Some(Event::default().event("newer").data(text));
            }
        }
    }
}
