//! The texts of ids, times and words in the OpenAPI document.
//!
//! The domain knows nothing of OpenAPI, so each kind of text is described here once, as a type that
//! only has a schema; views name it with `#[schema(value_type = …)]`.

use std::borrow::Cow;

use hookturn_core::limits::{
    CUSTOM_HEADER_BYTES, CUSTOM_HEADERS, LABELS, RETRY_DELAY_MAX, TEXT_CHARS,
};
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

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                plain(stringify!($name))
            }
        }
    )*};
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident: $words:expr, $about:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                wrap(
                    text()
                        .enum_values(Some($words))
                        .description(Some($about))
                        .build(),
                )
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                plain(stringify!($name))
            }
        }
    )*};
}

/// The name in the document: these types only differ from those of the domain by their ending.
fn plain(name: &'static str) -> Cow<'static, str> {
    name.strip_suffix("Text").unwrap_or(name).into()
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
    /// Schema of a bulk rotation id.
    BulkIdText: "^blk_[0-7][0-9a-hjkmnp-tv-z]{25}$", "blk_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a bulk rotation.";
    /// Schema of the hash of a string that may be a secret.
    LeakHashText: "^[0-9a-f]{64}$", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "SHA-256 of a string, as lowercase hex digits.";
    /// Schema of a schedule id.
    ScheduleIdText: "^sch_[0-7][0-9a-hjkmnp-tv-z]{25}$", "sch_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a schedule.";
    /// Schema of a time of the day.
    TimeOfDayText: "^([01][0-9]|2[0-3]):[0-5][0-9]$", "03:30", "Hours and minutes.";
    /// Schema of a time zone.
    TimeZoneText: "^[A-Za-z][A-Za-z0-9_+/-]{0,63}$", "Europe/Berlin", "A time zone of the IANA database.";
    /// Schema of a message id.
    MessageIdText: "^msg_[0-7][0-9a-hjkmnp-tv-z]{25}$", "msg_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a message; receivers see it as webhook-id.";
    /// Schema of a delivery id.
    DeliveryIdText: "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$", "dlv_01k9x6z8e5f3v9m2c7q4t1h0ab", "The id of a delivery.";
    /// Schema of the id of a refused event of the outbox.
    RefusedEventIdText: "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", "0b2f4c1e-6a3d-4f6b-9c1d-2e5f8a7b3c4d", "The id of an event in the outbox, which `hookturn.publish` returned.";
    /// Schema of an event type.
    EventTypeText: "^[A-Za-z0-9._:-]{1,128}$", "invoice.paid", "What happened.";
    /// Schema of an entry of an event filter.
    EventFilterText: "^[A-Za-z0-9._:-]{1,128}(\\.\\*)?$", "invoice.*", "An event type, or a prefix and `.*`.";
    /// Schema of a fingerprint.
    FingerprintText: "^[0-9a-f]{8}$", "3f9c01ab", "The first 8 hex digits of SHA-256 of a secret's value.";
}

words! {
    /// Schema of a scope.
    ScopeText: ["publish", "manage", "secrets", "read"], "One thing a key may do.";
    /// Schema of a preset.
    PresetText: ["standard", "hopae", "kore", "kore-stream", "github"], "The shape of a known sender: scheme, headers, body form and retry policy.";
    /// Schema of an HTTP method of deliveries.
    MethodText: ["POST", "GET"], "`GET` for the preset `kore` only: no body, the payload's members are parameters of the URL.";
    /// Schema of how a payload becomes a body.
    BodyFormText: ["json", "form"], "`form`: the payload's members as `application/x-www-form-urlencoded`, for the preset `kore` only.";
    /// Schema of which failures are retried.
    RetryOnText: ["anyFailure", "transientOnly"], "`transientOnly`: 408, 423, 5xx and no answer at all.";
    /// Schema of a delivery's status.
    DeliveryStatusText: ["pending", "delivered", "exhausted"], "Where a delivery stands.";
    /// Schema of a rotation's mode.
    ModeText: ["immediate", "overlap", "staged", "proven"], "How a rotation moves.";
    /// Schema of what happens at a deadline.
    OnDeadlineText: ["extend", "cut"], "`extend`: the deadline moves; `cut`: the old secret is retired.";
    /// Schema of the grounds of a promotion.
    GroundsText: ["asked", "proof", "force"], "On what grounds a new secret became active.";
    /// Schema of where an endpoint stands.
    StandingText: ["not_asked", "does_not_verify", "unreachable", "not_ready", "collecting", "awaiting_control", "holding_down", "proved"], "Where an endpoint stands on the way to proof.";
    /// Schema of one key of a probe.
    ProbeKeyText: ["current", "random"], "`current`: the active secret; `random`: a key nobody holds.";
    /// Schema of a rotation's stage.
    StageText: ["staged", "overlap", "completed", "cancelled", "undone"], "Where a rotation is.";
    /// Schema of the state of a bulk rotation.
    BulkStateText: ["planned", "running", "paused", "stopped", "completed", "cancelled"], "Where a bulk rotation is; `planned` in the answer of a dry run only.";
    /// Schema of the state of an item of a bulk rotation.
    BulkItemStateText: ["waiting", "running", "stalled", "done", "failed"], "What became of a keyring of a bulk rotation.";
    /// Schema of whether a receiver dropped a secret.
    ReleaseText: ["not_asked", "released", "still_accepts", "no_answer"], "Whether a receiver still accepts the old secret, as it answered last.";
    /// Schema of a secret's status.
    SecretStatusText: ["pending", "active", "retiring", "retired", "destroyed"], "Where a secret is in its life.";
    /// Schema of a day of the week.
    WeekdayText: ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"], "A day of the week.";
    /// Schema of why a scheduled rotation is not opened.
    UnaskedText: ["endpoint_not_enabled", "probes_off", "never_contacted"], "Why an endpoint cannot be asked about secrets.";
    BlockedText: ["rotation_open", "endpoint_not_enabled", "never_contacted", "nothing_to_prove", "not_provable", "does_not_verify", "reveal_disabled"], "Why a rotation that is due cannot be opened yet.";
    /// Schema of the kind of a key.
    KeyKindText: ["symmetric", "ed25519"], "`symmetric`: `whsec_…`; `ed25519`: `whsk_…`, for the preset `standard`.";
    /// Schema of a key's environment.
    EnvironmentText: ["test", "prod"], "A word in the key's text. Both behave alike.";
    /// Schema of what a key reaches.
    ReachText: ["operator", "workspace"], "`operator`: every workspace.";
    /// Schema of a reveal policy.
    RevealPolicyText: ["allowed", "never"], "Whether a secret may be read again after the answer that created it.";
    /// Schema of which keyring signs for a new endpoint.
    KeyringChoiceText: ["own", "workspace"], "A keyring of the endpoint's own, or the workspace's shared one.";
    /// Schema of the state an owner may choose.
    SwitchText: ["enabled", "paused", "disabled"], "`paused`: messages wait; `disabled`: messages make no delivery.";
    /// Schema of an endpoint's state.
    EndpointStateText: ["enabled", "paused", "disabled", "deleted"], "Whether it takes deliveries.";
    /// Schema of why an endpoint is disabled.
    DisabledReasonText: ["byOwner", "gone", "failing"], "`gone`: the receiver answered 410; `failing`: nothing was accepted for too long.";
    /// Schema of a class of receivers.
    ReceiverClassText: ["list_aware", "first_only", "last_only", "single", "does_not_verify", "unreachable", "unknown"], "How a receiver treats a request with several signatures.";
    /// Schema of why a delivery is not attempted again.
    ExhaustedReasonText: ["attemptsUsed", "notRetried", "gone", "endpointDisabled", "endpointDeleted", "urlTooLong"], "Why it is not attempted again.";
    /// Schema of why an exchange was signed the way it was.
    ExchangeReasonText: ["plan", "fallback", "steady", "coSigned", "belief", "noBelief", "current", "canary", "compromised"], "Which rule of the signing plan chose the secrets; `plan` where nothing was signed.";
    /// Schema of what a probe was for.
    ProbePurposeText: ["rehearsal", "rotation"], "What a probe was for.";
    /// Schema of what an answer to a probe says.
    ProbeAnswerText: ["accepted", "refused", "threw", "silent"], "What the answer to a probe says about its signature.";
    /// Schema of whether an endpoint is probed.
    ProbeModeText: ["on", "off"], "`off`: never probed, so nothing is proved about its receiver.";
    /// Schema of the deliveries that can be recovered.
    SettledText: ["exhausted", "delivered"], "Which settled deliveries.";
}

/// A map from texts of one pattern to texts of another.
/// An object of texts: the patterns of names and values, the longest of either, how many of them.
fn map(names: &str, values: &str, longest: usize, most: usize, about: &str) -> RefOr<Schema> {
    let names = text().pattern(Some(names)).max_length(Some(longest));
    let values = text().pattern(Some(values)).max_length(Some(longest));
    wrap(
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .property_names(Some(Schema::Object(names.build())))
            .additional_properties(Some(Schema::Object(values.build())))
            .max_properties(Some(most))
            .description(Some(about))
            .build(),
    )
}

/// Schema of labels.
pub(super) struct Labels;

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        map(
            "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
            "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
            TEXT_CHARS,
            LABELS,
            "Free text pairs.",
        )
    }
}

