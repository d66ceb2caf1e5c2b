//! What is known of the receivers of open rotations, one by one.
//!
//! The only labels that are ids. They are bounded by whoever hands the figures in
//! ([`hookturn_core::limits::EVIDENCE_METERED`]), replaced as a whole, and so gone when their rotation is over.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::id::EndpointId;
use hookturn_core::proof::{Evidence, ProofPolicy, Standing, required_passes, ruled_out_percent};
use hookturn_core::time::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;

/// What is known of the receivers of open rotations.
#[derive(Debug, Clone, Default)]
pub struct EvidenceFigures {
    /// Of each endpoint, those whose rotation has the nearest deadline first.
    pub known: Vec<KnownEvidence>,
    /// Endpoints for which there was no room.
    pub left_out: usize,
}

/// What is known of one endpoint and the rotation that its evidence is about.
#[derive(Debug, Clone)]
pub struct KnownEvidence {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// It.
    pub evidence: Evidence,
    /// By which the rotation counts.
    pub policy: ProofPolicy,
    /// Where the endpoint stands.
    pub standing: Standing,
}

/// A metric: its name, what it is, and how it is read from what is known.
type Metered<Known, Value> = (&'static str, &'static str, fn(&Known) -> Value);

/// Counters, by name: they never shrink while their rotation is open.
const COUNTERS: [Metered<Evidence, u32>; 6] = [
    (
        "rotation_probe_passes",
        "Probes signed with the new secret alone that were accepted",
        |evidence| evidence.probe_passes,
    ),
    (
        "rotation_delivery_passes",
        "Deliveries signed with the new secret alone that were accepted",
        |evidence| evidence.delivery_passes,
    ),
    (
        "rotation_refusals",
        "Requests signed with the new secret alone that were refused",
        |evidence| evidence.refusals,
    ),
    (
        "rotation_canaries",
        "Deliveries before the promotion that were signed with the new secret first",
        |evidence| evidence.canaries,
    ),
    (
        "rotation_fallbacks",
        "Deliveries of a rotation that were refused and sent once more, signed with the other secret",
        |evidence| evidence.fallbacks,
    ),
    (
        "rotation_old_needed",
        "Deliveries of the overlap that the old secret alone got accepted",
        |evidence| evidence.old_needed,
    ),
];

/// Gauges, by name.
const GAUGES: [Metered<KnownEvidence, f64>; 3] = [
    (
        "rotation_passes",
        "Requests in a row that were signed with the new secret alone and accepted",
        |known| f64::from(known.evidence.run),
    ),
    (
        "rotation_passes_needed",
        "Requests in a row that are needed for the proof",
        |known| f64::from(required_passes(&known.policy, known.evidence.broken)),
    ),
    (
        "rotation_ruled_out_ratio",
        "Smallest stale share of the receiver's machines that the passes rule out; 1 without any",
        |known| f64::from(ruled_out_percent(&known.policy, known.evidence.run)) / 100.0,
    ),
];

/// Times, by name: each is there once it has happened.
const TIMES: [Metered<Evidence, Option<Timestamp>>; 4] = [
    (
        "rotation_first_pass_timestamp",
        "When the present run of passes began",
        |evidence| evidence.run_since,
    ),
    (
        "rotation_last_pass_timestamp",
        "When a request signed with the new secret alone was last accepted",
        |evidence| evidence.passed_at,
    ),
    (
        "rotation_last_refusal_timestamp",
        "When a request signed with the new secret alone was last refused",
        |evidence| evidence.refused_at,
    ),
    (
        "rotation_last_fallback_timestamp",
        "When a delivery was last sent once more, signed with the other secret",
        |evidence| evidence.fallback_at,
    ),
];

/// See the module text.
#[derive(Debug)]
pub(super) struct EvidenceMetrics {
    shown: Arc<Shown>,
    left_out: Gauge,
}

/// What the next scrape tells.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<KnownEvidence>>);

impl EvidenceMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let made = Self {
            shown: Arc::new(Shown::default()),
            left_out: Gauge::default(),
        };
        let help = "Endpoints of open rotations whose evidence is not here one by one";
        registry.register("rotation_evidence_left_out", help, made.left_out.clone());
        registry.register_collector(Box::new(Arc::clone(&made.shown)));
        made
    }
}

