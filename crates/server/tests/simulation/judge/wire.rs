//! What is on the wire: every request, at the moment at which it arrives.

use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::id::SecretId;
use hookturn_core::time::Timestamp;

use super::{Judge, Sender, Sent, Tracked, number_in};
use crate::ledger::{Broken, Life};
use crate::mutant::Mutant;
use crate::receiver::{self, Answer, Arrived, Verdict};

impl Judge {
    /// A request arrives. Everything is judged at this very moment.
    pub(crate) fn arrived(
        &mut self,
        (target, sender): (usize, Option<Sender>),
        request: &Arrived,
        now: Timestamp,
    ) -> Answer {
        self.counts.requests += 1;
        let is_probe = contains(&request.body, b"\"probe\":true");
        let number = number_in(&request.body);
        let scheme = self.targets[target].receiver.setup.scheme;
        let keys = self.verifiers.iter();
        let keys = keys.filter(|((_, name), _)| *name == scheme as u8);
        let keys = keys.map(|((id, _), verifier)| (*id, verifier));
        let signed = receiver::signers(request, scheme, &keys, now.as_seconds());
        let excuse = sender.map_or(0, |sender| sender.excuse);
        let lawful = self.judge_keys(target, &signed, is_probe, now.before(excuse));
        self.find(lawful);
        let (verdict, mut answer) = self.targets[target]
            .receiver
            .receive(request, now.as_seconds());
        let by = sender.map_or(String::new(), |sender| {
            format!(" by {}", self.nodes.name(sender.node))
        });
        self.note(format_args!(
            "{now} wire {target} {}{by} {signed:?} {verdict:?} {answer:?}",
            if is_probe {
                "probe".to_owned()
            } else {
                format!("{number:?}")
            }
        ));
        self.witness(target, &signed, verdict);
        if let (Verdict::BadSignature(_), Answer::Status(_, delay), Mutant::HidesRefusals) =
            (verdict, answer, self.mutant)
        {
            answer = Answer::Status(404, delay);
        }
        if let Some(number) = number {
            let carried = self.carried((target, sender), number, request, &signed, verdict, now);
            self.find(carried);
        }
        answer
    }

    /// G3 and G4: signed, and each signature by a key that is live now and may sign this.
    fn judge_keys(
        &self,
        target: usize,
        signed: &[Option<SecretId>],
        is_probe: bool,
        now: Timestamp,
    ) -> Result<(), Broken> {
        if signed.is_empty() {
            return Err(("G3", "a request is not signed".to_owned()));
        }
        let keyring = self.targets[target].keyring;
        for signer in signed {
            let Some(id) = signer else {
                if is_probe {
                    continue;
                }
                return Err(("G3", "a signature is by nobody who is known".to_owned()));
            };
            let known = &self.ledger.secrets[id];
            if known.keyring != keyring {
                return Err(("G3", format!("{id} belongs to another keyring")));
            }
            // A node that has not followed a change yet may sign by what was before, until the fence is closed.
            let stale = |(_, version): &&(Life, i64)| self.nodes.may_be_unknown(*version);
            let mut before = known.before.iter().filter(stale).peekable();
            let followed = before.peek().is_none();
            if !known.is_live(now) && !before.any(|(life, _)| life.is_live(now)) {
                return Err((
                    "G4",
                    format!("{id} signed at {now} and is {:?}", known.life),
                ));
            }
            if !followed {
                continue;
            }
            if known.compromised && known.life != Life::Active {
                return Err(("G4", format!("{id} is compromised and signed")));
            }
            if known.compromised && signed.len() > 1 {
                let others = signed.iter().flatten().filter(|other| *other != id);
                if others.count() > 0 && signed[0] != Some(*id) {
                    return Err(("G4", format!("{id} is compromised and co-signed")));
                }
            }
        }
        Ok(())
    }

    /// What a receiver's verdict says about the secret of an open rotation.
    fn witness(&mut self, target: usize, signed: &[Option<SecretId>], verdict: Verdict) {
        let keyring = self.targets[target].keyring;
        let Some(open) = self.ledger.open.get(&keyring) else {
            return;
        };
        let seen = self.witnesses.entry((target, open.rotation)).or_default();
        match (signed, verdict) {
            ([Some(id)], Verdict::Accepted) if *id == open.to => seen.passes += 1,
            // A receiver that is out of order refuses too, and its sender cannot tell why.
            ([None], Verdict::BadSignature(_) | Verdict::Unwell(_)) => seen.refused_controls += 1,
            _ => {}
        }
    }

