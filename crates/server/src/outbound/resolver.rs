//! From a host name to addresses.
//!
//! The resolver answers; it judges nothing. Every answer goes through the
//! [`AddressPolicy`](super::address::AddressPolicy) before a connection is made, and the connection is
//! made to the very addresses that were judged: no second lookup happens in between. Host literals
//! never come here.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

/// Names the built-in resolver remembers, per process; the least used is forgotten first.
pub const CACHED_NAMES: u64 = 4_096;
/// Longest time an answer is used, in seconds, whatever its time to live says.
const ANSWER_SECONDS_MAX: u64 = 3_600;
/// Longest time a failure is used, in seconds: a name that was just created should soon work.
const FAILURE_SECONDS_MAX: u64 = 30;

/// The future of one lookup.
pub type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// Finds the addresses of a name. Injected, so that tests can answer as a hostile name server does.
pub trait Resolve: Send + Sync {
    /// All addresses of `name`, in the order they should be tried. The caller bounds the time.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// A name has no addresses, or nobody could say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolveError(pub String);

/// The system's resolver configuration and hosts file, read once; answers cached by their time to
/// live, at most [`CACHED_NAMES`] of them.
pub struct SystemResolver {
    /// The reason why there is none: a server without DNS still delivers to literal addresses.
    inner: Result<TokioResolver, ResolveError>,
}

impl SystemResolver {
    /// Reads the system's configuration. Reports a failure when a name is asked for, not here.
    pub fn new() -> Self {
        Self {
            inner: build().map_err(|error| {
                ResolveError(format!(
                    "the system's DNS configuration cannot be used: {error}"
                ))
            }),
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

fn build() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    // Both families, always: an answer is judged as a whole.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = CACHED_NAMES;
    options.positive_max_ttl = Some(std::time::Duration::from_secs(ANSWER_SECONDS_MAX));
    options.negative_max_ttl = Some(std::time::Duration::from_secs(FAILURE_SECONDS_MAX));
    builder.build()
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let resolver = self.inner.as_ref().map_err(Clone::clone)?;
            let answer = resolver.lookup_ip(name).await.map_err(|error| {
                ResolveError(if error.is_nx_domain() {
                    format!("the name {name} does not exist")
                } else if error.is_no_records_found() {
                    format!("the name {name} has no address")
                } else {
                    format!("the name {name} could not be looked up: {error}")
                })
            })?;
            Ok(answer.iter().collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_this_host() {
        let addresses = SystemResolver::new().resolve("localhost").await.unwrap();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }
}
