//! What is committed: changes, messages and what came of attempts.

use hookturn::store::seal::Place;
use hookturn_core::delivery::{DeliveryStatus, ExchangeReason, Next};
use hookturn_core::id::SecretId;
use hookturn_core::rotation::{Mode, PromotionGrounds, Rotation};
use hookturn_core::store::{Accept, Change, Finish, Write};
use hookturn_core::time::Timestamp;
use hookturn_verify::Secret;

use super::{Judge, Sent, Tracked, number_in};
use crate::ledger::Broken;
use crate::operation::{Class, SchemeName};
use crate::receiver;

/// Refused attempts after which a receiver that answers 500 to a bad signature must have been served:
/// every attempt but the first has the fallback.
const THROWN_MAX: u32 = 2;

impl Judge {
    pub(crate) fn changed(&mut self, change: &Change, now: Timestamp) {
        let actions = change.audit.iter().map(|entry| entry.action.as_str());
        let actions: Vec<&str> = actions.collect();
        self.note(format_args!("{now} change {}", actions.join(" ")));
        self.counts.changes += 1;
        self.ledger.version = self.nodes.version();
        let promoted = self.ledger.take(&change.audit, &change.context);
        for write in &change.writes {
            match write {
                Write::Secret(sealed) => {
                    let opened = self.sealer.open(Place::Secret(sealed), &sealed.sealed);
                    let text = String::from_utf8(opened.unwrap().to_vec()).unwrap();
                    self.plant(sealed.secret, &text);
                }
                Write::Keyring(keyring) => {
                    let compared = self.ledger.compare(keyring, now);
                    self.find(compared);
                }
                Write::Requeue { delivery, .. } => {
                    if let Some(tracked) = self.tracked.get_mut(&delivery.id) {
                        tracked.requeued = true;
                        tracked.settled = false;
                        tracked.status = DeliveryStatus::Pending;
                    }
                }
                Write::Rotation(rotation) => self.check_policy(rotation),
                _ => {}
            }
        }
        // Once the secrets are known that a new one signs with.
        for write in &change.writes {
            if let Write::Endpoint(endpoint) = write {
                self.endpoint_changed(endpoint);
            }
        }
        match promoted {
            Ok(promoted) => {
                for one in promoted {
                    self.counts.promotions += 1;
                    let rotation = change.writes.iter().find_map(|write| match write {
                        Write::Rotation(rotation) if rotation.id == one.rotation => Some(rotation),
                        _ => None,
                    });
                    let grounds = (one.grounds.as_deref(), one.by_owner, rotation);
                    let judged = match (one.proven, grounds) {
                        (false, _) | (true, (Some("force"), true, _)) => Ok(()),
                        (true, (Some("proof"), _, Some(rotation))) => self.weigh(rotation, now),
                        (true, _) => Err(("G7", format!("promoted without proof: {one:?}"))),
                    };
                    self.find(judged);
                }
            }
            Err(broken) => self.find(Err(broken)),
        }
        self.counts.rotations += u64::try_from(
            actions
                .iter()
                .filter(|action| **action == "rotation.opened")
                .count(),
        )
        .unwrap_or(0);
        let text = format!("{change:?}");
        self.search("a stored change", &text);
    }

    fn plant(&mut self, id: SecretId, text: &str) {
        let secret = Secret::parse(text).unwrap();
        for name in [SchemeName::Standard, SchemeName::Hopae, SchemeName::Github] {
            if let Some(verifier) = receiver::verifier(name, &secret) {
                self.verifiers.insert((id, name as u8), verifier);
            }
        }
        if let Some(known) = self.ledger.secrets.get_mut(&id) {
            known.value = Some(secret);
        }
        let digits = text.rsplit('_').next().unwrap_or(text);
        self.needles.push((id, digits.to_owned()));
    }

    fn check_policy(&mut self, rotation: &Rotation) {
        if let Mode::Proven { .. } = rotation.mode
            && let Some(made) = &rotation.promotion
            && made.grounds == PromotionGrounds::Asked
        {
            self.find(Err(("G7", format!("promoted because asked: {rotation:?}"))));
        }
    }

