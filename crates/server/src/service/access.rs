//! Who is calling, where, and whether they may.

use std::sync::Arc;

use hookturn_core::id::{ApiKeyId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::workspace::{ApiKey, Reach, Scope};
use sha2::{Digest, Sha256};

use super::denials::Asked;
use super::fencing::Fenced;
use super::{Caller, Service, ServiceError};

/// Longest text that is tried as an API key, in bytes.
const KEY_TEXT_BYTES: usize = 512;

/// The name of the workspace that operator keys act in unless they name another.
pub const DEFAULT_WORKSPACE: &str = "default";

impl Service {
    /// The live key of this text. Notes its use.
    ///
    /// Unknown, expired and revoked keys are refused alike.
    pub fn authenticate(&self, bearer: &str) -> Result<Arc<ApiKey>, ServiceError> {
        if bearer.len() > KEY_TEXT_BYTES {
            return Err(ServiceError::Unauthorized);
        }
        let hash: [u8; 32] = Sha256::digest(bearer.as_bytes()).into();
        self.admit(self.live.api_key_by_hash(&hash))
    }

    /// The live key of this id: what a dashboard session asks on every request, so that a revoked
    /// key ends its sessions.
    pub fn authenticate_session(&self, key: ApiKeyId) -> Result<Arc<ApiKey>, ServiceError> {
        self.admit(self.live.api_key(key))
    }

    fn admit(&self, key: Option<Arc<ApiKey>>) -> Result<Arc<ApiKey>, ServiceError> {
        let now = self.clock.now();
        let key = key
            .filter(|key| key.is_live(now))
            .ok_or(ServiceError::Unauthorized)?;
        if self
            .live
            .touch_api_key(key.id, now, limits::LAST_USED_STALE)
        {
            self.note_use(key.id);
        }
        Ok(key)
    }

    /// Stores the last use of a key without making the request wait for it.
    fn note_use(&self, key: ApiKeyId) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let store = Arc::clone(&self.store);
        let now = self.clock.now();
        runtime.spawn(async move {
            if let Err(error) = store.touch_api_keys(vec![(key, now)]).await {
                tracing::debug!(%key, %error, "last use of an API key was not stored");
            }
        });
    }

    /// The caller that a key makes in a workspace.
    ///
    /// 1. A workspace key acts in its own workspace. Naming another one is `NotFound`.
    /// 2. An operator key acts in the workspace it names by id or name.
    /// 3. An operator key that names none acts in `default`, or in the oldest one when no
    ///    workspace has that name.
    pub fn caller_for(
        &self,
        key: Arc<ApiKey>,
        workspace: Option<&str>,
        request_id: impl Into<String>,
        reason: Option<String>,
    ) -> Result<Caller, ServiceError> {
        self.caller_asking(key, workspace, request_id, reason, Asked::default)
    }

    /// The same for a request that asks for something: that is said of one that is refused here.
    pub fn caller_asking(
        &self,
        key: Arc<ApiKey>,
        workspace: Option<&str>,
        request_id: impl Into<String>,
        reason: Option<String>,
        asked: impl FnOnce() -> Asked,
    ) -> Result<Caller, ServiceError> {
        const MISSING: ServiceError = ServiceError::not_found("workspace");
        let named = match workspace {
            Some(text) => Some(self.workspace_id(text).ok_or(MISSING)?),
            None => None,
        };
        if let Some(reason) = &reason {
            super::check_text("", reason)?;
        }
        let workspace = match (key.reach, named) {
            (Reach::Workspace { workspace: own, .. }, _) => own,
            (Reach::Operator, Some(named)) => named,
            (Reach::Operator, None) => self.default_workspace().ok_or(MISSING)?,
        };
        let caller = Caller {
            key,
            workspace,
            request_id: request_id.into(),
            reason,
            asked: Asked::default(),
            fenced: Fenced::default(),
        };
        match named {
            Some(foreign) if foreign != workspace => {
                let asked = asked();
                self.note_foreign(&Caller { asked, ..caller }, foreign);
                Err(MISSING)
            }
            Some(_) | None => Ok(caller),
        }
    }

    pub(super) fn workspace_id(&self, text: &str) -> Option<WorkspaceId> {
        let found = match text.parse::<WorkspaceId>() {
            Ok(id) => self.live.workspace(id),
            Err(_) => self.live.workspace_named(text),
        };
        found.map(|workspace| workspace.id)
    }

    pub(super) fn default_workspace(&self) -> Option<WorkspaceId> {
        self.workspace_id(DEFAULT_WORKSPACE)
            .or_else(|| self.live.workspaces().first().map(|oldest| oldest.id))
    }

    /// Refuses a caller without the scope, and records the attempt.
    pub async fn require(&self, caller: &Caller, scope: Scope) -> Result<(), ServiceError> {
        if caller.may(scope) {
            return Ok(());
        }
        self.note_denied(caller, scope.as_str()).await;
        Err(ServiceError::Forbidden { needs: scope })
    }

    /// Refuses a caller whose key is not an operator's, and records the attempt.
    pub async fn require_operator(&self, caller: &Caller) -> Result<(), ServiceError> {
        match caller.key.reach {
            Reach::Operator => Ok(()),
            Reach::Workspace { .. } => {
                self.note_denied(caller, "operator").await;
                Err(ServiceError::OperatorOnly)
            }
        }
    }
}
