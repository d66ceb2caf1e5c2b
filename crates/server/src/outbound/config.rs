//! What all clients of a process share: policy, resolver, TLS, and the bounds of the pool.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::address::AddressPolicy;
use super::dial::Dial;
use super::resolver::Resolve;
use crate::config::Hosts;

/// Largest head of a response, in bytes. What exceeds [`KEPT_HEAD_BYTES`] of it is left out.
pub const RESPONSE_HEAD_BYTES: usize = 64 * 1024;
/// What is kept of a head, in bytes. The parser has two buffers of this size; twice as much would put
/// the largest head with the largest body above
/// [`ATTEMPT_BYTES`](hookturn_core::limits::ATTEMPT_BYTES) over TLS.
pub(super) const KEPT_HEAD_BYTES: usize = 4 * 1024;
/// What an HTTP/2 receiver is told that a head may have, in bytes as RFC 9113 counts them (section 6.5.2).
/// The parser, which has the same bound, gets [`KEPT_HEAD_BYTES`] of it at most.
pub(super) const RESPONSE_HEAD_H2_BYTES: u32 = 64 * 1024;

/// Shared by the clients of all delivery shards.
pub struct ClientConfig {
    /// Where requests may go.
    pub policy: AddressPolicy,
    /// How names become addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Names that are not looked up.
    pub hosts: Hosts,
    /// Sent as `user-agent` unless a request brings its own.
    pub user_agent: http::HeaderValue,
    /// Idle HTTP/1.1 connections kept per scheme, host and port.
    pub idle_per_host: usize,
    /// Idle connections kept by one client.
    pub idle_total: usize,
    /// How long an idle connection is kept; a receiver that announces less gets less.
    pub idle_for: Duration,
    /// Where TLS handshakes are computed; on the caller's own thread when there is none.
    pub handshakes: Option<tokio::runtime::Handle>,
    /// What stands in for TCP and TLS, in simulations; none in a server.
    pub dialer: Option<Arc<dyn Dial>>,
    /// The test inbox inside this process, if it has one.
    pub inbox: Option<Arc<dyn Dial>>,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

/// The TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text has no certificate, or one that cannot be read.
    #[error("extra root certificates: {0}; give PEM text with at least one CERTIFICATE block")]
    Roots(String),
    /// The cryptography provider does not offer what is needed.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl ClientConfig {
    /// The usual bounds, the Mozilla roots and `extra_roots` (PEM), TLS 1.2 and 1.3.
    pub fn new(
        policy: AddressPolicy,
        resolver: Arc<dyn Resolve>,
        extra_roots: Option<&[u8]>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            policy,
            resolver,
            hosts: Hosts::default(),
            user_agent: http::HeaderValue::from_static(concat!(
                "Hookturn/",
                env!("CARGO_PKG_VERSION")
            )),
            idle_per_host: 256,
            idle_total: 1_024,
            idle_for: Duration::from_secs(30),
            handshakes: None,
            dialer: None,
            inbox: None,
            tls: Arc::new(tls_config(extra_roots)?),
        })
    }
}

fn tls_config(extra_roots: Option<&[u8]>) -> Result<rustls::ClientConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = extra_roots {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| ConfigError::Roots(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| ConfigError::Roots(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(ConfigError::Roots("there is none".to_owned()));
        }
    }
    // The provider is named rather than taken from the process, so that no other dependency decides.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
