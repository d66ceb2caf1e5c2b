//! `hookturn endpoint`: where the deliveries of an app go.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hookturn_core::endpoint::Preset;
use hookturn_core::time::Clock;
use serde_json::{Map, Value, json};

use super::args::{Id, IfVersion, Paging, Span, ValueOut, Why, pair};
use super::client::Request;
use super::exit::Failure;
use super::input;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Endpoint {
    /// Make an endpoint; the answer shows its first secret once.
    Create(Box<Create>),
    /// List the endpoints of an app.
    List {
        /// The app's id.
        app: Id,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an endpoint.
    Show(Place),
    /// Change an endpoint. What is not named stays.
    Update(Box<Update>),
    /// Messages become deliveries that wait.
    Pause(Switched),
    /// Messages become deliveries that are sent, also if its receiver had asked to wait.
    Enable(Switched),
    /// Messages make no delivery; what waits is exhausted.
    Disable(Switched),
    /// Delete an endpoint and its secrets.
    Delete(Switched),
    /// Send it a test event now, and say whether it connected and was accepted, or what failed.
    Test(Place),
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The app's id.
    app: Id,
    /// The endpoint's id.
    endpoint: Id,
}

impl Place {
    fn path(&self) -> String {
        format!("/v1/apps/{}/endpoints/{}", self.app, self.endpoint)
    }
}

#[derive(Debug, Args)]
pub(super) struct Switched {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    version: IfVersion,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The app's id.
    app: Id,
    /// Where deliveries go.
    url: String,
    /// Scheme, headers, body form and retries: standard, hopae, kore, kore-stream or github.
    #[arg(long, value_parser = preset, default_value = "standard")]
    preset: Preset,
    #[command(flatten)]
    fields: Fields,
    /// Sign with the workspace's shared keyring instead of one of its own.
    #[arg(long, conflicts_with_all = ["ed25519", "secret_file", "secret_name"])]
    shared_keyring: bool,
    /// Sign with Ed25519 (`v1a`); preset standard only.
    #[arg(long)]
    ed25519: bool,
    /// Import the first secret from this file, `-` for standard input; generated without.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What the first secret is called.
    #[arg(long, value_name = "NAME")]
    secret_name: Option<String>,
    /// Start disabled: messages make no delivery until it is enabled.
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    out: ValueOut,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    place: Place,
    /// Where deliveries go.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    version: IfVersion,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Delivery")]
pub(super) struct Fields {
    /// For people.
    #[arg(long)]
    description: Option<String>,
    /// An event type it wants, or `prefix.*`; may be repeated. All types without.
    #[arg(long = "event-type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// A header sent with every delivery; may be repeated. Values that are secret belong into
    /// --headers-file.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// File with more headers, one `NAME=VALUE` a line, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
    /// POST, or GET for KORE callbacks.
    #[arg(long, value_parser = ["POST", "GET"])]
    method: Option<String>,
    /// How the payload becomes the body: json, or form for KORE callbacks.
    #[arg(long, value_name = "FORM", value_parser = ["json", "form"])]
    body_form: Option<String>,
    /// Longest time of one exchange, such as 15s.
    #[arg(long, value_name = "SPAN")]
    timeout_per_attempt: Option<Span>,
    /// Longest time to connect, within that.
    #[arg(long, value_name = "SPAN")]
    connect_timeout: Option<Span>,
    /// Delays before each retry, such as 5s,5m,30m.
    #[arg(long, value_name = "SPAN", value_delimiter = ',')]
    retry_delays: Vec<Span>,
    /// Which failures are retried: every one, or 408, 423, 5xx and no answer.
    #[arg(long, value_name = "WHICH", requires = "retry_delays",
        value_parser = ["anyFailure", "transientOnly"])]
    retry_on: Option<String>,
    /// Exchanges that may be open to it at once.
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// Attempts per second; as many may go out at once after a second without any.
    #[arg(long, value_name = "COUNT")]
    rate_limit: Option<u32>,
    /// Keep the order of acceptance: one delivery at a time, a failure holds the rest.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    ordered: Option<bool>,
    /// Whether it is probed: on, or off, and then nothing is proved about its receiver. The three
    /// options about probes are set together; what is left out is as the default says.
    #[arg(long, value_name = "MODE", value_parser = ["on", "off"])]
    probes: Option<String>,
    /// Event type of its probes; hookturn.probe without.
    #[arg(long, value_name = "TYPE")]
    probe_type: Option<String>,
    /// File with the body of its probes (JSON, at most 4 KiB), `-` for standard input.
    #[arg(long, value_name = "FILE")]
    probe_body_file: Option<PathBuf>,
}

