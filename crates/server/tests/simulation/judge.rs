//! The judge: sees every committed change, every request on the wire and every answer to a caller, and
//! says which guarantee was broken first. It rests on [`crate::ledger`] and on what it saw itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookturn::store::model::Disk;
use hookturn::store::seal::Sealer;
use hookturn_core::audit::{Head, Recorded, verify_chain};
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::id::{DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_verify::{Secret, Verifier};
use uuid::Uuid;

use crate::ledger::{Broken, Ledger, Life, Open};
use crate::mutant::Mutant;
use crate::nodes::Nodes;
use crate::receiver::Receiver;
use crate::report::Counts;

mod callers;
mod committed;
mod reach;
mod wire;

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
    /// Where it is.
    pub(crate) port: u16,
    /// Whether messages make deliveries for it.
    pub(crate) takes_messages: bool,
    /// With which of its own versions it began to, if it does.
    takes_since: Option<u64>,
    /// Whether a caller was told so: what is sent from then on is for it.
    promised: bool,
    /// Whether a caller was ever told of it.
    known: bool,
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
    /// Receivers behind ports, for endpoints that are asked for.
    newcomers: BTreeMap<u16, Receiver>,
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
    /// Endpoints that each message which is being sent must reach.
    wanted: BTreeMap<u32, BTreeSet<usize>>,
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
            newcomers: BTreeMap::new(),
            ledger: Ledger::default(),
            prune_before: Timestamp::EPOCH,
            era: 0,
            last_accepted: (Timestamp::EPOCH, 0),
            verifiers: BTreeMap::new(),
            needles: Vec::new(),
            tracked: BTreeMap::new(),
            carriers: BTreeMap::new(),
            committed: BTreeMap::new(),
            wanted: BTreeMap::new(),
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
