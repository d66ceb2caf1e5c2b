//! Receivers: who holds which secret, how it verifies, and how it feels today.
//!
//! They verify with the published verifier, over what arrived, at the moment it arrived.

use std::time::Duration;

use hookturn_core::id::SecretId;
use hookturn_verify::{Headers, Received, Scheme, Secret, Verifier, from_fn};

use crate::operation::{Class, Deployment, Health, SchemeName, Setup};
use crate::random::Random;

/// A request as it arrived.
pub(crate) struct Arrived {
    pub(crate) head: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// With one signature header in the place of its own.
    fn verified_by(&self, verifier: &Verifier, names: &str, signature: &str, now: i64) -> bool {
        let headers = from_fn(|name| {
            if name == names {
                Some(signature.as_bytes())
            } else {
                self.header(name).map(str::as_bytes)
            }
        });
        let received = Received {
            method: "POST",
            url: "",
            headers: &headers as &dyn Headers,
            body: &self.body,
        };
        verifier.verify(&received, now).is_ok()
    }
}

/// The scheme of a setup.
pub(crate) const fn scheme(name: SchemeName) -> Scheme {
    match name {
        SchemeName::Standard => Scheme::Standard,
        SchemeName::Hopae => Scheme::Hopae,
        SchemeName::Github => Scheme::Github,
    }
}

const fn signature_header(name: SchemeName) -> &'static str {
    match name {
        SchemeName::Standard => "webhook-signature",
        SchemeName::Hopae => "x-hopae-signature",
        SchemeName::Github => "x-hub-signature-256",
    }
}

/// The signatures of a request, in their order.
fn signatures(of: &Arrived, name: SchemeName) -> Vec<String> {
    let text = of.header(signature_header(name)).unwrap_or_default();
    match name {
        SchemeName::Standard => text.split(' ').map(str::to_owned).collect(),
        SchemeName::Hopae | SchemeName::Github => vec![text.to_owned()],
    }
}

/// Who signed each signature of a request: one of `keys`, or nobody who is known.
pub(crate) fn signers<'k>(
    of: &Arrived,
    name: SchemeName,
    keys: &(impl Iterator<Item = (SecretId, &'k Verifier)> + Clone),
    now: i64,
) -> Vec<Option<SecretId>> {
    let header = signature_header(name);
    let signed_by = |signature: &String| {
        let mut keys = keys.clone();
        keys.find(|(_, verifier)| of.verified_by(verifier, header, signature, now))
            .map(|(id, _)| id)
    };
    signatures(of, name).iter().map(signed_by).collect()
}

/// A verifier with one secret, which does not look for reasons.
pub(crate) fn verifier(name: SchemeName, secret: &Secret) -> Option<Verifier> {
    Verifier::new(scheme(name))
        .diagnose(false)
        .secret("held", secret)
        .ok()
}

/// A secret that a host verifies with.
#[derive(Clone)]
struct Held {
    id: SecretId,
    verifier: Verifier,
}

/// What a receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Takes it.
    Accepted,
    /// Does not, because of its signature.
    BadSignature(u16),
    /// Does not, for reasons of its own.
    Unwell(u16),
    /// Takes it, and never answers, or not in time.
    Silent,
    /// Closes the connection.
    Closed,
}

/// What goes back over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16, Duration),
    Never,
    Close,
}

pub(crate) struct Receiver {
    pub(crate) setup: Setup,
    hosts: Vec<Vec<Held>>,
    next_host: usize,
    pub(crate) health: Health,
    flap: bool,
    pub(crate) requests_lost: u16,
    pub(crate) answers_lost: u16,
    /// Grows with every deployment and every change of health.
    pub(crate) epoch: u64,
    random: Random,
}

impl Receiver {
    pub(crate) fn new(setup: Setup, random: Random) -> Self {
        Self {
            setup,
            hosts: vec![Vec::new(); usize::from(setup.hosts.max(1))],
            next_host: 0,
            health: Health::Well,
            flap: false,
            requests_lost: 0,
            answers_lost: 0,
            epoch: 0,
            random,
        }
    }

