//! The settings of the workspace, each with what it leads to.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::audit::AuditAction;
use hookturn_core::endpoint::{HeaderRenames, Preset};
use hookturn_core::id::ClientId;
use hookturn_core::store::Page;
use hookturn_core::time::SECOND;
use hookturn_core::workspace::{RevealPolicy, Workspace};
use http::StatusCode;
use serde::Deserialize;

use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::problems::Problems;
use super::super::stale::Stale;
use super::super::text::visible;
use super::super::visitor::{Sent, Visitor};
use super::super::{UiState, span};
use super::keyrings::given;
use crate::service::ServiceError;
use crate::service::audit::AuditFilter;
use crate::service::workspaces::WorkspacePatch;

/// Apps that the choice of the operational one lists.
const APPS: usize = 200;

/// The page.
#[derive(Debug, Template)]
#[template(path = "settings.html")]
pub struct Settings {
    /// Around it.
    pub frame: Frame,
    /// The version that the form is made from.
    pub version: u64,
    /// When it was made, in milliseconds.
    pub seen: i64,
    /// What is typed.
    pub typed: Typed,
    /// The header names of each preset.
    pub headers: Vec<PresetHeaders>,
    /// Apps to choose from.
    pub apps: Vec<(String, String)>,
    /// What was wrong.
    pub problems: Problems,
    /// What happened meanwhile.
    pub stale: Option<Stale>,
    /// What differs between what was typed and what is stored by now.
    pub differences: Vec<String>,
}

/// The headers of a preset, each with what it is called instead.
#[derive(Debug, Clone)]
pub struct PresetHeaders {
    /// The preset.
    pub preset: &'static str,
    /// Its headers.
    pub headers: Vec<HeaderName>,
}

/// One header that may be renamed.
#[derive(Debug, Clone)]
pub struct HeaderName {
    /// The field of the form.
    pub field: String,
    /// What it is for.
    pub role: &'static str,
    /// What the preset calls it.
    pub own: String,
    /// What it is called instead; empty when it is not renamed.
    pub renamed: String,
    /// What is wrong with that.
    pub problem: Option<String>,
}

/// What was typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Typed {
    // Texts, for numbers cannot be read beside the flattened names.
    version: String,
    seen: String,
    /// `allowed` or `never`.
    pub reveal: String,
    /// The overlap of a dialect's rotate call.
    pub overlap: String,
    /// The `clientId` of the operational app.
    pub operational_app: String,
    /// Header names, by the field of the form.
    #[serde(flatten)]
    headers: BTreeMap<String, String>,
}

/// The names that each preset's scheme has of its own, by role; those without a name have no such header.
const ROLES: [&str; 3] = ["id", "timestamp", "signature"];

fn field(preset: Preset, role: &str) -> String {
    format!("header-{preset}-{role}")
}

impl Typed {
    fn of(workspace: &Workspace) -> Self {
        let settings = &workspace.settings;
        let overlap = settings
            .rotation_overlap_seconds
            .map(|seconds| u64::from(seconds) * SECOND);
        let mut headers = BTreeMap::new();
        for (preset, renames) in &settings.header_names {
            for (role, name) in
                ROLES
                    .into_iter()
                    .zip([&renames.id, &renames.timestamp, &renames.signature])
            {
                headers.insert(field(*preset, role), name.clone().unwrap_or_default());
            }
        }
        Self {
            version: String::new(),
            seen: String::new(),
            reveal: match settings.reveal_secrets {
                RevealPolicy::Allowed => "allowed".to_owned(),
                RevealPolicy::Never => "never".to_owned(),
            },
            overlap: overlap.map(span::write).unwrap_or_default(),
            operational_app: settings
                .operational_app
                .map(|app| app.to_string())
                .unwrap_or_default(),
            headers,
        }
    }

    fn header(&self, preset: Preset, role: &str) -> Option<String> {
        self.headers
            .get(&field(preset, role))
            .and_then(|name| given(name))
    }