impl Fields {
    fn put_into(self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        let mut headers = self.headers;
        if let Some(path) = &self.headers_file {
            headers.extend(headers_of(&input::text(path, input::BODY_BYTES)?)?);
        }
        let mut put = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("description", self.description.map(Value::from));
        let types = self.event_types;
        put("events", (!types.is_empty()).then(|| types.into()));
        let headers: Map<_, _> = headers
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        put("headers", (!headers.is_empty()).then(|| headers.into()));
        put("method", self.method.map(Value::from));
        put("bodyForm", self.body_form.map(Value::from));
        put(
            "timeoutMillis",
            self.timeout_per_attempt.map(|span| span.0.into()),
        );
        put(
            "connectTimeoutMillis",
            self.connect_timeout.map(|span| span.0.into()),
        );
        let delays: Vec<_> = self.retry_delays.iter().map(|span| span.0).collect();
        let retry_on = self.retry_on.as_deref().unwrap_or("anyFailure");
        let retry = || json!({"delaysMillis": delays, "jitterPercent": 20, "retryOn": retry_on});
        put("retry", (!delays.is_empty()).then(retry));
        put("maxInFlight", self.max_in_flight.map(Value::from));
        put("rateLimitPerSecond", self.rate_limit.map(Value::from));
        put("ordered", self.ordered.map(Value::from));
        let mut probe = Map::new();
        probe.extend(self.probes.map(|mode| ("mode".to_owned(), mode.into())));
        probe.extend(
            self.probe_type
                .map(|chosen| ("eventType".to_owned(), chosen.into())),
        );
        if let Some(path) = &self.probe_body_file {
            probe.insert("body".to_owned(), input::json(path)?);
        }
        put("probe", (!probe.is_empty()).then(|| probe.into()));
        Ok(())
    }
}

fn headers_of(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    // The line is not repeated: its value may be a secret.
    lines
        .map(|line| {
            pair(line).map_err(|_| Failure::usage("a line of --headers-file is not NAME=VALUE"))
        })
        .collect()
}

fn preset(text: &str) -> Result<Preset, String> {
    text.parse::<Preset>().map_err(|error| error.to_string())
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("URL", "url"),
    ("PRESET", "preset"),
    ("STATE", "state"),
    ("EVENTS", "events"),
    ("KEYRING", "keyringId"),
    ("CREATED", "createdAt"),
];

impl Planned for Endpoint {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Create(create) => create.plan()?,
            Self::List { app, paging } => {
                let request = Request::get(format!("/v1/apps/{app}/endpoints"));
                Plan::list(request, paging, COLUMNS)
            }
            Self::Show(place) => Plan::object(Request::get(place.path())),
            Self::Update(update) => {
                let mut body = Map::new();
                body.extend(update.url.map(|url| ("url".to_owned(), url.into())));
                update.fields.put_into(&mut body)?;
                let body = update.why.into(body.into());
                let request = Request::patch(update.place.path(), &body);
                Plan::object(request.if_match(update.version.if_version))
            }
            Self::Pause(switched) => switched.to("paused"),
            Self::Enable(switched) => switched.to("enabled"),
            Self::Disable(switched) => switched.to("disabled"),
            Self::Delete(Switched {
                place,
                why,
                version,
            }) => {
                let request = Request::delete(place.path()).because(why.for_header()?);
                let request = request.if_match(version.if_version);
                let sentence = format!("deleted {} and its secrets", place.endpoint);
                Plan::sentence(request, sentence)
            }
            Self::Test(place) => {
                let path = format!("{}/test", place.path());
                Plan::test(Request::post(path, &json!({})))
            }
        })
    }
}

impl Switched {
    fn to(self, state: &str) -> Plan {
        let body = self.why.into(json!({"state": state}));
        let request = Request::patch(self.place.path(), &body);
        Plan::object(request.if_match(self.version.if_version))
    }
}

impl Create {
    fn plan(self) -> Result<Plan, Failure> {
        let mut body = Map::new();
        body.insert("url".into(), self.url.into());
        body.insert("preset".into(), self.preset.as_str().into());
        self.fields.put_into(&mut body)?;
        if self.shared_keyring {
            body.insert("keyring".into(), "workspace".into());
        }
        if self.ed25519 {
            body.insert("secretType".into(), "ed25519".into());
        }
        if let Some(path) = &self.secret_file {
            body.insert("secret".into(), input::secret_text(path)?.as_str().into());
        }
        if let Some(name) = self.secret_name {
            body.insert("secretName".into(), name.into());
        }
        if self.disabled {
            body.insert("state".into(), "disabled".into());
        }
        let request = Request::post(
            format!("/v1/apps/{}/endpoints", self.app),
            &self.why.into(body.into()),
        );
        Ok(Plan::object(request).value_out(self.out.value_out))
    }
}
