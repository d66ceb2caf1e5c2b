//! The address policy: where Hookturn may send, and where never.
//!
//! A customer chooses the URL, Hookturn makes the request from inside the operator's network: without
//! a policy that is a hole into it (server-side request forgery). The policy is asked three times,
//! because each moment sees something the others cannot:
//!
//! 1. **at configuration** ([`AddressPolicy::check_url`]): the customer is told at once, in words;
//! 2. **at send** ([`AddressPolicy::check_target`]): an endpoint stored under an older, wider policy
//!    obeys the present one;
//! 3. **at connect** ([`AddressPolicy::check_answers`]): names are only known to be harmless by the
//!    addresses they resolve to now. Every address of an answer is classified; one forbidden address
//!    refuses the whole answer, because an honest name does not mix public and internal addresses.
//!
//! What is forbidden by default is everything that is not a public unicast address, and every form of
//! IPv6 address that carries such an IPv4 address inside. `HOOKTURN_ALLOW_NETS` opens networks one by
//! one. Addresses of cloud metadata services stay closed even then: whoever reads them owns the machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use super::target::Target;

/// Which networks and schemes endpoints may use.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    /// Networks that are allowed although they are not public (`HOOKTURN_ALLOW_NETS`).
    pub allow_nets: Vec<IpNet>,
    /// Whether `http://` is allowed (`HOOKTURN_ALLOW_HTTP`).
    pub allow_http: bool,
}

/// Why the policy refused, with a sentence for the person who can change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// The rule that refused.
    pub rule: Rule,
    /// What was refused and how to allow it, in plain words.
    pub detail: String,
}

/// The rule that refused a URL or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The URL is not one an HTTP client can use.
    Url,
    /// The scheme is neither `https` nor an allowed `http`.
    Scheme,
    /// The URL carries a user name or a password.
    UserInfo,
    /// The name means something inside the operator's network.
    InternalName,
    /// The address belongs to a network that is not allowed.
    Network(Network),
    /// The address or name belongs to a cloud metadata service; nothing allows it.
    Metadata,
    /// The name has no address at all, or too many.
    Answer,
}

impl Rule {
    /// A stable code for APIs and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Scheme => "scheme",
            Self::UserInfo => "userinfo",
            Self::InternalName => "internal_name",
            Self::Network(_) => "network",
            Self::Metadata => "metadata",
            Self::Answer => "answer",
        }
    }
}

/// Kinds of networks that are not public unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Network {
    /// `0.0.0.0/8` and `::`: this host.
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// RFC 1918.
    Private,
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// `100.64.0.0/10`, shared by carriers (RFC 6598).
    CarrierNat,
    /// `fc00::/7`, unique local addresses.
    UniqueLocal,
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// Addresses for examples in documents.
    Documentation,
    /// `198.18.0.0/15` and `2001:2::/48`.
    Benchmarking,
    /// Everything else that no public host has.
    Reserved,
}

impl Network {
    /// The words for a sentence: "an address of …".
    const fn words(self) -> &'static str {
        match self {
            Self::Unspecified => "this host itself (unspecified)",
            Self::Loopback => "this host itself (loopback)",
            Self::Private => "a private network",
            Self::LinkLocal => "the local link",
            Self::CarrierNat => "a carrier's shared network (100.64.0.0/10)",
            Self::UniqueLocal => "a private network (unique local)",
            Self::Multicast => "a multicast group",
            Self::Broadcast => "everyone on the link (broadcast)",
            Self::Documentation => "a network reserved for documentation",
            Self::Benchmarking => "a network reserved for benchmarks",
            Self::Reserved => "a reserved network",
        }
    }

    /// No receiver can live there, so no configuration opens it.
    const fn never_a_host(self) -> bool {
        matches!(self, Self::Unspecified | Self::Multicast | Self::Broadcast)
    }
}

/// Most addresses of one name that are looked at; a longer answer is refused.
pub const ANSWERS_MAX: usize = 64;

