//! Reading forms: bounded in bytes, in time and in number, so that what is begun and never ended takes little memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hookturn_core::limits;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Largest form of somebody who is signed in, in bytes: what the API takes, with room for how forms are written.
const FORM: usize = 2 * limits::BODY_BYTES;
/// Forms that are read at once.
const FORMS: usize = 64;
/// Largest form of somebody who signs in, in bytes.
const SIGN_IN: usize = 8 * 1024;
/// Of these as many at once, apart from the others: whoever sends them is nobody yet.
const SIGN_INS: usize = 512;
/// Time for a form to come, and before that for its turn.
const TIME: Duration = Duration::from_secs(10);

/// How many forms are read. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Reading {
    forms: Arc<Semaphore>,
    sign_ins: Arc<Semaphore>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            forms: Arc::new(Semaphore::new(FORMS)),
            sign_ins: Arc::new(Semaphore::new(SIGN_INS)),
        }
    }
}

impl Reading {
    /// The form of somebody who is signed in, if it is one and comes whole.
    pub(super) async fn form(&self, headers: &HeaderMap, body: Body) -> Option<Bytes> {
        read(&self.forms, headers, body, FORM).await
    }

    /// The form of somebody who signs in.
    pub(super) async fn sign_in(&self, headers: &HeaderMap, body: Body) -> Option<Bytes> {
        read(&self.sign_ins, headers, body, SIGN_IN).await
    }
}

async fn read(turns: &Semaphore, headers: &HeaderMap, body: Body, most: usize) -> Option<Bytes> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    let _turn = timeout(TIME, turns.acquire()).await.ok()?.ok()?;
    let read = timeout(TIME, Limited::new(body, most).collect()).await;
    Some(read.ok()?.ok()?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use tokio::time::Instant;

    fn headers(kind: &'static str) -> HeaderMap {
        let kind = HeaderValue::from_static(kind);
        HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
    }

    /// A body that never comes.
    fn endless() -> Body {
        Body::new(http_body_util::StreamBody::new(
            futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>(),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn g10_forms_are_bounded_in_bytes_time_and_number() {
        const KIND: &str = "application/x-www-form-urlencoded; charset=utf-8";
        let reading = Reading::default();
        let read = reading.sign_in(&headers(KIND), Body::from("key=a")).await;
        assert_eq!(read.as_deref(), Some(&b"key=a"[..]));
        for (kind, bytes) in [("text/plain", 1), (KIND, SIGN_IN + 1)] {
            let body = Body::from(vec![b'a'; bytes]);
            assert_eq!(reading.sign_in(&headers(kind), body).await, None, "{kind}");
        }
        let begun = Instant::now();
        let mut endless_ones = tokio::task::JoinSet::new();
        for _ in 0..SIGN_INS {
            let reading = reading.clone();
            endless_ones.spawn(async move { reading.sign_in(&headers(KIND), endless()).await });
        }
        tokio::task::yield_now().await;
        // Who is signed in is not held up by that; whoever signs in has a turn when theirs are over.
        let form = reading.form(&headers(KIND), Body::from("a=b")).await;
        assert!(form.is_some() && begun.elapsed().is_zero());
        while let Some(read) = endless_ones.join_next().await {
            assert_eq!(read.unwrap(), None);
        }
        assert_eq!(begun.elapsed(), TIME);
        let read = reading.sign_in(&headers(KIND), Body::from("key=a")).await;
        assert!(read.is_some());
    }
}
