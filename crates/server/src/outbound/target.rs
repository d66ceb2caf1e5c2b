//! Where an endpoint's requests go, parsed once and shared by every attempt.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use url::{Host, Url};

use super::address::{NameClass, Refused, Rule, check_shape, classify_name};

/// The host of the test inbox inside this process. No resolver has an address for a name below `invalid`
/// (RFC 6761), so nothing else can ever be meant by it.
pub const INBOX_HOST: &str = "inbox.hookturn.invalid";

/// A receiver's URL in the forms that the wire, the pool and the policy need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: Arc<str>,
    port: u16,
    literal: Option<IpAddr>,
    name_class: NameClass,
    inbox: bool,
    /// `https://host:port`: connections are shared by everything that has the same key.
    key: Arc<str>,
    host_header: HeaderValue,
    /// Path and query, for HTTP/1.1.
    origin_form: Uri,
    /// The whole URL, for HTTP/2's pseudo headers.
    absolute_form: Uri,
    server_name: ServerName<'static>,
}

impl Target {
    /// Parses an endpoint's URL. Refuses only what no policy could allow; the rest is
    /// [`AddressPolicy`](super::address::AddressPolicy)'s.
    pub fn new(url: &Url) -> Result<Self, Refused> {
        let (host, literal) = match check_shape(url)? {
            Host::Domain(name) => (name.trim_end_matches('.').to_ascii_lowercase(), None),
            Host::Ipv4(ip) => (ip.to_string(), Some(IpAddr::V4(ip))),
            Host::Ipv6(ip) => (ip.to_string(), Some(IpAddr::V6(ip))),
        };
        let tls = url.scheme() == "https";
        let port = url
            .port_or_known_default()
            .ok_or_else(|| unusable("it has no port"))?;
        let bracketed = match literal {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => host.clone(),
        };
        let shown = match url.port() {
            Some(port) => format!("{bracketed}:{port}"),
            None => bracketed.clone(),
        };
        let path_and_query = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let authority: Authority = shown.parse().map_err(unusable)?;
        let origin_form: Uri = path_and_query.parse().map_err(unusable)?;
        let absolute_form = Uri::builder()
            .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(authority)
            .path_and_query(path_and_query)
            .build()
            .map_err(unusable)?;
        let server_name = match literal {
            Some(ip) => ServerName::IpAddress(ip.into()),
            None => ServerName::try_from(host.clone()).map_err(unusable)?,
        };
        Ok(Self {
            tls,
            port,
            literal,
            name_class: match literal {
                Some(_) => NameClass::Public,
                None => classify_name(&host),
            },
            inbox: !tls && port == 80 && host == INBOX_HOST,
            key: format!("{}://{bracketed}:{port}", url.scheme()).into(),
            host_header: HeaderValue::try_from(shown).map_err(unusable)?,
            host: host.into(),
            origin_form,
            absolute_form,
            server_name,
        })
    }

    /// Whether the scheme is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host without brackets and without a trailing dot, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's own when the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is the test inbox inside this process, for which no address is opened.
    pub fn is_inbox(&self) -> bool {
        self.inbox
    }

    /// The address, when the host is one rather than a name.
    pub fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// Scheme, host and port as one text: what connections are shared by.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(super) fn name_class(&self) -> NameClass {
        self.name_class
    }

    pub(super) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    pub(super) fn origin_form(&self) -> &Uri {
        &self.origin_form
    }

    /// The whole URL.
    pub fn absolute_form(&self) -> &Uri {
        &self.absolute_form
    }

    pub(super) fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }
}

fn unusable(why: impl std::fmt::Display) -> Refused {
    Refused {
        rule: Rule::Url,
        detail: format!("the URL cannot be used for HTTP: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::AddressPolicy;
    use super::*;

    #[test]
    fn the_test_inbox_is_one_name_and_nothing_beside_it() {
        let policy = AddressPolicy::default();
        let target = |text: &str| Target::new(&text.parse().unwrap()).unwrap();
        for inbox in [
            "http://inbox.hookturn.invalid/a",
            "http://INBOX.hookturn.invalid.:80/",
        ] {
            let inbox = target(inbox);
            assert!(inbox.is_inbox());
            assert!(policy.check_target(&inbox).is_ok());
        }
        for other in [
            "https://inbox.hookturn.invalid/a",
            "http://inbox.hookturn.invalid:8080/",
            "http://a.inbox.hookturn.invalid/",
            "http://hookturn.invalid/",
            "http://inbox.hookturn.invalid.example/",
            "http://127.0.0.1/inbox.hookturn.invalid",
        ] {
            assert!(!target(other).is_inbox(), "{other}");
        }
        let plain = target("http://inbox.hookturn.invalid:8080/");
        assert!(policy.check_target(&plain).is_err());
    }
}