impl AddressPolicy {
    /// Checks a URL when it is configured: scheme, user info, host. Resolves nothing.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        self.check_target(&Target::new(url)?)
    }

    /// Checks a parsed target before every exchange; cheap enough for the hot path.
    pub fn check_target(&self, target: &Target) -> Result<(), Refused> {
        // It leads to no address: whether there is one in this process shows at connect.
        if target.is_inbox() {
            return Ok(());
        }
        if !target.is_tls() && !self.allow_http {
            return Err(Refused {
                rule: Rule::Scheme,
                detail: "plain http is not allowed; use https, or set HOOKTURN_ALLOW_HTTP=true to \
                         allow it"
                    .to_owned(),
            });
        }
        if let Some(ip) = target.literal() {
            return self.check_addr(ip);
        }
        self.check_name(target.name_class(), target.host())
    }

    /// Checks one address.
    pub fn check_addr(&self, ip: IpAddr) -> Result<(), Refused> {
        if is_metadata(ip) {
            return Err(Refused {
                rule: Rule::Metadata,
                detail: format!(
                    "{ip} is an address of a cloud metadata service; it is always refused, whatever \
                     HOOKTURN_ALLOW_NETS says"
                ),
            });
        }
        let Some(network) = classify(ip) else {
            return Ok(());
        };
        if network.never_a_host() {
            return Err(Refused {
                rule: Rule::Network(network),
                detail: format!(
                    "{ip} is an address of {}; no receiver can live there",
                    network.words()
                ),
            });
        }
        if self.allows(ip) {
            return Ok(());
        }
        let embedded = match carried_v4(ip) {
            Some(v4) => format!(" (it carries {v4})"),
            None => String::new(),
        };
        Err(Refused {
            rule: Rule::Network(network),
            detail: format!(
                "{ip}{embedded} is an address of {}; to allow it, add its network to \
                 HOOKTURN_ALLOW_NETS, for example HOOKTURN_ALLOW_NETS={}",
                network.words(),
                IpNet::from(carried_v4(ip).map_or(ip, IpAddr::V4)),
            ),
        })
    }

    /// Checks every address of a name; one forbidden address refuses them all.
    pub fn check_answers(&self, name: &str, answers: &[IpAddr]) -> Result<(), Refused> {
        if answers.is_empty() || answers.len() > ANSWERS_MAX {
            return Err(Refused {
                rule: Rule::Answer,
                detail: format!(
                    "{name} has {} addresses; between 1 and {ANSWERS_MAX} are accepted",
                    answers.len()
                ),
            });
        }
        for &ip in answers {
            self.check_addr(ip).map_err(|refused| Refused {
                rule: refused.rule,
                detail: if answers.len() > 1 {
                    format!(
                        "{name} is refused because of one of its addresses: {}",
                        refused.detail
                    )
                } else {
                    format!(
                        "{name} is refused because of its address: {}",
                        refused.detail
                    )
                },
            })?;
        }
        Ok(())
    }

    fn check_name(&self, class: NameClass, name: &str) -> Result<(), Refused> {
        let example = match class {
            NameClass::Public => return Ok(()),
            NameClass::Metadata => {
                return Err(Refused {
                    rule: Rule::Metadata,
                    detail: format!(
                        "{name} is the name of a cloud metadata service; it is always refused"
                    ),
                });
            }
            // A network that is open has names; whether this one is inside it shows at connect.
            NameClass::Local => return self.check_local_name(name),
            NameClass::Internal if !self.allow_nets.is_empty() => return Ok(()),
            NameClass::Internal => "10.0.0.0/8",
        };
        Err(internal_name(name, example))
    }

    /// `localhost` and below are both loopback addresses to every resolver (RFC 6761), so one that is
    /// closed would refuse every delivery at connect: it is said where it can be mended.
    fn check_local_name(&self, name: &str) -> Result<(), Refused> {
        const BOTH: &str = "127.0.0.0/8,::1/128";
        let v4 = self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let v6 = self.allows(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let (closed, open) = match (v4, v6) {
            (true, true) => return Ok(()),
            (false, false) => return Err(internal_name(name, BOTH)),
            (true, false) => ("::1", "127.0.0.1"),
            (false, true) => ("127.0.0.1", "[::1]"),
        };
        Err(Refused {
            rule: Rule::InternalName,
            detail: format!(
                "{name} means 127.0.0.1 and ::1 alike, and {closed} is not allowed; allow both with \
                 HOOKTURN_ALLOW_NETS={BOTH}, or write {open} instead of the name"
            ),
        })
    }

    /// Whether a configured network contains the address, or the IPv4 address it carries.
    fn allows(&self, ip: IpAddr) -> bool {
        let carried = carried_v4(ip).map(IpAddr::V4);
        self.allow_nets
            .iter()
            .any(|net| net.contains(&ip) || carried.is_some_and(|v4| net.contains(&v4)))
    }
}

