//! The judge: sees every committed change, every request on the wire and every answer to a caller, and
//! says which guarantee was broken first. It rests on [`crate::ledger`] and on what it saw itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookturn::store::model::Disk;
use hookturn::store::seal::{Place, Sealer};
use hookturn_core::audit::{Head, Recorded, verify_chain};
use hookturn_core::delivery::{DeliveryStatus, ExchangeReason, Next};
use hookturn_core::id::{DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId};
use hookturn_core::rotation::{Mode, PromotionGrounds, Rotation};
use hookturn_core::store::{Accept, Change, Finish, Write};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_verify::{Secret, Verifier};
use uuid::Uuid;

use crate::ledger::{Broken, Ledger, Life, Open};
use crate::mutant::Mutant;
use crate::nodes::Nodes;
use crate::operation::{Class, SchemeName};
use crate::receiver::{self, Answer, Arrived, Receiver, Verdict};
use crate::report::Counts;

/// Refused attempts after which a receiver that answers 500 to a bad signature must have been served:
/// every attempt but the first has the fallback.
const THROWN_MAX: u32 = 2;
/// Answers for which the same key must repeat itself, by the wall clock.
const ANSWER_KEPT: u64 = 23 * 3_600_000;

/// Who sent a request, where one of several nodes may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) node: Uuid,
    /// Whether the database says that the endpoint is in a shard of its own.
    pub(crate) owns: bool,
    /// By how much its clock may be wrong without being to blame, in milliseconds.
    pub(crate) excuse: Millis,
}

/// An endpoint and its receiver.
pub(crate) struct Target {
    pub(crate) id: EndpointId,
    pub(crate) keyring: KeyringId,
    pub(crate) receiver: Receiver,
    /// Whether messages make deliveries for it.
    pub(crate) takes_messages: bool,
    /// When a delivery to it was last recorded.
    pub(crate) delivered_at: Option<Timestamp>,
}

/// A delivery from its acceptance on.
struct Tracked {
    target: usize,
    number: u32,
    message: MessageId,
    /// Place in the order of acceptance.
    place: usize,
    /// When and by which node it was accepted: what two nodes accept within a millisecond has no order.
    placed: (Timestamp, Option<Uuid>),
    /// Order is not promised from one era to the next.
    era: usize,
    status: DeliveryStatus,
    /// Whether the receiver took it.
    taken: bool,
    /// Whether a committed finish settled it, as far as is known.
    settled: bool,
    requeued: bool,
    /// Requests that carried it, oldest first.
    wire: Vec<Sent>,
    refused: u32,
    /// The node that sent it and has not recorded what came of it.
    under_way: Option<Uuid>,
}

/// One request on the wire.
struct Sent {
    signature: String,
    /// Compromised keys among those that signed.
    compromised: bool,
    /// Refused because of the signature, by a receiver that held a live key.
    wronged: bool,
    /// What must not have changed meanwhile for that to count.
    epochs: (u64, u64),
}

/// What the wire showed about one endpoint and one rotation.
#[derive(Default)]
struct Witness {
    passes: u32,
    refused_controls: u32,
}

/// Everything that is known from outside.
pub(crate) struct Judge {
    pub(crate) mutant: Mutant,
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: String,
    pub(crate) counts: Counts,
    pub(crate) targets: Vec<Target>,
    pub(crate) ledger: Ledger,
    pub(crate) prune_before: Timestamp,
    /// Begins anew when a new process accepts at a time at which the one before had accepted already: it
    /// knows nothing of a later time that the old one had seen.
    era: usize,
    /// When the last message was accepted, and after how many crashes.
    last_accepted: (Timestamp, u64),
    verifiers: BTreeMap<(SecretId, u8), Verifier>,
    needles: Vec<(SecretId, String)>,
    tracked: BTreeMap<DeliveryId, Tracked>,
    carriers: BTreeMap<(usize, u32), DeliveryId>,
    committed: BTreeMap<u32, MessageId>,
    ids_on_wire: BTreeMap<u32, String>,
    witnesses: BTreeMap<(usize, RotationId), Witness>,
    answers: BTreeMap<String, (String, Timestamp)>,
    head: Head,
    sealer: Arc<Sealer>,
    pub(crate) nodes: Nodes,
}

impl Judge {
    pub(crate) fn new(mutant: Mutant, sealer: Arc<Sealer>) -> Self {
        Self {
            mutant,
            broken: None,
            trace: String::new(),
            counts: Counts::default(),
            targets: Vec::new(),
            ledger: Ledger::default(),
            prune_before: Timestamp::EPOCH,
            era: 0,
            last_accepted: (Timestamp::EPOCH, 0),
            verifiers: BTreeMap::new(),
            needles: Vec::new(),
            tracked: BTreeMap::new(),
            carriers: BTreeMap::new(),
            committed: BTreeMap::new(),
            ids_on_wire: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            answers: BTreeMap::new(),
            head: Head::START,
            sealer,
            nodes: Nodes::default(),
        }
    }

    /// Notes the first broken guarantee; what follows it may only follow from it.
    pub(crate) fn find(&mut self, found: Result<(), Broken>) {
        if let Err((guarantee, what)) = found {
            self.note(format_args!("BROKEN {guarantee}: {what}"));
            self.broken.get_or_insert((guarantee, what));
        }
    }

    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        use std::fmt::Write as _;
        let _ = writeln!(self.trace, "{line}");
    }

    fn target_of(&self, endpoint: EndpointId) -> Option<usize> {
        self.targets.iter().position(|target| target.id == endpoint)
    }

    /// The value of a secret.
    pub(crate) fn value(&self, id: SecretId) -> Option<Secret> {
        self.ledger.secrets.get(&id)?.value.clone()
    }

    /// No planted secret may stand in `text` (G8).
    pub(crate) fn search(&mut self, place: &str, text: &str) {
        let found = self
            .needles
            .iter()
            .find(|(_, value)| text.contains(value.as_str()));
        if let Some((id, _)) = found {
            let what = format!("the value of {id} is in {place}");
            self.find(Err(("G8", what)));
        }
    }
}

