//! Numbers of the configuration and their bounds, which are those of `core::limits`: a refusal names the
//! key, the bound and, for the file, the line.

use hookturn_core::limits;
use hookturn_core::time::{DAY, HOUR, SECOND};
use serde::{Deserialize, Deserializer};

use super::{ConfigError, Variables};

/// A number with bounds: its key in the file, its variable, least and most.
pub(super) struct Bounded {
    key: &'static str,
    variable: &'static str,
    least: u64,
    most: u64,
}

pub(super) const SHARDS: Bounded = Bounded {
    key: "delivery.shards",
    variable: "HOOKTURN_SHARDS",
    least: 0,
    most: limits::SHARDS_MAX as u64,
};
pub(super) const DISABLE_AFTER_HOURS: Bounded = Bounded {
    key: "delivery.disable_after_hours",
    variable: "HOOKTURN_DISABLE_AFTER_HOURS",
    least: limits::DISABLE_AFTER_MIN / HOUR,
    most: limits::DISABLE_AFTER_MAX / HOUR,
};
pub(super) const MAX_IN_FLIGHT: Bounded = Bounded {
    key: "delivery.max_in_flight",
    variable: "HOOKTURN_MAX_IN_FLIGHT",
    least: 1,
    most: limits::IN_FLIGHT_PER_ENDPOINT as u64,
};
pub(super) const RETENTION_DAYS: Bounded = Bounded {
    key: "retention.days",
    variable: "HOOKTURN_RETENTION_DAYS",
    least: limits::RETENTION_MIN / DAY,
    most: limits::RETENTION_MAX / DAY,
};

pub(super) const LEASE_SECONDS: Bounded = Bounded {
    key: "nodes.lease_seconds",
    variable: "HOOKTURN_LEASE_SECONDS",
    least: limits::LEASE_MIN / SECOND,
    most: limits::LEASE_MAX / SECOND,
};

pub(super) const REQUESTS_PER_SECOND: Bounded = Bounded {
    key: "api.requests_per_second",
    variable: "HOOKTURN_REQUESTS_PER_SECOND",
    least: 0,
    most: limits::REQUESTS_MAX as u64,
};
pub(super) const REQUEST_BURST: Bounded = Bounded {
    key: "api.request_burst",
    variable: "HOOKTURN_REQUEST_BURST",
    least: 1,
    most: limits::REQUESTS_MAX as u64,
};
pub(super) const SESSION_SECONDS: Bounded = Bounded {
    key: "dashboard.session_seconds",
    variable: "HOOKTURN_SESSION_SECONDS",
    least: 1,
    most: limits::SESSION_MAX / SECOND,
};

impl Bounded {
    fn wanted(&self) -> String {
        format!("a whole number from {} to {}", self.least, self.most)
    }

    fn fit<T: TryFrom<u64>>(&self, number: u64) -> Option<T> {
        let fits = (self.least..=self.most).contains(&number);
        T::try_from(number).ok().filter(|_| fits)
    }

    /// Reads it from the file, whose errors say the line.
    fn read<'de, T: TryFrom<u64>, D: Deserializer<'de>>(&self, file: D) -> Result<T, D::Error> {
        let number = i64::deserialize(file)?;
        let known = u64::try_from(number)
            .ok()
            .and_then(|number| self.fit(number));
        known.ok_or_else(|| {
            let (key, wanted) = (self.key, self.wanted());
            serde::de::Error::custom(format!("{key} must be {wanted}, not {number}"))
        })
    }

    /// Reads it from its variable, if that is set.
    pub(super) fn take<T: TryFrom<u64>>(
        &self,
        variables: &mut Variables<'_>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = variables.get(self.variable) else {
            return Ok(None);
        };
        let number = text.parse().ok().and_then(|number| self.fit(number));
        number.map(Some).ok_or_else(|| ConfigError::Value {
            name: self.variable,
            wanted: self.wanted().into(),
            given: text,
        })
    }
}

pub(super) fn requests_per_second<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    REQUESTS_PER_SECOND.read(file)
}

pub(super) fn request_burst<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    REQUEST_BURST.read(file)
}

pub(super) fn session_seconds<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    SESSION_SECONDS.read(file)
}

pub(super) fn shards<'de, D: Deserializer<'de>>(file: D) -> Result<usize, D::Error> {
    SHARDS.read(file)
}

pub(super) fn disable_after_hours<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    DISABLE_AFTER_HOURS.read(file)
}

pub(super) fn max_in_flight<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    MAX_IN_FLIGHT.read(file)
}

pub(super) fn lease_seconds<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    LEASE_SECONDS.read(file)
}

pub(super) fn retention_days<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    RETENTION_DAYS.read(file)
}
