//! Names whose address is configured rather than looked up: `name=address` or `name=address:port`.
//!
//! For receivers in networks whose names no name server knows, and for those behind another port than
//! their URL says, such as a TLS gateway. The URL stays what it is: it is what receivers see, what
//! certificates are checked for and what is signed. The address obeys the address policy like any
//! other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

/// Names with a configured address, in lower case and without a dot at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Hosts(BTreeMap<String, HostAddress>);

/// Where a name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAddress {
    /// Its address.
    pub ip: IpAddr,
    /// The port to connect to; that of the URL without.
    pub port: Option<u16>,
}

/// What the variable and the key hold.
pub(super) const WANTED: &str =
    "names with addresses such as receiver.internal=10.0.0.7,gateway.example=10.0.0.8:8443";

impl Hosts {
    /// Where this name leads, if that is configured.
    pub fn get(&self, name: &str) -> Option<HostAddress> {
        self.0.get(name).copied()
    }

    fn with(mut self, name: &str, address: &str) -> Result<Self, String> {
        let refused = || format!("`{name}={address}` is not a name and its address");
        let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
        let address = address.trim();
        let is_name = name.parse::<IpAddr>().is_err()
            && !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let address = match (address.parse::<IpAddr>(), address.parse::<SocketAddr>()) {
            (Ok(ip), _) => HostAddress { ip, port: None },
            (Err(_), Ok(place)) if place.port() > 0 => HostAddress {
                ip: place.ip(),
                port: Some(place.port()),
            },
            (Err(_), Ok(_) | Err(_)) => return Err(refused()),
        };
        if !is_name || self.0.insert(name, address).is_some() {
            return Err(refused());
        }
        Ok(self)
    }
}

impl TryFrom<BTreeMap<String, String>> for Hosts {
    type Error = String;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        let mut pairs = pairs.iter();
        pairs.try_fold(Self::default(), |all, (name, address)| {
            all.with(name, address)
        })
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        pairs.try_fold(Self::default(), |all, pair| {
            let (name, address) = pair.split_once('=').unwrap_or((pair, ""));
            all.with(name, address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_an_address_and_perhaps_to_another_port() {
        let hosts: Hosts = "A.example.=10.0.0.7, b=[::1]:8443,c=::1,".parse().unwrap();
        for (name, ip, port) in [
            ("a.example", "10.0.0.7", None),
            ("b", "::1", Some(8443)),
            ("c", "::1", None),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(hosts.get(name), Some(HostAddress { ip, port }), "{name}");
        }
        assert_eq!(hosts.get("example"), None);
        assert_eq!("".parse(), Ok(Hosts::default()));
    }

    #[test]
    fn what_is_no_name_or_no_address_is_refused() {
        for bad in [
            "a",
            "a=",
            "=10.0.0.7",
            "a=b",
            "a=10.0.0.7:0",
            "a=10.0.0.7:99999",
            "10.0.0.7=10.0.0.8",
            "a/b=10.0.0.7",
            "a=10.0.0.7,A=10.0.0.8",
        ] {
            assert!(bad.parse::<Hosts>().is_err(), "{bad}");
        }
    }
}
