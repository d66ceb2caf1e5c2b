//! Sessions of the dashboard: an API key, signed in at a browser.
//!
//! A session is a sealed box that the browser keeps as a cookie: which key, in which workspace, since
//! when, and the token that forms must repeat. So it outlives a restart and is good on every node, and
//! nothing is stored. The key's text is not in it. Every request asks for the key anew, so a revoked or
//! expired key ends its sessions. A session that was signed out is remembered until it would have
//! ended by itself; a restart forgets that.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookturn_core::id::{ApiKeyId, WorkspaceId, draw};
use hookturn_core::limits;
use hookturn_core::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Caller, Service, ServiceError};
use crate::store::seal::Place;

/// Longest cookie that is tried, in bytes.
const COOKIE_BYTES: usize = 1024;

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    id: [u8; 16],
    /// The key they signed in with.
    pub key: ApiKeyId,
    /// The workspace they look at.
    pub workspace: WorkspaceId,
    /// What every form of the session repeats, in hexadecimal digits.
    pub form_token: String,
    began_at: Timestamp,
}

/// Sessions that were signed out, until when each would have lasted.
#[derive(Debug, Default)]
pub(super) struct SignedOut(Mutex<HashMap<[u8; 16], Timestamp>>);

/// How often wrong keys may be tried: when those that were tried would be done at the even pace.
#[derive(Debug, Default)]
pub(super) struct SignInPace(Mutex<Option<Timestamp>>);

impl SignInPace {
    const TOLERANCE: Millis = limits::SIGN_IN_FAILURE_EVERY * (limits::SIGN_IN_FAILURES as Millis);

    fn done_at(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, now: Timestamp) -> Result<(), ServiceError> {
        let ahead = self.done_at().map_or(0, |done| done.since(now));
        // Further ahead than tries can put it: the clock was set back.
        let refused = Self::TOLERANCE..=Self::TOLERANCE + limits::SIGN_IN_FAILURE_EVERY;
        if !refused.contains(&ahead) {
            return Ok(());
        }
        let wait_millis = ahead - Self::TOLERANCE + limits::SIGN_IN_FAILURE_EVERY;
        Err(ServiceError::RateLimited { wait_millis })
    }

    fn failed(&self, now: Timestamp) {
        let mut done_at = self.done_at();
        let from = done_at.map_or(now, |done| done.max(now));
        *done_at = Some(from.after(limits::SIGN_IN_FAILURE_EVERY));
    }
}

impl SignedOut {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<[u8; 16], Timestamp>) -> T) -> T {
        // One insert or look at a time: a panic elsewhere leaves a whole map.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service {
    fn ends_at(&self, session: &Session) -> Timestamp {
        session.began_at.after(self.settings.session)
    }

    /// Signs in with the text of an API key. Answers the session and the cookie that keeps it.
    ///
    /// After [`limits::SIGN_IN_FAILURES`] wrong keys, whoever sent them, another wrong one is told to wait until
    /// the pace allows one more; a page cannot tell its visitors apart behind a proxy. The right key is
    /// never told to wait, so nobody can keep its owner out; and sessions that are open are not touched.
    pub fn sign_in(&self, key: &str) -> Result<(Session, String), ServiceError> {
        let now = self.clock.now();
        let key = match self.authenticate(key) {
            Ok(key) => key,
            Err(wrong) => {
                self.sign_in_pace.check(now)?;
                self.sign_in_pace.failed(now);
                return Err(wrong);
            }
        };
        let id = key.id;
        let workspace = self
            .caller_for(key, None, String::new(), None)
            .map(|caller| caller.workspace)?;
        Ok(self.session_of(id, workspace))
    }

    /// The same session, looking at another workspace: a new one, for a key that reaches it.
    pub fn switch_workspace(
        &self,
        session: &Session,
        workspace: &str,
    ) -> Result<(Session, String), ServiceError> {
        let key = self.authenticate_session(session.key)?;
        let id = key.id;
        let caller = self.caller_for(key, Some(workspace), String::new(), None)?;
        Ok(self.session_of(id, caller.workspace))
    }

    fn session_of(&self, key: ApiKeyId, workspace: WorkspaceId) -> (Session, String) {
        let session = Session {
            id: draw(self.entropy.as_ref()),
            key,
            workspace,
            form_token: hex::encode(draw::<16>(self.entropy.as_ref())),
            began_at: self.clock.now(),
        };
        #[expect(
            clippy::expect_used,
            reason = "a session is ids, a number and digits: it has no value that JSON cannot hold"
        )]
        let plain = serde_json::to_vec(&session).expect("a session is plain data");
        let cookie = URL_SAFE_NO_PAD.encode(self.sealer.seal(Place::Session, &plain));
        (session, cookie)
    }

    /// The session of a cookie, while it lasts.
    pub fn session(&self, cookie: &str) -> Option<Session> {
        if cookie.len() > COOKIE_BYTES {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let plain = self.sealer.open(Place::Session, &sealed).ok()?;
        let session: Session = serde_json::from_slice(&plain).ok()?;
        let now = self.clock.now();
        let ended = self
            .signed_out
            .with(|ended| ended.contains_key(&session.id));
        (!ended && now < self.ends_at(&session)).then_some(session)
    }

    /// Who a session is, on one request. Unauthorized when its key is no longer good.
    pub fn session_caller(
        &self,
        session: &Session,
        request_id: impl Into<String>,
    ) -> Result<Caller, ServiceError> {
        let key = self.authenticate_session(session.key)?;
        let workspace = session.workspace.to_string();
        self.caller_for(key, Some(&workspace), request_id, None)
    }

    /// Ends a session.
    pub fn sign_out(&self, session: &Session) {
        let now = self.clock.now();
        self.signed_out.with(|ended| {
            ended.retain(|_, until| *until > now);
            ended.insert(session.id, self.ends_at(session));
        });
    }
}
