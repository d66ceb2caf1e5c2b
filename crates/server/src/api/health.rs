//! What load balancers and metric collectors ask, without a key.
//!
//! `/livez` says that the process answers at all: restart it if it does not. `/readyz` says whether
//! to send it traffic: not while it starts, drains, cannot write to its store, has found it damaged, has a clock that is far
//! off, or lacks the master key that is current. Neither touches the disk; whoever knows changes [`Readiness`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::idempotency::Answer;
use super::problem::{Code, Problem};

/// Whether traffic is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ready {
    /// Not yet: loading, recovering what was due.
    Starting = 0,
    /// Yes.
    Yes = 1,
    /// No longer: finishing what is in flight before the end.
    Draining = 2,
    /// The store cannot write.
    StoreDown = 3,
    /// The machine's clock is too far from that of the other nodes.
    ClockOff = 4,
    /// The master key that is current for all nodes was not given to this one.
    NoMasterKey = 5,
    /// A page of the store is damaged.
    Damaged = 6,
}

/// A [`Ready`] that everyone shares.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicU8>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(Ready::Starting as u8)))
    }
}

impl Readiness {
    /// What it is now.
    pub fn get(&self) -> Ready {
        match self.0.load(Ordering::Acquire) {
            0 => Ready::Starting,
            1 => Ready::Yes,
            2 => Ready::Draining,
            4 => Ready::ClockOff,
            5 => Ready::NoMasterKey,
            6 => Ready::Damaged,
            _ => Ready::StoreDown,
        }
    }

    /// Traffic is welcome from now on.
    pub fn set_ready(&self) {
        self.set(Ready::Yes);
    }

    /// The store cannot write; [`Readiness::set_ready`] when it can again.
    pub fn set_store_down(&self) {
        self.set(Ready::StoreDown);
    }

    /// The machine's clock is too far off; [`Readiness::set_ready`] when it is right again.
    pub fn set_clock_off(&self) {
        self.set(Ready::ClockOff);
    }

    /// The master key that is current is missing; [`Readiness::set_ready`] when it is there.
    pub fn set_no_master_key(&self) {
        self.set(Ready::NoMasterKey);
    }

    /// The store is damaged, until the process ends: nothing but draining comes after it.
    pub fn set_damaged(&self) {
        self.set(Ready::Damaged);
    }

    /// No more traffic, for good: nothing that comes later makes it ready again.
    pub fn set_draining(&self) {
        self.set(Ready::Draining);
    }

    fn set(&self, ready: Ready) {
        let (draining, damaged) = (Ready::Draining as u8, Ready::Damaged as u8);
        // Only fails when draining, which is what should stay, and damage but for draining.
        let _kept = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |current| {
                let stays = current == draining || (current == damaged && ready != Ready::Draining);
                (!stays).then_some(ready as u8)
            });
    }
}

/// The answer of a health check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`; anything else is a problem document.
    #[schema(example = "ok", pattern = "^ok$")]
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", tag = "Health",
    responses((status = 200, description = "It does.", body = Health)))]
pub(super) async fn livez() -> Answer {
    Answer::ok(&OK)
}

/// Whether to send traffic here.
#[utoipa::path(get, path = "/readyz", tag = "Health",
    responses((status = 200, description = "Yes.", body = Health)))]
pub(super) async fn readyz(State(api): State<ApiState>) -> Result<Answer, Problem> {
    let why = match api.ready.get() {
        Ready::Yes => return Ok(Answer::ok(&OK)),
        Ready::Starting => "starting: wait until it is ready",
        Ready::Draining => "draining: send requests to another node, or wait for the restart",
        Ready::StoreDown => return Err(Problem::store_unwritable("")),
        Ready::Damaged => return Err(Problem::store_damaged("")),
        Ready::ClockOff => {
            "the clock of this machine is off by more than a second from the database's: set it right, by NTP for \
             example; until then this node sends nothing and the others do its work"
        }
        Ready::NoMasterKey => {
            "the master key was rotated, and this node was not given the new one: start it again with the new key \
             before the present one; until then this node sends and changes nothing, and the others do its work"
        }
    };
    Err(Problem::new(Code::Unavailable, why).retry_after(1))
}

/// Counters and gauges in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "Health",
    responses((status = 200, description = "The metrics.", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")))]
pub(super) async fn metrics(State(api): State<ApiState>) -> Response {
    const FORMAT: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    api.metrics.ready(api.ready.get() == Ready::Yes);
    let mut response = api.metrics.render().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_for_good() {
        let ready = Readiness::default();
        assert_eq!(ready.get(), Ready::Starting);
        for step in [
            Ready::Yes,
            Ready::StoreDown,
            Ready::ClockOff,
            Ready::NoMasterKey,
            Ready::Yes,
            Ready::Damaged,
        ] {
            ready.set(step);
            assert_eq!(ready.get(), step);
        }
        // Damage stays until the end of the process, and the end comes all the same.
        for kept in [Ready::Damaged, Ready::Draining] {
            ready.set(kept);
            ready.set(Ready::Yes);
            assert_eq!(ready.get(), kept);
        }
        ready.set(Ready::Damaged);
        assert_eq!(ready.get(), Ready::Draining);
    }
}
