//! The senders that a customer can choose, and one endpoint of each on the running server.

use serde_json::{Value, json};
use url::{Position, Url};

use crate::panel::{Hearing, Receiving};
use crate::support::{Api, Captured, Endpoint, Receiver, SecretValue};

pub(crate) const EVENT_TYPE: &str = "judge.called";

/// A preset with a kind of key: everything that decides how requests are signed.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) name: &'static str,
    preset: &'static str,
    secret_type: &'static str,
    method: &'static str,
    /// What follows the receiver's origin in the configured URL.
    path: &'static str,
    /// What its judges call the scheme.
    scheme: &'static str,
    signature: &'static str,
    id: Option<&'static str>,
    /// A secret that its inventor published, to be imported.
    pub(crate) published_secret: &'static str,
}

const STANDARD: Sender = Sender {
    name: "standard",
    preset: "standard",
    secret_type: "symmetric",
    method: "POST",
    path: "/hooks",
    scheme: "standard",
    signature: "webhook-signature",
    id: Some("webhook-id"),
    published_secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
};

const KORE: Sender = Sender {
    name: "kore, a path and a query",
    preset: "kore",
    path: "/hooks/ä%2f//?cbs=kore&a=1",
    scheme: "kore",
    signature: "kore-signature",
    id: Some("kore-idempotency-token"),
    published_secret: "secret12345",
    ..STANDARD
};

/// The senders whose schemes carry several signatures.
pub(crate) const LISTS: &[Sender] = &[
    STANDARD,
    Sender {
        name: "standard, asymmetric",
        secret_type: "ed25519",
        scheme: "standard-v1a",
        published_secret: "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        ..STANDARD
    },
];

/// All senders.
pub(crate) const ALL: &[Sender] = &[
    LISTS[0],
    LISTS[1],
    Sender {
        name: "hopae",
        preset: "hopae",
        scheme: "hopae",
        signature: "x-hopae-signature",
        id: None,
        published_secret: "whsec_a3f2c1e4b8d7f6a9c2e5b1d4f7a0c3e6b9d2f5a8c1e4b7d0f3a6c9e2b5d8f1a4",
        ..STANDARD
    },
    Sender {
        name: "github",
        preset: "github",
        scheme: "github",
        signature: "x-hub-signature-256",
        id: Some("x-github-delivery"),
        published_secret: "It's a Secret to Everybody",
        ..STANDARD
    },
    KORE,
    // A URL parser adds a slash here, which is not signed.
    Sender {
        name: "kore, an origin alone",
        path: "",
        ..KORE
    },
    Sender {
        name: "kore, without a body",
        method: "GET",
        path: "/hooks#cbs=kore",
        ..KORE
    },
    Sender {
        name: "kore-stream",
        preset: "kore-stream",
        ..KORE
    },
];

impl Sender {
    /// Checks that the payload, given also without insignificant white space, arrived as its
    /// receivers know it. What stands around it is checked as far as the payload begins and ends.
    pub(crate) fn check_body(&self, payload: &str, minified: &str, captured: &Captured) {
        let body = captured.text();
        match (self.preset, self.method) {
            (_, "GET") => assert_eq!(body, ""),
            ("kore", _) => assert_eq!(body, minified),
            ("hopae", _) => {
                assert!(body.starts_with(r#"{"event":"judge.called","#), "{body}");
                assert!(body.ends_with(&format!(r#","data":{payload}}}"#)), "{body}");
            }
            ("kore-stream", _) => {
                assert!(
                    body.starts_with(&format!(r#"[{{"data":{minified},"#)),
                    "{body}"
                );
            }
            _ => assert_eq!(body, payload),
        }
        assert_eq!(captured.method, self.method);
    }

    /// The value of its signature header, which stands on one line.
    pub(crate) fn signature<'c>(&self, captured: &'c Captured) -> &'c str {
        captured.header(self.signature)
    }

    /// The header that carries the message's id, if its sender has one.
    pub(crate) fn id_header(&self) -> Option<&'static str> {
        self.id
    }
}

/// An endpoint of a sender on the running server, with the receiver behind it.
pub(crate) struct Stand {
    pub(crate) sender: Sender,
    pub(crate) app: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) receiver: Receiver,
    pub(crate) receiving: Receiving,
    /// The secret of another endpoint: the right form, but not the one that signs.
    pub(crate) other_secret: SecretValue,
}

impl Stand {
    /// Makes an app with one endpoint, and a second app whose endpoint is never delivered to.
    pub(crate) async fn build(api: &Api, sender: Sender, receiver: Receiver) -> Self {
        Self::build_with(api, sender, receiver, json!({})).await
    }

    /// The same, with more about the first endpoint.
    pub(crate) async fn build_with(
        api: &Api,
        sender: Sender,
        receiver: Receiver,
        more: Value,
    ) -> Self {
        let url = format!("{}{}", receiver.origin(), sender.path);
        let mut described = json!({
            "url": url,
            "preset": sender.preset,
            "secretType": sender.secret_type,
            "method": sender.method,
        });
        let neighbour = api.create_app("neighbour").await;
        let other = api.create_endpoint(&neighbour, &described).await;
        if let (Value::Object(described), Value::Object(more)) = (&mut described, more) {
            described.extend(more);
        }
        let app = api.create_app(sender.name).await;
        let endpoint = api.create_endpoint(&app, &described).await;
        Self {
            sender,
            app,
            endpoint,
            receiver,
            receiving: Receiving {
                scheme: sender.scheme,
                url,
            },
            other_secret: other.secret,
        }
    }

    /// Publishes a payload and takes the request that comes of it.
    pub(crate) async fn deliver(&mut self, api: &Api, payload: &str) -> Captured {
        let id = api.publish(&self.app, EVENT_TYPE, payload).await;
        let captured = self.receiver.next().await;
        let url = Url::parse(&self.receiving.url).unwrap();
        let configured = &url[Position::BeforePath..Position::AfterQuery];
        if self.sender.method == "GET" {
            // A callback by GET adds the payload's members as parameters.
            let added = captured.path.strip_prefix(configured);
            assert!(added.is_some_and(|added| added.starts_with('?')));
        } else {
            assert_eq!(captured.path, configured);
        }
        if let Some(header) = self.sender.id_header() {
            assert_eq!(captured.header(header), id, "{}", self.sender.name);
        }
        captured
    }

    /// The same in a workspace that has other names for its headers.
    pub(crate) async fn deliver_renamed(&mut self, api: &Api, payload: &str) -> Captured {
        api.publish(&self.app, EVENT_TYPE, payload).await;
        self.receiver.next().await
    }

    /// Requires that a receiver with `holds` accepts, and one with `lacks` refuses.
    pub(crate) fn hear(
        &self,
        hearing: &mut Hearing,
        when: &str,
        captured: &Captured,
        holds: &SecretValue,
        lacks: &SecretValue,
    ) {
        let name = format!("{}, {when}", self.sender.name);
        hearing.accepts(&name, &self.receiving, holds, captured);
        let name = format!("{name}, the other secret");
        hearing.rejects(&name, &self.receiving, lacks, captured);
    }
}
