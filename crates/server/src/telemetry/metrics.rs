//! Metrics: what the process counts, in the text format of Prometheus.
//!
//! Names follow its rules: a unit in base form as suffix, `_total` for counters. No label ever holds a
//! secret or a URL; and no id but of rotations and endpoints, where their number is bounded ([`evidence`]).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;

use hookturn_core::delivery::{Attempt, ExchangeReason, ExchangeResult, Next};
use hookturn_core::id::WorkspaceId;
use hookturn_core::proof::{ProbeAnswer, ProbeKey, Standing};
use hookturn_core::rotation::Mode;
use hookturn_core::store::StoreStats;
use hookturn_core::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::tally::Tally;

mod counted;
mod evidence;
mod nodes;

use counted::Counted;
use evidence::EvidenceMetrics;
pub use evidence::{EvidenceFigures, KnownEvidence};
pub use nodes::NodeFigures;
use nodes::NodeMetrics;

/// Upper bounds of the attempt duration buckets, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    signed_with: &'static str,
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabel {
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StandingLabel {
    standing: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Counter,
    accepted: Counter,
    refused: Counter,
    failed: Counter,
    fallbacks: Counter,
    delivered: Counter,
    retried: Counter,
    exhausted: Counter,
    duration: Histogram,
    in_flight: Gauge,
    due: Counted,
    store_bytes: Counted,
    ready: Gauge,
    outbox: OutboxFigures,
    /// By position in [`ExchangeReason::ALL`].
    exchanges: [Counter; ExchangeReason::ALL.len()],
    probes: Family<ProbeLabels, Counter>,
    rotations: Family<ModeLabel, Gauge>,
    proving: Family<StandingLabel, Gauge>,
    evidence: EvidenceMetrics,
    nodes: NodeMetrics,
    tally: Tally,
}

/// What became of the events of the outbox.
#[derive(Debug)]
struct OutboxFigures {
    accepted: Counter,
    repeated: Counter,
    refused: Counter,
    age: Gauge,
}

impl OutboxFigures {
    fn registered(registry: &mut Registry) -> Self {
        let events = Family::<Outcome, Counter>::default();
        let event = |outcome| events.get_or_create(&Outcome { outcome }).clone();
        let (accepted, repeated, refused) =
            (event("accepted"), event("repeated"), event("refused"));
        let help = "Events of the outbox by what became of them";
        registry.register("outbox", help, events);
        let age = Gauge::default();
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest event of the outbox that is no message yet",
            Unit::Seconds,
            age.clone(),
        );
        Self {
            accepted,
            repeated,
            refused,
            age,
        }
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hookturn");
        let attempts = Family::<Outcome, Counter>::default();
        let attempt = |outcome| attempts.get_or_create(&Outcome { outcome }).clone();
        let (accepted, refused, failed) =
            (attempt("accepted"), attempt("refused"), attempt("failed"));
        registry.register("attempts", "Attempts by what came of them", attempts);
        let decisions = Family::<Outcome, Counter>::default();
        let decision = |outcome| decisions.get_or_create(&Outcome { outcome }).clone();
        let (delivered, retried, exhausted) = (
            decision("delivered"),
            decision("retried"),
            decision("exhausted"),
        );
        registry.register(
            "decisions",
            "What followed the attempts of deliveries",
            decisions,
        );
        let messages = registered(&mut registry, "messages_accepted", "Messages answered 202");
        let fallbacks = registered(
            &mut registry,
            "fallbacks",
            "Attempts that were sent once more, signed with the other key",
        );
        let duration = Histogram::new(SECONDS);
        registry.register_with_unit(
            "attempt_duration",
            "Time of an attempt, fallback included",
            Unit::Seconds,
            duration.clone(),
        );
        let in_flight = registered(
            &mut registry,
            "attempts_in_flight",
            "Attempts that are under way",
        );
        let due = registered(
            &mut registry,
            "deliveries_due",
            "Pending deliveries in the store",
        );
        let store_bytes = Counted::default();
        registry.register_with_unit(
            "store_size",
            "Size of the store",
            Unit::Bytes,
            store_bytes.clone(),
        );
        let outbox = OutboxFigures::registered(&mut registry);
        let ready = registered(
            &mut registry,
            "ready",
            "1 while requests are welcome, 0 while it starts, drains or cannot write to its store",
        );
        let by_reason = Family::<Reason, Counter>::default();
        let exchanges = ExchangeReason::ALL.map(|reason| {
            let reason = reason.as_str();
            by_reason.get_or_create(&Reason { reason }).clone()
        });
        let help = "Requests of attempts, by why these secrets signed them";
        registry.register("exchanges", help, by_reason);
        let probes = Family::<ProbeLabels, Counter>::default();
        let help = "Probes by what signed them and what the answer said";
        registry.register("probes", help, probes.clone());
        let rotations = Family::<ModeLabel, Gauge>::default();
        registry.register("rotations_open", "Open rotations", rotations.clone());
        let proving = Family::<StandingLabel, Gauge>::default();
        registry.register(
            "proving_endpoints",
            "Endpoints of open proven rotations, by where they stand",
            proving.clone(),
        );
        Self {
            evidence: EvidenceMetrics::register(&mut registry),
            nodes: NodeMetrics::register(&mut registry),
            registry: Mutex::new(registry),
            exchanges,
            probes,
            rotations,
            proving,
            tally: Tally::default(),
            messages,
            accepted,
            refused,
            failed,
            fallbacks,
            delivered,
            retried,
            exhausted,
            duration,
            in_flight,
            due,
            store_bytes,
            ready,
            outbox,
        }
    }
}

impl Metrics {
    /// Messages were acknowledged.
    pub fn messages_accepted(&self, count: usize) {
        self.messages.inc_by(count as u64);
    }

