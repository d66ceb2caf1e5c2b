//! Sign in with an API key, and out.

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::draw;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::super::UiState;
use super::super::assets::{ASSETS, Assets};
use super::super::error::{UiError, status_of};
use super::super::frame::{base, page};
use super::super::visitor::{Sent, refuse_foreign, set_cookie};
use crate::service::ServiceError;
use crate::service::denials::{Asked, Refused};

/// The page that asks for a key.
#[derive(Debug, Template)]
#[template(path = "sign_in.html")]
pub struct SignIn {
    /// What links are relative to.
    pub base: String,
    /// Where to go on afterwards, relative to the base.
    pub back: String,
    /// Whether a session ended that somebody was in.
    pub has_ended: bool,
    /// What was wrong with the last try.
    pub error: Option<String>,
    /// The files that pages load.
    pub assets: &'static Assets,
}

impl SignIn {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |error: Option<&str>, has_ended: bool| Self {
            base: "/".to_owned(),
            back: "apps".to_owned(),
            has_ended,
            error: error.map(str::to_owned),
            assets: &ASSETS,
        };
        vec![
            ("sign-in", sample(None, false)),
            ("sign-in-ended", sample(None, true)),
            (
                "sign-in-error",
                sample(Some("the API key is unknown"), false),
            ),
        ]
    }
}

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Back {
    #[serde(default)]
    back: String,
    #[serde(default)]
    ended: String,
}

/// The form.
#[derive(Deserialize)]
pub(in crate::ui) struct Credentials {
    key: String,
    #[serde(default)]
    back: String,
}

pub(in crate::ui) async fn show(headers: HeaderMap, Query(asked): Query<Back>) -> Response {
    let page_of = SignIn {
        base: base(&headers),
        back: local(&asked.back),
        has_ended: !asked.ended.is_empty(),
        error: None,
        assets: &ASSETS,
    };
    page(StatusCode::OK, &page_of)
}

pub(in crate::ui) async fn sign_in(
    State(ui): State<UiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, UiError> {
    let base = base(&headers);
    refuse_foreign(&headers, &base)?;
    let unreadable = || UiError::unreadable(&base);
    let form = ui.reading.sign_in(&headers, body).await;
    let form = form.ok_or_else(unreadable)?;
    let credentials: Credentials = serde_urlencoded::from_bytes(&form).map_err(|_| unreadable())?;
    let back = local(&credentials.back);
    let key = credentials.key.trim();
    let confirmed = ui.service.confirmed().await;
    confirmed.map_err(|behind| UiError::service(&behind, &base))?;
    match ui.service.sign_in(key) {
        Ok((_, cookie)) => {
            let mut response = Redirect::to(&format!("{base}{back}")).into_response();
            keep(&mut response, &set_cookie(&cookie, &base, &headers));
            Ok(response)
        }
        Err(error) => {
            if matches!(error, ServiceError::Unauthorized) {
                let id = uuid::Builder::from_random_bytes(draw(ui.entropy.as_ref())).into_uuid();
                let refused = Refused {
                    bearer: Some(key),
                    request_id: id.to_string(),
                    asked: Asked {
                        route: Some("POST /sign-in".to_owned()),
                        ..Asked::default()
                    },
                    ..Refused::default()
                };
                ui.service.note_refused(refused).await;
            }
            let told = match &error {
                ServiceError::RateLimited { wait_millis } => format!(
                    "too many wrong keys were tried; try again in {} s",
                    wait_millis.div_ceil(1_000)
                ),
                other => other.to_string(),
            };
            let page_of = SignIn {
                base,
                back,
                has_ended: false,
                error: Some(told),
                assets: &ASSETS,
            };
            Ok(page(status_of(&error), &page_of))
        }
    }
}

pub(in crate::ui) async fn sign_out(
    State(ui): State<UiState>,
    headers: HeaderMap,
    sent: Sent<NoFields>,
) -> Response {
    ui.service.sign_out(&sent.visitor.session);
    let base = &sent.visitor.base;
    let mut response = Redirect::to(&format!("{base}sign-in")).into_response();
    keep(&mut response, &set_cookie("", base, &headers));
    response
}

/// A form of nothing but its token.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct NoFields {}

fn keep(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// A path of this dashboard, whatever was asked for: another site is not led to.
fn local(back: &str) -> String {
    let back = back.trim_start_matches(['/', '\\']);
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    let is_local = back.bytes().all(plain) && !back.split('?').next().unwrap_or("").contains(':');
    if is_local {
        back.to_owned()
    } else {
        String::new()
    }
}
