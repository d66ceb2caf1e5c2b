//! `[operational]`: where Hookturn's own events go.

use std::str::FromStr;

use hookturn_core::id::ClientId;
use serde::{Deserialize, Deserializer, de};

/// `[operational]`: where Hookturn's own events go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Operational {
    /// The app that gets the operational events of all workspaces, as `workspace/clientId`; those of one
    /// workspace also go to the app that its settings name.
    pub events: Option<EventsApp>,
}

/// An app of a workspace, written `workspace/clientId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsApp {
    /// Name or id of the workspace.
    pub workspace: String,
    /// The app.
    pub app: ClientId,
}

/// What such a text looks like.
pub(super) const WANTED: &str = "a workspace and an app such as default/a1B2c3D4";

impl FromStr for EventsApp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (workspace, app) = text.split_once('/').ok_or(WANTED)?;
        if workspace.is_empty() {
            return Err(WANTED);
        }
        Ok(Self {
            workspace: workspace.to_owned(),
            app: app.parse().map_err(|_| WANTED)?,
        })
    }
}

impl<'de> Deserialize<'de> for EventsApp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|wanted| de::Error::custom(format!("events must be {wanted}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_with_its_workspace() {
        let app: EventsApp = "default/a1B2c3D4".parse().unwrap();
        assert_eq!(
            (app.workspace.as_str(), app.app.as_str()),
            ("default", "a1B2c3D4")
        );
        for bad in [
            "",
            "a1B2c3D4",
            "/a1B2c3D4",
            "default/",
            "default/short",
            "a/b/a1B2c3D4",
        ] {
            assert!(bad.parse::<EventsApp>().is_err(), "{bad}");
        }
    }
}