fn internal_name(name: &str, example: &str) -> Refused {
    Refused {
        rule: Rule::InternalName,
        detail: format!(
            "{name} is a name for internal use; to allow it, add the network it lives in to \
             HOOKTURN_ALLOW_NETS, for example HOOKTURN_ALLOW_NETS={example}"
        ),
    }
}

/// What a host name says about where it lives, before it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameClass {
    Public,
    /// `localhost` and below (RFC 6761).
    Local,
    /// Names no public zone holds: `internal`, `local`, `home.arpa` and the like.
    Internal,
    Metadata,
}

/// Names of metadata services; they resolve only inside their cloud.
const METADATA_NAMES: [&str; 5] = [
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
];

/// Suffixes that never name a public host: RFC 6761, RFC 6762, RFC 8375, and ICANN's `internal`.
const INTERNAL_SUFFIXES: [&str; 8] = [
    "internal",
    "local",
    "home.arpa",
    "localdomain",
    "intranet",
    "lan",
    "corp",
    "onion",
];

/// Classifies a lower-case name without its trailing dot. A name without any dot is internal: only a
/// search list or a hosts file gives it an address.
pub(super) fn classify_name(name: &str) -> NameClass {
    let below = |suffix: &str| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if METADATA_NAMES.contains(&name) || below("metadata.google.internal") {
        NameClass::Metadata
    } else if below("localhost") {
        NameClass::Local
    } else if !name.contains('.') || INTERNAL_SUFFIXES.iter().any(|suffix| below(suffix)) {
        NameClass::Internal
    } else {
        NameClass::Public
    }
}

/// Refuses what the URL parser accepts and an HTTP client must not use.
pub(super) fn check_shape(url: &Url) -> Result<Host<&str>, Refused> {
    let refuse = |rule, detail: &str| Refused {
        rule,
        detail: detail.to_owned(),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(Rule::Scheme, "the URL must start with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            Rule::UserInfo,
            "the URL carries a user name or a password; put credentials into a custom header instead",
        ));
    }
    if url.port() == Some(0) {
        return Err(refuse(Rule::Url, "port 0 is not a port one can connect to"));
    }
    match url.host() {
        Some(Host::Domain(name)) if name.trim_end_matches('.').is_empty() => {
            Err(refuse(Rule::Url, "the URL has no host"))
        }
        Some(host) => Ok(host),
        None => Err(refuse(Rule::Url, "the URL has no host")),
    }
}

