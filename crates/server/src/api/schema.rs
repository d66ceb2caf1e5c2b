//! The texts of ids, times and words in the OpenAPI document.
//!
//! The domain knows nothing of OpenAPI, so each kind of text is described here once, as a type that
//! only has a schema; views name it with `#[schema(value_type = …)]`.

use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn wrap(object: Object) -> RefOr<Schema> {
    RefOr::T(Schema::Object(object))
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $pattern:literal, $example:literal, $about:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                wrap(
                    text()
                        .pattern(Some($pattern))
                        .examples([$example])
                        .description(Some($about))
                        .build(),
                )
            }
        }

        impl ToSchema for $name {}
    )*};
}

texts! {
    /// Schema of a client id.
    ClientIdText: "^[A-Za-z0-9]{8}$", "a1B2c3D4", "The public name of an app.";
    /// Schema of a workspace id.
    WorkspaceIdText: "^ws_[0-7][0-9a-hjkmnp-tv-z]{25}$", "ws_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a workspace.";
    /// Schema of an API key id.
    ApiKeyIdText: "^key_[0-7][0-9a-hjkmnp-tv-z]{25}$", "key_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of an API key, never its text.";
    /// Schema of an endpoint id.
    EndpointIdText: "^ep_[0-7][0-9a-hjkmnp-tv-z]{25}$", "ep_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of an endpoint.";
    /// Schema of a keyring id.
    KeyringIdText: "^kr_[0-7][0-9a-hjkmnp-tv-z]{25}$", "kr_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a keyring.";
    /// Schema of a secret id.
    SecretIdText: "^whs_[0-7][0-9a-hjkmnp-tv-z]{25}$", "whs_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a secret, never its value.";
    /// Schema of a rotation id.
    RotationIdText: "^rot_[0-7][0-9a-hjkmnp-tv-z]{25}$", "rot_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a rotation.";
    /// Schema of a message id.
    MessageIdText: "^msg_[0-7][0-9a-hjkmnp-tv-z]{25}$", "msg_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a message; receivers see it as webhook-id.";
    /// Schema of a delivery id.
    DeliveryIdText: "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$", "dlv_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a delivery.";
    /// Schema of an event type.
    EventTypeText: "^[A-Za-z0-9._:-]{1,128}$", "invoice.paid", "What happened.";
    /// Schema of an entry of an event filter.
    EventFilterText: "^[A-Za-z0-9._:-]{1,128}(\\.\\*)?$", "invoice.*", "An event type, or a prefix and `.*`.";
    /// Schema of a scope.
    ScopeText: "^(publish|manage|secrets|read)$", "publish", "One thing a key may do.";
    /// Schema of a preset.
    PresetText: "^(standard|hopae|kore|kore-stream|github)$", "standard", "The shape of a known sender: scheme, headers, body form and retry policy.";
    /// Schema of an HTTP method of deliveries.
    MethodText: "^(POST|GET)$", "POST", "`GET` for the preset `kore` only.";
    /// Schema of which failures are retried.
    RetryOnText: "^(anyFailure|transientOnly)$", "anyFailure", "`transientOnly`: 408, 423, 5xx and network errors.";
    /// Schema of a delivery's status.
    DeliveryStatusText: "^(pending|delivered|exhausted)$", "pending", "Where a delivery stands.";
    /// Schema of a rotation's mode.
    ModeText: "^(immediate|overlap|staged|proven)$", "overlap", "How a rotation moves. `proven` is not offered by this version.";
    /// Schema of a rotation's stage.
    StageText: "^(staged|overlap|completed|cancelled|undone)$", "overlap", "Where a rotation is.";
    /// Schema of a secret's status.
    SecretStatusText: "^(pending|active|retiring|retired|destroyed)$", "active", "Where a secret is in its life.";
    /// Schema of the kind of a key.
    KeyKindText: "^(symmetric|ed25519)$", "symmetric", "`symmetric`: `whsec_…`; `ed25519`: `whsk_…`, for the preset `standard`.";
    /// Schema of a key's environment.
    EnvironmentText: "^(test|prod)$", "test", "A word in the key's text. Both behave alike.";
    /// Schema of what a key reaches.
    ReachText: "^(operator|workspace)$", "workspace", "`operator`: every workspace.";
    /// Schema of a reveal policy.
    RevealPolicyText: "^(allowed|never)$", "allowed", "Whether a secret may be read again after the answer that created it.";
    /// Schema of a fingerprint.
    FingerprintText: "^[0-9a-f]{8}$", "3f9c01ab", "The first 8 hex digits of SHA-256 of a secret's value.";
}

/// Schema of a point in time.
pub(super) struct TimeText;

impl PartialSchema for TimeText {
    fn schema() -> RefOr<Schema> {
        wrap(
            text()
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
                .examples(["2026-11-21T20:00:00.000Z"])
                .description(Some("RFC 3339, UTC, milliseconds."))
                .build(),
        )
    }
}

impl ToSchema for TimeText {}

/// Schema of any JSON value.
pub(super) struct AnyJson;

impl PartialSchema for AnyJson {
    fn schema() -> RefOr<Schema> {
        wrap(
            ObjectBuilder::new()
                .schema_type(SchemaType::AnyValue)
                .description(Some("Any JSON value; its bytes are kept as they are sent."))
                .build(),
        )
    }
}

impl ToSchema for AnyJson {}
