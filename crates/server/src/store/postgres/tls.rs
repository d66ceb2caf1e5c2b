//! TLS to the database: rustls under the client library.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use super::connect::OpenError;

mod binding;

/// Whom to believe that it is the database.
#[derive(Debug)]
pub(super) enum Trust {
    /// Whoever answers.
    Anyone,
    /// Whose certificate leads to one of these and names the host.
    Roots(RootCertStore),
}

impl Trust {
    /// The roots in a PEM file, or the public ones.
    pub(super) fn roots(path: Option<&str>) -> Result<Self, OpenError> {
        let Some(path) = path else {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
            return Ok(Self::Roots(roots));
        };
        let refused =
            |source: Box<dyn std::error::Error + Send + Sync>| OpenError::RootCertificates {
                path: path.to_owned(),
                source,
            };
        let mut roots = RootCertStore::empty();
        let found =
            CertificateDer::pem_file_iter(path).map_err(|error| refused(Box::new(error)))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| refused(Box::new(error)))?;
            roots
                .add(certificate)
                .map_err(|error| refused(Box::new(error)))?;
        }
        if roots.is_empty() {
            return Err(refused("there is no certificate in it".into()));
        }
        Ok(Self::Roots(roots))
    }
}

/// Makes TLS connections.
#[derive(Clone)]
pub(super) struct Connector(Arc<ClientConfig>);

impl Connector {
    pub(super) fn new(trust: Trust) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        #[expect(
            clippy::expect_used,
            reason = "the provider has both versions: a test shows it"
        )]
        let builder = builder.expect("TLS 1.2 and 1.3");
        let config = match trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots),
            Trust::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        };
        Self(Arc::new(config.with_no_client_auth()))
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = std::convert::Infallible;

    /// A socket in a directory has no host; nothing is encrypted on it.
    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        let host = host.to_owned();
        let config = Arc::clone(&self.0);
        Ok(Handshake { config, host })
    }
}

/// One handshake to come.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let host = ServerName::try_from(self.host).map_err(std::io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(self.config);
            let stream = connector.connect(host, stream).await?;
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(Box<tokio_rustls::client::TlsStream<Socket>>);

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

impl TlsStream for Encrypted {
    /// To the certificate that was shown, whether or not it was believed.
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        match shown.and_then(|certificate| binding::server_end_point(certificate)) {
            Some(bound) => ChannelBinding::tls_server_end_point(bound),
            None => ChannelBinding::none(),
        }
    }
}

/// Believes every certificate, but not every signature: what is encrypted is so for whoever showed it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