/// The network an address belongs to; `None` for public unicast.
pub fn classify(ip: IpAddr) -> Option<Network> {
    match ip {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// IANA's special-purpose registry for IPv4, what is not globally reachable, as of 2025.
fn classify_v4(ip: Ipv4Addr) -> Option<Network> {
    match ip.octets() {
        [0, ..] => Some(Network::Unspecified),
        [127, ..] => Some(Network::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Network::Private),
        [169, 254, ..] => Some(Network::LinkLocal),
        [100, 64..=127, ..] => Some(Network::CarrierNat),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(Network::Documentation),
        [198, 18..=19, ..] => Some(Network::Benchmarking),
        [224..=239, ..] => Some(Network::Multicast),
        [255, 255, 255, 255] => Some(Network::Broadcast),
        // IETF protocol assignments, the withdrawn anycast relay of 6to4, and the former class E.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some(Network::Reserved),
        _ => None,
    }
}

/// IANA's special-purpose registry for IPv6: public is `2000::/3` without its holes, and the
/// well-known NAT64 prefix as far as the IPv4 address inside is public.
fn classify_v6(ip: Ipv6Addr) -> Option<Network> {
    if let Some(v4) = carried_v4(IpAddr::V6(ip)) {
        return classify_v4(v4);
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Network::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Network::Loopback),
        [0xff00..=0xffff, ..] => Some(Network::Multicast),
        [0xfe80..=0xfebf, ..] => Some(Network::LinkLocal),
        [0xfc00..=0xfdff, ..] => Some(Network::UniqueLocal),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some(Network::Documentation),
        [0x2001, 2, 0, ..] => Some(Network::Benchmarking),
        // IETF protocol assignments (2001::/23), Teredo among them: no public receiver lives there.
        [0x2001, 0..=0x01ff, ..] => Some(Network::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Network::Reserved),
    }
}

/// The IPv4 address that traffic to this IPv6 address ends at, for forms that are in use:
/// IPv4-mapped, IPv4-translated (RFC 2765), NAT64's well-known prefix (RFC 6052) and 6to4 (RFC 3056).
fn carried_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4_of(high, low)),
        _ => None,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// Whether the address is one of a metadata service, in any form that could lead there.
fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_metadata_v4(v4),
        IpAddr::V6(v6) => is_metadata_v6(v6) || forms_of_v4(v6).into_iter().any(is_metadata_v4),
    }
}

/// Amazon, Google, Azure, Oracle, Alibaba, Tencent, Scaleway, OpenStack and the rest, with the
/// credential services beside them.
fn is_metadata_v4(ip: Ipv4Addr) -> bool {
    matches!(
        ip.octets(),
        [169, 254, 169 | 170, _]
            | [169, 254, 0, 23]
            | [169, 254, 42, 42]
            | [100, 100, 100, 200]
            | [192, 0, 0, 192]
            | [168, 63, 129, 16]
    )
}

fn is_metadata_v6(ip: Ipv6Addr) -> bool {
    matches!(
        ip.segments(),
        // Amazon's services share one prefix; Google; Scaleway; OpenStack.
        [0xfd00, 0x0ec2, ..]
            | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]
            | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042]
            | [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
    )
}