// ----- what is committed -----

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
                Write::Endpoint(endpoint) => {
                    if let Some(target) = self.target_of(endpoint.id) {
                        self.targets[target].takes_messages = endpoint.state.takes_messages();
                    }
                }
                _ => {}
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

// ----- what is on the wire -----

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

// ----- what callers hear -----

impl Judge {
    /// A publish was acknowledged (G1).
    pub(crate) fn acknowledged(&mut self, numbers: &[u32], ids: &[MessageId]) {
        for (number, id) in std::iter::zip(numbers, ids) {
            if self.committed.get(number) != Some(id) {
                let what = format!("message {number} was acknowledged as {id} and is not stored");
                self.find(Err(("G1", what)));
            }
        }
    }

    /// A request under an idempotency key was answered (G5).
    pub(crate) fn answered(&mut self, key: &str, answer: &str, now: Timestamp) {
        let known = self.answers.entry(key.to_owned());
        let (first, at) = known.or_insert_with(|| (answer.to_owned(), now));
        let apart = now.since(*at).max(at.since(now));
        if apart > ANSWER_KEPT {
            (*first, *at) = (answer.to_owned(), now);
        } else if first != answer {
            let what = format!("key {key} was answered `{first}` and then `{answer}`");
            self.find(Err(("G5", what)));
        }
    }
}

// ----- after every step -----

impl Judge {
    /// What must hold whenever nothing is half done.
    pub(crate) fn inspect(&mut self, disk: &Disk) {
        let on_disk: BTreeMap<_, _> = disk
            .deliveries()
            .into_iter()
            .map(|delivery| (delivery.id, delivery.state.status()))
            .collect();
        let mut lost = None;
        let mut untaken = None;
        for (id, tracked) in &mut self.tracked {
            if let Some(status) = on_disk.get(id) {
                tracked.status = *status;
                if *status == DeliveryStatus::Delivered && !tracked.taken {
                    untaken.get_or_insert(tracked.number);
                }
                continue;
            }
            let settled = tracked.settled || tracked.status != DeliveryStatus::Pending;
            let pruned = settled && id.created_at() < self.prune_before;
            if pruned {
                // Settled, and forgotten: whichever way it went, it is not pending.
                tracked.status = DeliveryStatus::Delivered;
            } else {
                lost.get_or_insert((*id, tracked.number));
            }
        }
        if let Some(number) = untaken {
            let what = format!("message {number} counts as delivered, and nobody took it");
            self.find(Err(("G1", what)));
        }
        if let Some((id, number)) = lost {
            let what = format!("{id} of message {number} is neither pending nor settled");
            self.find(Err(("G1", what)));
        }
        self.read_log(disk);
    }

    /// The audit log goes on from where it was last read, unbroken (G9), and holds no secret (G8).
    fn read_log(&mut self, disk: &Disk) {
        for workspace in disk.configuration().workspaces {
            let new: Vec<Recorded> = disk.audit_log(workspace.id, self.head.seq);
            match verify_chain(self.head, &new) {
                Ok(head) => self.head = head,
                Err(broken) => self.find(Err(("G9", broken.to_string()))),
            }
            let text = format!("{new:?}");
            self.search("the audit log", &text);
        }
    }

    /// A proven rotation that still waits for its promotion although nothing is in its way: every
    /// receiver of the keyring verifies, and holds both secrets since everything works again.
    pub(crate) fn waiting(&self) -> Option<RotationId> {
        let waits = |(keyring, open): (&KeyringId, &Open)| {
            let mut users = self
                .targets
                .iter()
                .filter(|target| target.keyring == *keyring);
            let staged = self.ledger.secrets.get(&open.to).map(|known| known.life);
            // Of a shared keyring, those that nothing was delivered to lately do not count.
            let clear =
                users.all(|target| target.receiver.verifies() && !target.receiver.setup.shared);
            (open.proven && clear && staged == Some(Life::Pending)).then_some(open.rotation)
        };
        self.ledger.open.iter().find_map(waits)
    }

    /// What must hold in the end, when everything had the time to settle.
    pub(crate) fn conclude(&mut self, disk: &Disk) {
        self.inspect(disk);
        let pending: BTreeSet<u32> = self
            .tracked
            .values()
            .filter(|tracked| tracked.status == DeliveryStatus::Pending)
            .map(|tracked| tracked.number)
            .collect();
        if !pending.is_empty() {
            let what = format!("messages {pending:?} never settled");
            self.find(Err(("G1", what)));
        }
        if let Some(rotation) = self.waiting() {
            let what = format!("{rotation} has every proof it could ask for and is not promoted");
            self.find(Err(("G7", what)));
        }
        let dump = disk.dump();
        self.search("the store", &dump);
        for sealed in disk.sealed() {
            let text = String::from_utf8_lossy(&sealed).into_owned();
            self.search("a sealed box", &text);
        }
    }
}

/// The number of a message, as its payload has it.
pub(crate) fn number_in(body: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(body).ok()?;
    let from = text.find("\"n\":")? + 4;
    let digits = text[from..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}