    fn header_names(&self) -> BTreeMap<Preset, HeaderRenames> {
        let renames = |preset| HeaderRenames {
            id: self.header(preset, "id"),
            timestamp: self.header(preset, "timestamp"),
            signature: self.header(preset, "signature"),
        };
        let all = Preset::ALL
            .into_iter()
            .map(|preset| (preset, renames(preset)));
        all.filter(|(_, renames)| *renames != HeaderRenames::default())
            .collect()
    }

    /// What the form asks for, compared with what is stored.
    fn patch(&self, old: &Self) -> Result<WorkspacePatch, Problems> {
        let mut problems = Problems::default();
        let overlap = match given(&self.overlap).as_deref().map(span::read) {
            None => None,
            Some(Ok(overlap)) => match u32::try_from(overlap / SECOND) {
                Ok(seconds) if overlap.is_multiple_of(SECOND) => Some(seconds),
                Ok(_) | Err(_) => {
                    problems.add("overlap", "write whole seconds, at most 30 d");
                    None
                }
            },
            Some(Err(message)) => {
                problems.add("overlap", message);
                None
            }
        };
        let app = given(&self.operational_app).map(|text| text.parse::<ClientId>());
        let app = app.transpose().unwrap_or_else(|_| {
            problems.add("operational_app", "no such app");
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let reveal = match self.reveal.as_str() {
            "never" => RevealPolicy::Never,
            _ => RevealPolicy::Allowed,
        };
        Ok(WorkspacePatch {
            name: None,
            // It is in the form of those only who may change it.
            reveal_secrets: (!self.reveal.is_empty() && self.reveal != old.reveal)
                .then_some(reveal),
            header_names: Some(self.header_names()),
            rotation_overlap_seconds: Some(overlap),
            operational_app: Some(app),
        })
    }

    /// What differs between this and what is stored by now.
    fn differences(&self, stored: &Self) -> Vec<String> {
        let word =
            |text: &str| given(text).map_or_else(|| "empty".to_owned(), |text| visible(&text));
        let mut told = Vec::new();
        let mut tell = |what: &str, typed: &str, stored: &str| {
            if given(typed) != given(stored) {
                told.push(format!(
                    "{what} is {} now, and you have {}",
                    word(stored),
                    word(typed)
                ));
            }
        };
        if !self.reveal.is_empty() {
            tell("revealing secrets", &self.reveal, &stored.reveal);
        }
        tell("the overlap", &self.overlap, &stored.overlap);
        tell(
            "the operational app",
            &self.operational_app,
            &stored.operational_app,
        );
        for preset in Preset::ALL {
            for role in ROLES {
                let name = |typed: &Self| typed.header(preset, role).unwrap_or_default();
                let what = format!("the {role} header of {preset}");
                tell(&what, &name(self), &name(stored));
            }
        }
        told
    }
}

impl Settings {
    async fn of(ui: &UiState, visitor: &Visitor, typed: Option<Typed>) -> Result<Self, UiError> {
        let told = |error: ServiceError| UiError::service(&error, &visitor.base);
        let caller = &visitor.caller;
        let workspace = ui
            .service
            .workspace(caller, caller.workspace)
            .await
            .map_err(told)?;
        let all = Page {
            before: None,
            limit: APPS,
        };
        let apps = ui.service.apps(caller, all).await.map_err(told)?;
        let apps = apps
            .items
            .iter()
            .map(|app| (app.id.to_string(), visible(&app.name)));
        let stored = Typed::of(&workspace);
        let typed = typed.unwrap_or_else(|| stored.clone());
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Settings, "Settings"),
            version: workspace.version,
            seen: ui.clock.now().as_millis(),
            headers: headers(&typed, None),
            apps: apps.collect(),
            differences: typed.differences(&stored),
            typed,
            problems: Problems::default(),
            stale: None,
        })
    }

    /// Whether the operational app is none of those that are listed.
    pub fn is_elsewhere(&self) -> bool {
        let chosen = &self.typed.operational_app;
        !chosen.is_empty() && !self.apps.iter().any(|(id, _)| id == chosen)
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |apps: Vec<(String, String)>, problems: Problems, stale: Option<Stale>| {
            let typed = Typed {
                reveal: "allowed".to_owned(),
                ..Typed::default()
            };
            Self {
                frame: Frame::sample(Part::Settings, "Settings"),
                version: 1,
                seen: 0,
                headers: headers(&typed, None),
                typed,
                apps,
                problems,
                differences: stale
                    .iter()
                    .map(|_| "the overlap is 1 d now".to_owned())
                    .collect(),
                stale,
            }
        };
        let apps = || vec![("app_1".to_owned(), "<b>Acme</b>".to_owned())];
        let stale = Stale {
            reload: "settings".to_owned(),
            changes: Vec::new(),
        };
        let wrong = Problems::field("overlap", "write a number and a unit");
        vec![
            (
                "settings-empty",
                sample(Vec::new(), Problems::default(), None),
            ),
            ("settings", sample(apps(), Problems::default(), None)),
            ("settings-error", sample(apps(), wrong, Some(stale))),
        ]
    }
}