/// Every place where some translation technique keeps an IPv4 address: mapped, compatible, translated, NAT64
/// with each prefix length of RFC 6052, 6to4, Teredo (server, and the client's inverted), ISATAP.
/// Only metadata addresses are looked for here, so a chance match costs nobody a receiver.
fn forms_of_v4(ip: Ipv6Addr) -> [Ipv4Addr; 8] {
    let s = ip.segments();
    let o = ip.octets();
    let last = v4_of(s[6], s[7]);
    let translated = s[0] == 0x0064 && s[1] == 0xff9b;
    let teredo = s[0] == 0x2001 && s[1] == 0;
    let when = |holds: bool, v4: Ipv4Addr| if holds { v4 } else { Ipv4Addr::UNSPECIFIED };
    let low_96 = s[..4] == [0; 4] && matches!(s[4..6], [0, 0 | 0xffff] | [0xffff, 0]);
    let isatap = matches!(s[4], 0 | 0x0200) && s[5] == 0x5efe;
    [
        when(low_96 || translated || isatap, last),
        when(s[0] == 0x2002, v4_of(s[1], s[2])),
        when(teredo, v4_of(s[2], s[3])),
        when(teredo, v4_of(!s[6], !s[7])),
        when(translated, Ipv4Addr::new(o[4], o[5], o[6], o[7])),
        when(translated, Ipv4Addr::new(o[6], o[7], o[9], o[10])),
        when(translated, Ipv4Addr::new(o[7], o[9], o[10], o[11])),
        when(translated, Ipv4Addr::new(o[9], o[10], o[11], o[12])),
    ]
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The forms of IPv6 that lead to an IPv4 address.
    fn carriers(v4: Ipv4Addr) -> [Ipv6Addr; 4] {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ]
    }

    /// Near the edges of the special networks, and anywhere.
    fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
        let first = prop_oneof![
            Just(0_u8),
            Just(10),
            Just(100),
            Just(127),
            Just(168),
            Just(169),
            Just(172),
            Just(192),
            Just(198),
            Just(203),
            224_u8..=255,
            any::<u8>(),
        ];
        let second = prop_oneof![
            Just(0_u8),
            Just(16),
            Just(31),
            Just(63),
            Just(64),
            Just(127),
            Just(128),
            Just(168),
            Just(254),
            any::<u8>(),
        ];
        (first, second, any::<u8>(), any::<u8>()).prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d))
    }

    proptest! {
        /// G10: no form of IPv6 is a way around what is said of IPv4, whatever is allowed.
        #[test]
        fn g10_an_address_is_judged_alike_in_every_form(v4 in any_v4(), bits in 0_u8..=32, other in any_v4()) {
            let net = ipnet::Ipv4Net::new(other, bits).unwrap();
            for allow_nets in [vec![], vec![IpNet::V4(net)], vec![IpNet::V4(net), "fc00::/7".parse().unwrap()]] {
                let policy = AddressPolicy { allow_nets, allow_http: false };
                let plain = policy.check_addr(IpAddr::V4(v4)).map_err(|refused| refused.rule);
                for v6 in carriers(v4) {
                    let carried = policy.check_addr(IpAddr::V6(v6)).map_err(|refused| refused.rule);
                    prop_assert_eq!(plain, carried, "{}", v6);
                }
            }
        }

        /// The standard library's own predicates never call forbidden what we call public.
        #[test]
        fn g10_public_is_none_of_the_special_kinds(v4 in any_v4(), v6 in any::<u128>()) {
            if classify(IpAddr::V4(v4)).is_none() {
                prop_assert!(!(v4.is_private() || v4.is_loopback() || v4.is_link_local()
                    || v4.is_broadcast() || v4.is_documentation() || v4.is_multicast()
                    || v4.is_unspecified()), "{}", v4);
            }
            let v6 = Ipv6Addr::from(v6);
            if classify(IpAddr::V6(v6)).is_none() {
                prop_assert!(!(v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                    || v6.is_unique_local() || v6.is_unicast_link_local()), "{}", v6);
            }
        }

        /// G10: metadata services stay closed to every configuration and in every form.
        #[test]
        fn g10_no_network_opens_metadata(bits in 0_u8..=32, last in any::<u8>()) {
            for v4 in [Ipv4Addr::new(169, 254, 169, last), Ipv4Addr::new(100, 100, 100, 200)] {
                let net = ipnet::Ipv4Net::new(v4, bits).unwrap();
                let policy = AddressPolicy { allow_nets: vec![IpNet::V4(net), "::/0".parse().unwrap()], allow_http: true };
                for ip in carriers(v4).map(IpAddr::V6).into_iter().chain([IpAddr::V4(v4)]) {
                    prop_assert_eq!(policy.check_addr(ip).unwrap_err().rule, Rule::Metadata, "{}", ip);
                }
            }
        }

        /// Parsing and judging any URL ends in a value.
        #[test]
        fn any_url_is_judged(text in "(https?://)?\\PC{0,40}") {
            if let Ok(url) = Url::parse(&text) {
                let policy = AddressPolicy::default();
                prop_assert_eq!(policy.check_url(&url).is_ok(), Target::new(&url).is_ok_and(|target| policy.check_target(&target).is_ok()));
            }
        }
    }
}
