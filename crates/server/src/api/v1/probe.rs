//! Whether and with what an endpoint is probed, as its owner says it.

use hookturn_core::endpoint::{ProbeMode, ProbeSettings};
use hookturn_core::message::EventType;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::json::or_default;
use super::super::problem::Problem;
use super::super::schema;

/// Whether and with what an endpoint is probed: inert requests that ask its receiver about secrets.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = ProbeSettings)]
pub(in crate::api) struct ProbeSettingsView {
    /// Whether it gets any; `on` without.
    #[serde(deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::ProbeModeText>)]
    mode: ProbeMode,
    /// Their event type; `hookturn.probe` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::EventTypeText>)]
    event_type: Option<String>,
    /// Their body, at most 4 KiB, as readable as a message's payload; `{"probe":true}` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schema::AnyJson, required = false)]
    body: Option<Box<RawValue>>,
}

impl TryFrom<ProbeSettingsView> for ProbeSettings {
    type Error = Problem;

    fn try_from(view: ProbeSettingsView) -> Result<Self, Problem> {
        let event_type = view.event_type.map(|text| EventType::new(&text));
        Ok(Self {
            mode: view.mode,
            event_type: event_type
                .transpose()
                .map_err(|error| Problem::field("/probe/eventType", error.to_string()))?,
            body: view.body.map(|body| body.get().to_owned()),
        })
    }
}

impl From<&ProbeSettings> for ProbeSettingsView {
    fn from(settings: &ProbeSettings) -> Self {
        let body = settings.body.clone();
        Self {
            mode: settings.mode,
            event_type: settings
                .event_type
                .as_ref()
                .map(|chosen| chosen.as_str().to_owned()),
            // It was JSON when it was stored.
            body: body.and_then(|body| RawValue::from_string(body).ok()),
        }
    }
}