    pub(crate) fn deploy(&mut self, id: SecretId, secret: &Secret, to: Deployment) {
        let Some(verifier) = verifier(self.setup.scheme, secret) else {
            return;
        };
        self.epoch += 1;
        let half = self.hosts.len().div_ceil(2);
        let count = match to {
            Deployment::All | Deployment::Beside => self.hosts.len(),
            Deployment::Half => half,
        };
        for host in &mut self.hosts[..count] {
            if to == Deployment::Beside {
                host.retain(|held| held.id != id);
            } else {
                host.clear();
            }
            host.push(Held {
                id,
                verifier: verifier.clone(),
            });
        }
    }

    pub(crate) fn feel(&mut self, health: Health) {
        self.health = health;
        self.epoch += 1;
    }

    /// Whether every host holds the same one of these, and nothing but the signature decides. A fleet
    /// that is half deployed is a lottery for both keys.
    pub(crate) fn can_verify(&self, serves: impl Fn(SecretId) -> bool) -> bool {
        let everywhere = |id: SecretId| {
            let holds = |host: &Vec<Held>| host.iter().any(|held| held.id == id);
            self.hosts.iter().all(holds)
        };
        self.health == Health::Well
            && self.requests_lost == 0
            && self.answers_lost == 0
            && self.hosts[0]
                .iter()
                .any(|held| serves(held.id) && everywhere(held.id))
    }

    /// Whether it verifies at all.
    pub(crate) fn verifies(&self) -> bool {
        self.setup.class != Class::DoesNotVerify
    }

    pub(crate) fn takes_connections(&self) -> bool {
        self.health != Health::Refusing
    }

    /// Takes a request: the verdict, and what its sender gets to see of it.
    pub(crate) fn receive(&mut self, request: &Arrived, now: i64) -> (Verdict, Answer) {
        if self.random.chance(self.requests_lost) {
            return (Verdict::Closed, Answer::Close);
        }
        let verdict = self.judge(request, now);
        let delay = match self.health {
            Health::Slow { millis } => Duration::from_millis(millis),
            _ => Duration::from_millis(self.random.below(4)),
        };
        if self.random.chance(self.answers_lost) {
            let lost = if self.random.chance(500) {
                Answer::Never
            } else {
                Answer::Close
            };
            return (verdict, lost);
        }
        let answer = match verdict {
            Verdict::Accepted => Answer::Status(200, delay),
            Verdict::BadSignature(status) | Verdict::Unwell(status) => {
                Answer::Status(status, delay)
            }
            Verdict::Silent => Answer::Never,
            Verdict::Closed => Answer::Close,
        };
        (verdict, answer)
    }

    fn judge(&mut self, request: &Arrived, now: i64) -> Verdict {
        self.flap = !self.flap;
        match self.health {
            Health::Failing { status } => return Verdict::Unwell(status),
            Health::Flapping { status } if self.flap => return Verdict::Unwell(status),
            Health::Hanging => return Verdict::Silent,
            Health::Resetting | Health::Refusing => return Verdict::Closed,
            Health::Well | Health::Slow { .. } | Health::Flapping { .. } => {}
        }
        let host = &self.hosts[self.next_host % self.hosts.len()];
        self.next_host += 1;
        let header = signature_header(self.setup.scheme);
        let all = signatures(request, self.setup.scheme);
        let read: &[String] = match self.setup.class {
            Class::DoesNotVerify => return Verdict::Accepted,
            Class::ListAware | Class::Throws => &all,
            Class::FirstOnly => &all[..1],
            Class::LastOnly => &all[all.len() - 1..],
        };
        let matches = |held: &Held| {
            let text = read.join(" ");
            request.verified_by(&held.verifier, header, &text, now)
        };
        if host.iter().any(matches) {
            Verdict::Accepted
        } else if self.setup.class == Class::Throws {
            Verdict::BadSignature(500)
        } else {
            Verdict::BadSignature(401)
        }
    }
}