    fn carried(
        &mut self,
        (target, sender): (usize, Option<Sender>),
        number: u32,
        request: &Arrived,
        signed: &[Option<SecretId>],
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Broken> {
        if let Some(id) = request.header("webhook-id") {
            let known = self
                .ids_on_wire
                .entry(number)
                .or_insert_with(|| id.to_owned());
            let stored = self.committed.get(&number).map(ToString::to_string);
            if known != id || stored.as_deref() != Some(id) {
                return Err((
                    "G2",
                    format!("message {number} is {id} and {known}, stored {stored:?}"),
                ));
            }
        }
        let Some(delivery) = self.carriers.get(&(target, number)).copied() else {
            return Err((
                "G1",
                format!("message {number} was sent and never accepted"),
            ));
        };
        let at = &self.targets[target];
        let ends = now.after(sender.map_or(0, |sender| sender.excuse));
        let serves = |id: SecretId| {
            let known = self.ledger.secrets.get(&id);
            known.is_some_and(|known| {
                known.keyring == at.keyring && known.serves(now) && known.serves(ends)
            })
        };
        // Whoever has not followed a change yet decides by what was before.
        let version = self.ledger.version_of(at.keyring);
        let followed = !self.nodes.may_be_unknown(version);
        let sent = Sent {
            signature: signature_of(request),
            compromised: followed
                && signed
                    .iter()
                    .flatten()
                    .any(|id| self.ledger.secrets[id].compromised),
            wronged: matches!(verdict, Verdict::BadSignature(_))
                && followed
                && at.receiver.can_verify(serves),
            epochs: (at.receiver.epoch, self.ledger.epoch(at.keyring)),
        };
        let ordered = at.receiver.setup.ordered;
        let Some(tracked) = self.tracked.get_mut(&delivery) else {
            return Ok(());
        };
        tracked.wire.push(sent);
        if let Some(sender) = sender {
            let closed = verdict == Verdict::Closed;
            let before = std::mem::replace(
                &mut tracked.under_way,
                Some(sender.node).filter(|_| !closed),
            );
            self.nodes.judge_sender(&sender, number, before)?;
            if tracked.settled && !tracked.requeued {
                let name = self.nodes.name(sender.node);
                let what =
                    format!("message {number} was sent by {name} after it had settled on record");
                return Err(("G2", what));
            }
        }
        if verdict != Verdict::Accepted {
            return Ok(());
        }
        self.counts.taken += 1;
        let again = std::mem::replace(&mut tracked.taken, true);
        let (place, era, requeued) = (tracked.place, tracked.era, tracked.requeued);
        let placed = tracked.placed;
        let before = |other: &&Tracked| {
            other.target == target
                && other.place < place
                && (other.placed.1 == placed.1 || other.placed.0 < placed.0)
                && other.era == era
                && !other.taken
                && !other.requeued
                && !other.settled
                && other.status == DeliveryStatus::Pending
        };
        if ordered
            && !again
            && !requeued
            && let Some(other) = self.tracked.values().find(before)
        {
            let what = format!("message {number} was taken before message {}", other.number);
            return Err(("G2", what));
        }
        Ok(())
    }
}

impl Judge {
    /// The node that sent a message last hears the answer when its view is not confirmed: it can sign no fallback, and
    /// the next attempt has to.
    pub(crate) fn heard_in_vain(&mut self, target: usize, number: u32) {
        let delivery = self.carriers.get(&(target, number)).copied();
        let tracked = delivery.and_then(|delivery| self.tracked.get_mut(&delivery));
        if let Some(sent) = tracked.and_then(|tracked| tracked.wire.last_mut()) {
            sent.wronged = false;
            self.note(format_args!(
                "message {number} is answered to a node that may not sign"
            ));
        }
    }
}

fn signature_of(request: &Arrived) -> String {
    let names = [
        "webhook-signature",
        "x-hopae-signature",
        "x-hub-signature-256",
    ];
    let found = names.into_iter().find_map(|name| request.header(name));
    found.unwrap_or_default().to_owned()
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}