    /// Whether the wire showed what a recorded proof claims, with a formula of its own.
    fn weigh(&self, rotation: &Rotation, now: Timestamp) -> Result<(), Broken> {
        let Mode::Proven { policy } = rotation.mode else {
            return Ok(());
        };
        let refused = |what: String| Err(("G7", format!("{what}: {rotation:?}")));
        let Some(PromotionGrounds::Proof { endpoints }) =
            rotation.promotion.as_ref().map(|made| &made.grounds)
        else {
            return refused("no proof is recorded".to_owned());
        };
        if endpoints.is_empty() {
            return refused("the proof is about no endpoint".to_owned());
        }
        let missing = self.targets.iter().find(|target| {
            let late = |at: Timestamp| now < at.after(policy.look_back_millis);
            target.keyring == rotation.keyring
                && target.takes_messages
                && target.delivered_at.is_some_and(late)
                && endpoints.iter().all(|proved| proved.endpoint != target.id)
        });
        if let Some(missing) = missing {
            return refused(format!("nothing is proved about {}", missing.id));
        }
        let missed = 1.0 - f64::from(policy.confidence_percent) / 100.0;
        let kept = 1.0 - f64::from(policy.stale_percent) / 100.0;
        for proved in endpoints {
            let Some(target) = self.target_of(proved.endpoint) else {
                return refused("an unknown endpoint".to_owned());
            };
            let seen = self.witnesses.get(&(target, rotation.id));
            let (passes, controls) =
                seen.map_or((0, 0), |seen| (seen.passes, seen.refused_controls));
            if !self.targets[target].receiver.verifies() {
                return refused("its receiver verifies nothing".to_owned());
            }
            let exponent = i32::try_from(proved.passes).unwrap_or(i32::MAX);
            if kept.powi(exponent) > missed || passes < proved.passes || controls == 0 {
                return refused(format!(
                    "{passes} passes and {controls} refused controls were on the wire"
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn accepted(&mut self, accept: &Accept, now: Timestamp) {
        let by = self.nodes.committing();
        for new in &accept.messages {
            let number = number_in(&new.message.payload).unwrap();
            let (last, process) = self.last_accepted;
            // Where several nodes accept, the clock of the database says in which order.
            let at = by.map_or(new.message.accepted_at, |_| now);
            let set_back = by.is_some() && at < last;
            let another = by.is_none() && at <= last && process != self.counts.crashes;
            self.era += usize::from(set_back || another);
            self.last_accepted = (at, self.counts.crashes);
            self.counts.messages += 1;
            self.committed.insert(number, new.message.id);
            let reached = self.judge_reach(new, number);
            self.find(reached);
            for (delivery, endpoint) in &new.deliveries {
                let Some(target) = self.target_of(*endpoint) else {
                    continue;
                };
                let tracked = Tracked {
                    target,
                    number,
                    message: new.message.id,
                    place: self.tracked.len(),
                    placed: (at, by),
                    era: self.era,
                    status: DeliveryStatus::Pending,
                    taken: false,
                    settled: false,
                    requeued: false,
                    wire: Vec::new(),
                    refused: 0,
                    under_way: None,
                };
                self.tracked.insert(*delivery, tracked);
                self.carriers.insert((target, number), *delivery);
            }
        }
    }

    /// Holds a committed finish against what was on the wire.
    pub(crate) fn finished(&mut self, finish: &Finish) {
        let found = self.judge_finish(finish);
        self.find(found);
        let text = format!("{:?}", finish.attempt);
        self.search("an attempt", &text);
    }

    fn judge_finish(&mut self, finish: &Finish) -> Result<(), Broken> {
        let id = finish.due.delivery;
        let Some(tracked) = self.tracked.get_mut(&id) else {
            return Err(("G1", format!("{id} is finished and was never accepted")));
        };
        if tracked.under_way == self.nodes.committing() {
            tracked.under_way = None;
        }
        if finish.next == Next::Delivered && !tracked.taken {
            return Err((
                "G1",
                format!("{id} is recorded as delivered, and nobody took it"),
            ));
        }
        if finish.next == Next::Delivered {
            self.targets[tracked.target].delivered_at = Some(finish.at);
        }
        tracked.settled |= !matches!(finish.next, Next::RetryAt(_));
        let Some(attempt) = &finish.attempt else {
            return Ok(());
        };
        let target = &self.targets[tracked.target];
        let epochs = (target.receiver.epoch, self.ledger.epoch(target.keyring));
        let sent: Vec<Option<&Sent>> = attempt
            .exchanges
            .iter()
            .map(|made| {
                let same = |sent: &&Sent| sent.signature == made.signature;
                tracked.wire.iter().rev().find(same)
            })
            .collect();
        for (made, sent) in std::iter::zip(&attempt.exchanges, &sent) {
            let used = sent.is_some_and(|sent| sent.compromised);
            if made.reason == ExchangeReason::Fallback && used {
                return Err(("G4", format!("a compromised key was a fallback for {id}")));
            }
            if !made.signature.is_empty() && sent.is_none() {
                return Err((
                    "G3",
                    format!("an exchange of {id} is recorded that nobody saw"),
                ));
            }
        }
        // A window that ended meanwhile, by a jump of the clock too, leaves nothing to fall back to.
        let serves = |id: SecretId| {
            let known = self.ledger.secrets.get(&id);
            let ends = finish.at.after(self.nodes.fair());
            known.is_some_and(|known| {
                known.keyring == target.keyring && known.serves(finish.at) && known.serves(ends)
            })
        };
        let wronged = !attempt.accepted()
            && !sent.is_empty()
            && target.receiver.can_verify(serves)
            && sent
                .iter()
                .all(|sent| sent.is_some_and(|sent| sent.wronged && sent.epochs == epochs));
        tracked.refused = if wronged { tracked.refused + 1 } else { 0 };
        let bound = match target.receiver.setup.class {
            Class::Throws => THROWN_MAX,
            _ => 1,
        };
        if tracked.refused >= bound {
            let message = tracked.message;
            return Err((
                "G6",
                format!("{message} was refused by a receiver that held a live key: {attempt:?}"),
            ));
        }
        Ok(())
    }
}