impl ToSchema for Labels {}

/// Schema of custom headers.
pub(super) struct CustomHeaders;

impl PartialSchema for CustomHeaders {
    fn schema() -> RefOr<Schema> {
        map(
            "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
            "^[\\t -~]*$",
            CUSTOM_HEADER_BYTES,
            CUSTOM_HEADERS,
            "Names and values, 4 KiB for one of each, 8 KiB together. Headers of the connection and of Hookturn are refused.",
        )
    }
}

impl ToSchema for CustomHeaders {}

/// Schema of the delay before a retry.
pub(super) struct RetryDelay;

impl PartialSchema for RetryDelay {
    fn schema() -> RefOr<Schema> {
        wrap(
            ObjectBuilder::new()
                .schema_type(SchemaType::Type(Type::Integer))
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(0))
                .maximum(Some(RETRY_DELAY_MAX))
                .description(Some("Milliseconds, at most 3 days."))
                .build(),
        )
    }
}

impl ToSchema for RetryDelay {}

/// Schema of a day of the calendar.
pub(super) struct DayText;

impl PartialSchema for DayText {
    fn schema() -> RefOr<Schema> {
        wrap(
            text()
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)))
                .examples(["2026-12-24"])
                .pattern(Some("^(19[7-9]|[2-8][0-9]{2})[0-9]-"))
                .description(Some("A day of the calendar."))
                .build(),
        )
    }
}

impl ToSchema for DayText {
    fn name() -> Cow<'static, str> {
        "Day".into()
    }
}

/// Schema of a number of months that divides the year.
pub(super) struct EveryMonths;

impl PartialSchema for EveryMonths {
    fn schema() -> RefOr<Schema> {
        wrap(
            ObjectBuilder::new()
                .schema_type(SchemaType::Type(Type::Integer))
                .enum_values(Some([1, 2, 3, 4, 6, 12]))
                .description(Some("In every so many months, from January on."))
                .build(),
        )
    }
}

impl ToSchema for EveryMonths {}

/// Schema of a point in time.
pub(super) struct TimeText;

impl PartialSchema for TimeText {
    fn schema() -> RefOr<Schema> {
        wrap(
            text()
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
                .examples(["2026-11-21T20:00:00.000Z"])
                .pattern(Some("^(19[7-9]|[2-9][0-9]{2})[0-9]-"))
                .description(Some(
                    "RFC 3339, from 1970 on. Answers are in UTC with milliseconds.",
                ))
                .build(),
        )
    }
}

impl ToSchema for TimeText {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}

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