/// The headers of every preset, with what is wrong with the one at a JSON pointer.
fn headers(typed: &Typed, wrong: Option<(&str, &str)>) -> Vec<PresetHeaders> {
    let names_of = |preset| {
        let names = crate::service::workspaces::own_header_names(preset);
        [
            names.id.map(String::from),
            names.timestamp.map(String::from),
            Some(String::from(names.signature)),
        ]
    };
    let header = |preset: Preset, role: &'static str, own: String| {
        let pointer = format!("/headerNames/{preset}/{role}");
        let problem = wrong.filter(|(at, _)| *at == pointer);
        HeaderName {
            field: field(preset, role),
            role,
            own,
            renamed: typed.header(preset, role).unwrap_or_default(),
            problem: problem.map(|(_, message)| message.to_owned()),
        }
    };
    let preset = |preset: Preset| PresetHeaders {
        preset: preset.as_str(),
        headers: ROLES
            .into_iter()
            .zip(names_of(preset))
            .filter_map(|(role, own)| Some(header(preset, role, own?)))
            .collect(),
    };
    Preset::ALL.into_iter().map(preset).collect()
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    Ok(page(
        StatusCode::OK,
        &Settings::of(&ui, &visitor, None).await?,
    ))
}

pub(in crate::ui) async fn change(
    State(ui): State<UiState>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let caller = &visitor.caller;
    let workspace = ui.service.workspace(caller, caller.workspace).await;
    let workspace = workspace.map_err(|error| UiError::service(&error, &visitor.base))?;
    let stored = Typed::of(&workspace);
    let patch = match fields.patch(&stored) {
        Ok(patch) => patch,
        Err(problems) => {
            let mut shown = Settings::of(&ui, &visitor, Some(fields)).await?;
            shown.problems = problems;
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let unreadable = |_| UiError::unreadable(&visitor.base);
    let version = Some(fields.version.parse().map_err(unreadable)?);
    let seen = fields.seen.parse().map_err(unreadable)?;
    let changed = ui
        .service
        .patch_workspace(caller, caller.workspace, patch, version, None)
        .await;
    let Err(error) = changed else {
        return Ok(Redirect::to(&format!("{}settings", visitor.base)).into_response());
    };
    if let ServiceError::PreconditionFailed { .. } = error {
        let filter = AuditFilter {
            action: Some(AuditAction::WorkspaceUpdated.to_string()),
            ..AuditFilter::default()
        };
        let reload = "settings".to_owned();
        let stale = Stale::since(&ui, &visitor, filter, seen, reload).await?;
        let mut shown = Settings::of(&ui, &visitor, Some(fields)).await?;
        shown.stale = Some(stale);
        return Ok(page(StatusCode::PRECONDITION_FAILED, &shown));
    }
    let known = [
        ("/rotationOverlapSeconds", "overlap"),
        ("/operationalApp", "operational_app"),
    ];
    let (mut problems, status) = Problems::refused(&error, &visitor, &known)?;
    let mut shown = Settings::of(&ui, &visitor, Some(fields)).await?;
    if let ServiceError::Invalid { pointer, message } = &error
        && pointer.starts_with("/headerNames/")
    {
        shown.headers = headers(&shown.typed, Some((pointer, message)));
        problems = Problems::whole("a header cannot be called so; nothing was changed");
    }
    shown.problems = problems;
    Ok(page(status, &shown))
}
