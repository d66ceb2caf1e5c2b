//! Which endpoints a message must reach: those that take messages and want its type, of which a caller was told before
//! the message was sent, whichever nodes were asked (G1).
//!
//! What counts is what callers know. An endpoint that is made or switched on while a message is on its way may get it or
//! not; one that is switched off before the message is committed may miss it, and everything later, until a caller is told
//! that it is on again. What an answer says is compared with what is committed by the version of the endpoint: an answer
//! that is repeated by its key may tell of what is over.

use std::collections::BTreeSet;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, SecretId};
use hookturn_core::store::NewMessage;

use super::{Judge, Target};
use crate::ledger::Broken;
use crate::operation::{Deployment, EVERY_TYPE, Setup, event_type_of};
use crate::random::Random;
use crate::receiver::Receiver;

impl Judge {
    /// An endpoint with this receiver is about to be asked for.
    pub(crate) fn expect(&mut self, port: u16, setup: Setup, random: Random) {
        self.newcomers.insert(port, Receiver::new(setup, random));
    }

    /// An endpoint is committed: a new one, whose owner deploys the secret that signs, or another version of one.
    pub(super) fn endpoint_changed(&mut self, endpoint: &Endpoint) {
        let takes = endpoint.state.takes_messages();
        if let Some(index) = self.target_of(endpoint.id) {
            let target = &mut self.targets[index];
            target.takes_messages = takes;
            target.takes_since = takes.then(|| target.takes_since.unwrap_or(endpoint.version));
            if !takes {
                target.promised = false;
                for wanted in self.wanted.values_mut() {
                    wanted.remove(&index);
                }
            }
            return;
        }
        let port = endpoint.url.as_ref().and_then(|url| url.url().port());
        let newcomer = port.and_then(|port| Some((port, self.newcomers.remove(&port)?)));
        let Some((port, receiver)) = newcomer else {
            return;
        };
        // Those of the beginning do not count.
        self.counts.endpoints += u64::from(self.counts.operations > 0);
        self.targets.push(Target {
            id: endpoint.id,
            keyring: endpoint.keyring,
            receiver,
            port,
            takes_messages: takes,
            takes_since: takes.then_some(endpoint.version),
            promised: false,
            known: false,
            delivered_at: None,
        });
        if let Some(secret) = self.ledger.active(endpoint.keyring) {
            self.deploy(self.targets.len() - 1, secret, Deployment::All);
        }
    }

    /// A host, or all of them, get a secret.
    pub(crate) fn deploy(&mut self, target: usize, secret: SecretId, to: Deployment) {
        if let Some(value) = self.value(secret) {
            self.targets[target].receiver.deploy(secret, &value, to);
        }
    }

    /// A caller is told that an endpoint takes messages, as of a version of it.
    pub(crate) fn told_of(&mut self, endpoint: EndpointId, version: u64) {
        if let Some(target) = self.target_of(endpoint) {
            let target = &mut self.targets[target];
            target.known = true;
            let still = target.takes_since.is_some_and(|since| since <= version);
            target.promised |= still;
        }
    }

    /// Whether a caller was told of an endpoint: it is never removed, so it is there for everybody from then on.
    pub(crate) fn is_known(&self, endpoint: EndpointId) -> bool {
        let target = self.target_of(endpoint);
        target.is_some_and(|target| self.targets[target].known)
    }

    /// A node that may answer by what it knows said that something of an endpoint is not there, of which a caller had
    /// been told before it asked.
    pub(crate) fn denied(&mut self, key: &str, what: &str) {
        let what = format!("{key} was told that there is no {what}, and it is there");
        self.find(Err(("G1", what)));
    }

    /// Messages are being sent.
    pub(crate) fn sending(&mut self, numbers: &[u32]) {
        let promised = self.targets.iter().enumerate();
        let promised = promised.filter(|(_, target)| target.promised);
        let promised: Vec<(usize, bool)> = promised
            .map(|(index, target)| (index, target.receiver.setup.picky))
            .collect();
        for number in numbers {
            let of_every = event_type_of(*number) == EVERY_TYPE;
            let wants = promised.iter().filter(|(_, picky)| of_every || !picky);
            self.wanted
                .insert(*number, wants.map(|(index, _)| *index).collect());
        }
    }

    /// A message is committed: it is for everyone whom it must reach, and for nobody who does not want it.
    pub(super) fn judge_reach(&mut self, new: &NewMessage, number: u32) -> Result<(), Broken> {
        let of = new.deliveries.iter();
        let of = of.filter_map(|(_, endpoint)| self.target_of(*endpoint));
        let of: BTreeSet<usize> = of.collect();
        let unasked = |index: &&usize| {
            self.targets[**index].receiver.setup.picky && event_type_of(number) != EVERY_TYPE
        };
        if let Some(index) = of.iter().find(unasked) {
            let what = format!("endpoint {index} gets message {number} and does not want its type");
            return Err(("G1", what));
        }
        let wanted = self.wanted.remove(&number).unwrap_or_default();
        self.counts.reaches += wanted.len() as u64;
        match wanted.difference(&of).next() {
            None => Ok(()),
            Some(missed) => {
                let what = format!(
                    "message {number} does not reach endpoint {missed}, which took messages before it was sent"
                );
                Err(("G1", what))
            }
        }
    }
}
