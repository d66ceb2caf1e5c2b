//! A gauge of what is counted from time to time.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// A figure that is absent until it was counted, and since it could not be: 0 would be a claim.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted(Arc<Mutex<Option<u64>>>);

impl Counted {
    pub(super) fn set(&self, figure: Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figure;
    }

    fn get(&self) -> Option<u64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Counted {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        match self.get() {
            Some(figure) => encoder.encode_gauge(&figure.cast_signed()),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.get().is_none()
    }
}
