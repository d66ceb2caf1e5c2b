//! Where the pages about secrets, rotations and who may do what are.

use axum::Router;
use axum::routing::{get, post};

use super::UiState;
use super::pages::keyrings::{rotate, secret};
use super::pages::rotations::actions;
use super::pages::{api_keys, audit, keyrings, rotations, settings};

/// Their routes.
pub(super) fn routes() -> Router<UiState> {
    Router::new()
        .merge(of_keyrings())
        .route("/rotations", get(rotations::list))
        .route("/rotations/{rotation}", get(rotations::show))
        .route("/rotations/{rotation}/news", get(rotations::news))
        .route("/rotations/{rotation}/{action}", post(actions::act))
        .route("/audit", get(audit::show))
        .route("/audit/verify", post(audit::verify))
        .route("/audit/export", get(audit::export))
        .route("/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/api-keys/{key}", get(api_keys::show))
        .route("/api-keys/{key}/expire", post(api_keys::expire))
        .route("/api-keys/{key}/revoke", post(api_keys::revoke))
        .route("/settings", get(settings::show).post(settings::change))
}

fn of_keyrings() -> Router<UiState> {
    let path_of = |rest: &str| format!("/keyrings/{{keyring}}/secrets/{{secret}}{rest}");
    Router::new()
        .route("/secrets", get(keyrings::list))
        .route("/keyrings/{keyring}", get(keyrings::show))
        .route("/keyrings/{keyring}/secrets", post(keyrings::create))
        .route("/keyrings/{keyring}/rotate", get(rotate::show))
        .route("/keyrings/{keyring}/rotations", post(rotate::open))
        .route("/keyrings/{keyring}/leaked", post(rotate::leaked))
        .route(&path_of(""), get(secret::show))
        .route(&path_of("/activate"), post(keyrings::activate))
        .route(&path_of("/reveal"), post(secret::reveal))
        .route(&path_of("/rename"), post(secret::rename))
        .route(&path_of("/destroy"), post(secret::destroy))
}