    /// An attempt begins.
    pub fn attempt_begins(&self) {
        self.in_flight.inc();
    }

    /// An attempt that had begun ended, with or without a record.
    pub fn attempt_ends(&self) {
        self.in_flight.dec();
    }

    /// What the pages show of the last hours.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// An attempt of a workspace was made, and this follows for each of the `deliveries` that it was
    /// about.
    pub fn attempted(
        &self,
        workspace: WorkspaceId,
        attempt: &Attempt,
        next: &Next,
        deliveries: usize,
        now: Timestamp,
    ) {
        let took = attempt.duration_millis;
        self.tally.count(workspace, next, deliveries, took, now);
        self.duration
            .observe(f64::from(attempt.duration_millis) / 1_000.0);
        let outcome = match attempt.decisive().map(|exchange| &exchange.result) {
            Some(ExchangeResult::Answered(_)) if attempt.accepted() => &self.accepted,
            Some(ExchangeResult::Answered(_)) => &self.refused,
            Some(ExchangeResult::Failed(_)) | None => &self.failed,
        };
        outcome.inc();
        for exchange in &attempt.exchanges {
            self.exchanges[exchange.reason as usize].inc();
        }
        if attempt.exchanges.len() > 1 {
            self.fallbacks.inc();
        }
        let decision = match next {
            Next::Delivered => &self.delivered,
            Next::RetryAt(_) => &self.retried,
            Next::Exhausted(_) => &self.exhausted,
        };
        decision.inc_by(deliveries as u64);
    }

    /// A probe was answered, or not.
    pub fn probed(&self, keys: &[ProbeKey], status: Option<u16>) {
        let signed_with = match keys {
            [ProbeKey::Random] => "random",
            [ProbeKey::Secret(_)] => "secret",
            _ => "both",
        };
        let answer = match ProbeAnswer::of(status) {
            ProbeAnswer::Accepted => "accepted",
            ProbeAnswer::Refused => "refused",
            ProbeAnswer::Threw => "threw",
            ProbeAnswer::Silent => "silent",
        };
        let labels = ProbeLabels {
            signed_with,
            answer,
        };
        self.probes.get_or_create(&labels).inc();
    }

    /// Open rotations by mode, and endpoints of the proven ones by standing.
    pub fn rotations(
        &self,
        open: &HashMap<&'static str, i64>,
        proving: &HashMap<&'static str, i64>,
    ) {
        let count = |counts: &HashMap<_, _>, word| counts.get(word).copied().unwrap_or(0);
        for mode in Mode::WORDS {
            let gauge = self.rotations.get_or_create(&ModeLabel { mode });
            gauge.set(count(open, mode));
        }
        for standing in Standing::WORDS {
            let gauge = self.proving.get_or_create(&StandingLabel { standing });
            gauge.set(count(proving, standing));
        }
    }

    /// What the store counted; none when it could not.
    pub fn store(&self, counted: Option<StoreStats>) {
        self.due.set(counted.map(|stats| stats.due));
        self.store_bytes.set(counted.map(|stats| stats.bytes));
    }

    /// Events left the outbox: as messages, as ones that were messages already, or refused.
    pub fn outbox(&self, accepted: usize, repeated: usize, refused: usize) {
        self.messages_accepted(accepted);
        self.outbox.accepted.inc_by(accepted as u64);
        self.outbox.repeated.inc_by(repeated as u64);
        self.outbox.refused.inc_by(refused as u64);
    }

    /// How old the oldest event of the outbox is, in milliseconds.
    pub fn outbox_age(&self, millis: u64) {
        self.outbox.age.set((millis / 1_000).cast_signed());
    }

    /// Whether requests are welcome.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// The text that `/metrics` answers.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            // Writing into a String does not fail; an empty page would hide that it did.
            let _ = writeln!(text, "# metrics could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_counted_by_what_is_bounded() {
        let metrics = Metrics::default();
        let open = HashMap::from([("proven", 2), ("overlap", 1)]);
        let standing = HashMap::from([("collecting", 3)]);
        metrics.rotations(&open, &standing);
        metrics.rotations(&HashMap::from([("proven", 1)]), &standing);
        metrics.probed(&[ProbeKey::Random], Some(401));
        let text = metrics.render();
        for line in [
            "hookturn_rotations_open{mode=\"proven\"} 1",
            // What was there before and is gone is zero, and does not stay as it was.
            "hookturn_rotations_open{mode=\"overlap\"} 0",
            "hookturn_proving_endpoints{standing=\"collecting\"} 3",
            "hookturn_proving_endpoints{standing=\"proved\"} 0",
            "hookturn_probes_total{signed_with=\"random\",answer=\"refused\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn nothing_is_claimed_of_a_store_that_could_not_be_counted() {
        let metrics = Metrics::default();
        let shown = |name: &str| metrics.render().contains(name);
        assert!(!shown("deliveries_due") && !shown("store_size"));
        metrics.store(Some(StoreStats {
            due: 3,
            oldest_due_at: None,
            bytes: 4_096,
        }));
        assert!(shown("\nhookturn_deliveries_due 3\n"));
        assert!(shown("\nhookturn_store_size_bytes 4096\n"));
        metrics.store(None);
        assert!(!shown("deliveries_due") && !shown("store_size"));
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let metrics = Metrics::default();
        metrics.messages_accepted(3);
        let text = metrics.render();
        assert!(
            text.contains("hookturn_messages_accepted_total 3"),
            "{text}"
        );
        assert!(
            text.contains("hookturn_attempt_duration_seconds_bucket"),
            "{text}"
        );
        assert!(
            text.contains("hookturn_attempts_total{outcome=\"accepted\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("hookturn_exchanges_total{reason=\"canary\"} 0"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