impl Metrics {
    /// What is known of the receivers of open rotations, in place of what was told before.
    pub fn evidence(&self, figures: EvidenceFigures) {
        let left_out = i64::try_from(figures.left_out).unwrap_or(i64::MAX);
        self.evidence.left_out.set(left_out);
        let shown = self.evidence.shown.0.lock();
        *shown.unwrap_or_else(PoisonError::into_inner) = figures.known;
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.is_empty() {
            return Ok(());
        }
        let labels: Vec<_> = shown.iter().map(labels_of).collect();
        for (name, help, value) in GAUGES {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (known, labels) in shown.iter().zip(&labels) {
                ConstGauge::new(value(known)).encode(gauge.encode_family(labels)?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (known, labels) in shown.iter().zip(&labels) {
                let value = ConstCounter::new(u64::from(value(&known.evidence)));
                value.encode(counter.encode_family(labels)?)?;
            }
        }
        let seconds = Unit::Seconds;
        for (name, help, at) in TIMES {
            let unit = Some(&seconds);
            let mut gauge = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (known, labels) in shown.iter().zip(&labels) {
                if let Some(at) = at(&known.evidence) {
                    ConstGauge::new(at.as_seconds()).encode(gauge.encode_family(labels)?)?;
                }
            }
        }
        let help = "Where an endpoint stands on the way to proof: 1 for the word that holds";
        let mut gauge =
            encoder.encode_descriptor("rotation_standing", help, None, MetricType::Gauge)?;
        for (known, [rotation, endpoint]) in shown.iter().zip(&labels) {
            let standing = ("standing", known.standing.as_str().to_owned());
            let labels = [rotation.clone(), endpoint.clone(), standing];
            ConstGauge::new(1_i64).encode(gauge.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn labels_of(known: &KnownEvidence) -> [(&'static str, String); 2] {
    [
        ("rotation", known.evidence.rotation.to_string()),
        ("endpoint", known.endpoint.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use hookturn_core::id::RotationId;
    use hookturn_core::proof::{Observed, ProbeAnswer};

    use super::*;

    #[test]
    fn evidence_is_told_until_its_rotation_is_over() {
        let metrics = Metrics::default();
        assert!(!metrics.render().contains("rotation_passes"));
        let (rotation, endpoint) = (
            RotationId::from_bytes([7; 16]),
            EndpointId::from_bytes([3; 16]),
        );
        let policy = ProofPolicy::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let answers = [ProbeAnswer::Refused, ProbeAnswer::Accepted];
        let evidence = answers
            .iter()
            .zip(100..)
            .fold(Evidence::new(rotation), |known, (answer, seconds)| {
                known.after(&policy, Observed::Probe, *answer, at(seconds))
            });
        let standing = evidence.standing(&policy, at(102));
        let known = KnownEvidence {
            endpoint,
            evidence,
            policy,
            standing,
        };
        metrics.evidence(EvidenceFigures {
            known: vec![known],
            left_out: 3,
        });
        let text = metrics.render();
        let ruled_out = f64::from(ruled_out_percent(&policy, 1)) / 100.0;
        let labels = format!("rotation=\"{rotation}\",endpoint=\"{endpoint}\"");
        for line in [
            format!("hookturn_rotation_passes{{{labels}}} 1.0"),
            format!("hookturn_rotation_passes_needed{{{labels}}} 59.0"),
            format!("hookturn_rotation_ruled_out_ratio{{{labels}}} {ruled_out}"),
            format!("hookturn_rotation_probe_passes_total{{{labels}}} 1"),
            format!("hookturn_rotation_refusals_total{{{labels}}} 1"),
            format!("hookturn_rotation_last_refusal_timestamp_seconds{{{labels}}} 100"),
            format!("hookturn_rotation_first_pass_timestamp_seconds{{{labels}}} 101"),
            format!("hookturn_rotation_standing{{{labels},standing=\"collecting\"}} 1"),
            "hookturn_rotation_evidence_left_out 3".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("last_fallback_timestamp_seconds{"), "{text}");
        metrics.evidence(EvidenceFigures::default());
        let text = metrics.render();
        assert!(!text.contains(&labels), "{text}");
        assert!(text.contains("hookturn_rotation_evidence_left_out 0"));
    }
}
