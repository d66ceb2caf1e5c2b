//! What a node counts as one of several that share a store.

use std::sync::atomic::AtomicU64;

use hookturn_core::time::Millis;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;

/// Upper bounds of the buckets of a fence, in seconds: it closes at once, or after the grace of two seconds.
const FENCE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.1, 2.5];

/// How a node stands among the others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NodeFigures {
    /// Nodes that may own shards, this one included.
    pub nodes: usize,
    /// Shards that this one owns.
    pub shards: usize,
    /// Versions of the view that were new when it last looked.
    pub behind: i64,
    /// How far its clock is behind the database's, in seconds.
    pub skew_seconds: f64,
}

#[derive(Debug)]
pub(super) struct NodeMetrics {
    nodes: Gauge,
    shards: Gauge,
    behind: Gauge,
    skew: Gauge<f64, AtomicU64>,
    fence: Histogram,
    unconfirmed: Counter,
}

impl NodeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let made = Self {
            nodes: Gauge::default(),
            shards: Gauge::default(),
            behind: Gauge::default(),
            skew: Gauge::default(),
            fence: Histogram::new(FENCE_SECONDS),
            unconfirmed: Counter::default(),
        };
        let nodes = "Nodes that share the database and may own shards";
        registry.register("nodes", nodes, made.nodes.clone());
        let shards = "Shards whose deliveries this node sends";
        registry.register("shards_owned", shards, made.shards.clone());
        let behind = "Changes of other nodes that this one had not followed when it last looked";
        registry.register("view_behind", behind, made.behind.clone());
        let skew = "How far this machine's clock is behind the database's";
        registry.register_with_unit("clock_skew", skew, Unit::Seconds, made.skew.clone());
        let fence = "Time until no node could sign by what was before a change of keys";
        registry.register_with_unit("fence", fence, Unit::Seconds, made.fence.clone());
        let unconfirmed = "Fences that waited for a node which did not answer";
        registry.register("fences_unconfirmed", unconfirmed, made.unconfirmed.clone());
        made
    }
}

impl Metrics {
    /// How this node stands among those that share its store.
    pub fn nodes(&self, figures: &NodeFigures) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.nodes.nodes.set(gauge(figures.nodes));
        self.nodes.shards.set(gauge(figures.shards));
        self.nodes.behind.set(figures.behind);
        self.nodes.skew.set(figures.skew_seconds);
    }

    /// A change of keys was answered after its fence had taken so long.
    pub fn fence(&self, took: Millis, all_confirmed: bool) {
        let millis = u32::try_from(took).unwrap_or(u32::MAX);
        self.nodes.fence.observe(f64::from(millis) / 1_000.0);
        if !all_confirmed {
            self.nodes.unconfirmed.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_fences_are_counted() {
        let metrics = Metrics::default();
        metrics.nodes(&NodeFigures {
            nodes: 3,
            shards: 85,
            behind: 1,
            skew_seconds: -0.25,
        });
        metrics.fence(40, true);
        metrics.fence(2_050, false);
        let text = metrics.render();
        for line in [
            "hookturn_nodes 3",
            "hookturn_shards_owned 85",
            "hookturn_view_behind 1",
            "hookturn_clock_skew_seconds -0.25",
            "hookturn_fence_seconds_bucket{le=\"0.05\"} 1",
            "hookturn_fence_seconds_count 2",
            "hookturn_fences_unconfirmed_total 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
