//! Names and addresses that lead inside.

use std::future::pending;
use std::sync::Arc;

use hookturn::outbound::{
    AddressPolicy, Client, FailureKind, Network, Resolve, Resolving, Rule, Target,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::support::{
    Answers, DEADLINE_MILLIS, answer, client, config, event, failure, loopback, plain,
    read_request, receiver, request, send, until_closed,
};

fn refusal(policy: &AddressPolicy, url: &str) -> Option<Rule> {
    policy
        .check_url(&url.parse().unwrap())
        .err()
        .map(|refused| refused.rule)
}

#[test]
fn g10_literals_in_odd_forms_are_refused_at_configuration() {
    let policy = AddressPolicy::default();
    for (url, network) in [
        ("https://127.0.0.1/", Network::Loopback),
        ("https://0x7f.1/", Network::Loopback),
        ("https://2130706433/", Network::Loopback),
        ("https://0177.0.0.01/", Network::Loopback),
        ("https://127.1/", Network::Loopback),
        ("https://①②⑦.0.0.1/", Network::Loopback),
        ("https://[::1]/", Network::Loopback),
        ("https://[::ffff:127.0.0.1]/", Network::Loopback),
        ("https://[64:ff9b::7f00:1]/", Network::Loopback),
        ("https://[2002:7f00:1::1]/", Network::Loopback),
        ("https://[64:ff9b:1::1]/", Network::Reserved),
        ("https://[::127.0.0.1]/", Network::Reserved),
        (
            "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            Network::Reserved,
        ),
        ("https://0.0.0.0/", Network::Unspecified),
        ("https://[::]/", Network::Unspecified),
        ("https://10.1.2.3:8443/", Network::Private),
        ("https://172.31.255.255/", Network::Private),
        ("https://192.168.0.1/", Network::Private),
        ("https://169.254.1.1/", Network::LinkLocal),
        ("https://[fe80::1]/", Network::LinkLocal),
        ("https://100.64.0.1/", Network::CarrierNat),
        ("https://[fd12:3456::1]/", Network::UniqueLocal),
        ("https://224.0.0.1/", Network::Multicast),
        ("https://[ff02::1]/", Network::Multicast),
        ("https://255.255.255.255/", Network::Broadcast),
        ("https://192.0.2.1/", Network::Documentation),
        ("https://[2001:db8::1]/", Network::Documentation),
        ("https://[3fff::1]/", Network::Documentation),
        ("https://198.18.0.1/", Network::Benchmarking),
        ("https://240.0.0.1/", Network::Reserved),
        ("https://[4000::1]/", Network::Reserved),
    ] {
        assert_eq!(refusal(&policy, url), Some(Rule::Network(network)), "{url}");
    }
}

#[test]
fn public_addresses_and_names_are_allowed() {
    let policy = AddressPolicy::default();
    for url in [
        "https://hooks.example.com/a?b=c",
        "https://hooks.example.com:8443/",
        "https://bücher.example/",
        "https://internal.example.com/",
        "https://8.8.8.8/",
        "https://172.32.0.1/",
        "https://100.128.0.1/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::808:808]/",
        "https://[::ffff:8.8.8.8]/",
    ] {
        assert_eq!(refusal(&policy, url), None, "{url}");
    }
}

#[test]
fn g10_urls_and_names_that_lead_inside_are_refused_at_configuration() {
    let policy = AddressPolicy::default();
    for (url, rule) in [
        ("http://hooks.example.com/", Rule::Scheme),
        ("ftp://hooks.example.com/", Rule::Scheme),
        ("file:///etc/passwd", Rule::Scheme),
        ("https://user@hooks.example.com/", Rule::UserInfo),
        ("https://:secret@hooks.example.com/", Rule::UserInfo),
        ("https://hooks.example.com:0/", Rule::Url),
        ("https://localhost/", Rule::InternalName),
        ("https://LOCALHOST./", Rule::InternalName),
        ("https://a.localhost/", Rule::InternalName),
        ("https://vault/", Rule::InternalName),
        ("https://db.internal/", Rule::InternalName),
        ("https://printer.local/", Rule::InternalName),
        ("https://metadata.google.internal/", Rule::Metadata),
        (
            "https://Metadata.Google.Internal./computeMetadata/v1/",
            Rule::Metadata,
        ),
    ] {
        assert_eq!(refusal(&policy, url), Some(rule), "{url}");
    }
    let open = AddressPolicy {
        allow_nets: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        allow_http: true,
    };
    assert_eq!(refusal(&open, "http://localhost:3000/"), None);
    assert_eq!(refusal(&open, "http://receiver:3000/"), None);
    assert_eq!(
        refusal(&open, "http://metadata.google.internal/"),
        Some(Rule::Metadata)
    );
}

#[test]
fn g10_metadata_stays_closed_when_everything_is_open() {
    let everything = AddressPolicy {
        allow_nets: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        allow_http: true,
    };
    for host in [
        "169.254.169.254",
        "0xa9fea9fe",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[fe80::a9fe:a9fe]",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1:a9fe:a9:fe00::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:a9fe:a9fe::1]",
        "[2001:0:1:2:3:4:5601:5601]",
        "[fe80::5efe:169.254.169.254]",
    ] {
        let url = format!("http://{host}/latest/meta-data/");
        assert_eq!(refusal(&everything, &url), Some(Rule::Metadata), "{url}");
    }
    assert_eq!(refusal(&everything, "http://127.0.0.1/"), None);
    assert_eq!(refusal(&everything, "http://[fd00::1]/"), None);
    assert_eq!(
        refusal(&everything, "http://0.0.0.0/"),
        Some(Rule::Network(Network::Unspecified))
    );
}

#[test]
fn a_refusal_says_how_to_allow_it() {
    let policy = AddressPolicy::default();
    let says = |url: &str| {
        policy
            .check_url(&url.parse().unwrap())
            .unwrap_err()
            .to_string()
    };
    assert!(says("https://10.0.0.7/").contains("HOOKTURN_ALLOW_NETS=10.0.0.7/32"));
    assert!(says("https://[::ffff:10.0.0.7]/").contains("HOOKTURN_ALLOW_NETS=10.0.0.7/32"));
    assert!(says("http://example.com/").contains("HOOKTURN_ALLOW_HTTP=true"));
    assert!(says("https://localhost/").contains("HOOKTURN_ALLOW_NETS=127.0.0.0/8,::1/128"));
    assert!(says("https://169.254.169.254/").contains("always refused"));
}

/// Every resolver has both addresses for it, and one that is closed would refuse each delivery.
#[test]
fn g10_localhost_needs_both_of_its_addresses() {
    for (nets, wanted) in [
        (
            &["127.0.0.0/8"][..],
            Some(["::1 is not allowed", "write 127.0.0.1"]),
        ),
        (
            &["::1/128"],
            Some(["127.0.0.1 is not allowed", "write [::1]"]),
        ),
        (&["127.0.0.1/32", "::1/128"], None),
        (&["0.0.0.0/0", "::/0"], None),
    ] {
        let policy = AddressPolicy {
            allow_nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            allow_http: true,
        };
        for url in ["http://localhost:3000/", "http://a.localhost/"] {
            let said = policy.check_url(&url.parse().unwrap()).err();
            match (said, wanted) {
                (None, None) => {}
                (Some(refused), Some(parts)) => {
                    let said = refused.to_string();
                    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
                    assert!(
                        said.contains("HOOKTURN_ALLOW_NETS=127.0.0.0/8,::1/128"),
                        "{said}"
                    );
                }
                (said, _) => panic!("{nets:?}: {url}: {said:?}"),
            }
        }
    }
}

/// A receiver that answers 204, and reports each connection when it ends.
async fn polite() -> super::support::Receiver<()> {
    receiver(async |mut stream: TcpStream| {
        while read_request(&mut stream).await.is_some() {
            let response = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            if stream.write_all(response).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn g10_a_name_that_turns_inside_later_is_refused_at_connect() {
    let mut receiver = polite().await;
    let resolver = Answers::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = Client::new(Arc::new(config(loopback(), resolver, None)));
    let url = format!("http://rebind.example:{}/", receiver.address.port());
    assert_eq!(answer(send(&client, request(&url)).await).status, 204);
    event(&mut receiver.finished).await;
    let failure = failure(send(&client, request(&url)).await, FailureKind::Refused);
    assert!(failure.detail.contains("127.0.0.2"), "{failure}");
    assert!(receiver.finished.try_recv().is_err());
}

#[tokio::test]
async fn g10_a_mixed_answer_is_refused_whole() {
    let mut receiver = polite().await;
    let port = receiver.address.port();
    for answers in [
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.1", "::ffff:169.254.169.254"],
    ] {
        let resolver = Answers::new(&[&answers]);
        let client = Client::new(Arc::new(config(loopback(), resolver, None)));
        let exchange = send(&client, request(&format!("http://mixed.example:{port}/"))).await;
        assert_eq!(exchange.remote, None, "{answers:?} was connected to");
        let failure = failure(exchange, FailureKind::Refused);
        assert!(failure.detail.contains("one of its addresses"), "{failure}");
    }
    assert!(receiver.finished.try_recv().is_err(), "it was connected to");
}

#[tokio::test]
async fn g10_an_answer_without_addresses_or_with_too_many_is_refused() {
    let many: Vec<&str> = vec!["127.0.0.1"; 65];
    for answers in [&[] as &[&str], &many] {
        let client = Client::new(Arc::new(config(loopback(), Answers::new(&[answers]), None)));
        failure(
            send(&client, request("http://odd.example/")).await,
            FailureKind::Refused,
        );
    }
    let nobody = Client::new(Arc::new(config(loopback(), Answers::new(&[]), None)));
    failure(
        send(&nobody, request("http://gone.example/")).await,
        FailureKind::Dns,
    );
}

#[tokio::test]
async fn g10_an_endpoint_stored_under_a_wider_policy_is_refused_at_send() {
    let mut receiver = polite().await;
    let strict = AddressPolicy {
        allow_nets: Vec::new(),
        allow_http: true,
    };
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    let client = Client::new(Arc::new(config(strict, resolver, None)));
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        failure(send(&client, request(&url)).await, FailureKind::Refused);
    }
    assert!(receiver.finished.try_recv().is_err(), "it was connected to");
}

/// A resolver that never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(pending())
    }
}

#[tokio::test]
async fn g10_a_name_server_that_never_answers_is_within_the_deadline() {
    let client = Client::new(Arc::new(config(loopback(), Arc::new(Silent), None)));
    // Nobody was there to connect to, whichever limit it is that passes.
    for (connect_timeout_millis, millis) in [(100, 100), (60_000, DEADLINE_MILLIS)] {
        let mut slow = request("http://slow.example/");
        slow.connect_timeout_millis = connect_timeout_millis;
        let failure = failure(send(&client, slow).await, FailureKind::Dns);
        let said = format!("the name was not resolved within {millis} ms");
        assert!(failure.detail.contains(&said), "{failure}");
    }
}

#[tokio::test]
async fn g10_a_host_that_drops_packets_ends_at_the_connect_timeout() {
    // A full accept queue drops what comes next, as a firewall does.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full: TcpListener = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let _queued = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let mut request = request(&format!("http://{address}/"));
    request.connect_timeout_millis = 100;
    request.timeout_millis = 60_000;
    let Ok(exchange) = client().send(request, plain).await;
    assert!(exchange.timings.total < 5_000_000, "{:?}", exchange.timings);
    let failure = failure(exchange, FailureKind::ConnectTimeout);
    assert!(failure.detail.contains("connecting"), "{failure}");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let receiver = polite().await;
    let policy = AddressPolicy {
        allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
        allow_http: true,
    };
    let resolver = Answers::new(&[&["127.0.0.9", "127.0.0.1"]]);
    let client = Client::new(Arc::new(config(policy, resolver, None)));
    let url = format!("http://two.example:{}/", receiver.address.port());
    let exchange = send(&client, request(&url)).await;
    assert_eq!(exchange.remote, Some(receiver.address));
    assert_eq!(answer(exchange).status, 204);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    failure(
        send(&client(), request(&format!("http://{address}/"))).await,
        FailureKind::Connect,
    );
}

#[tokio::test]
async fn the_url_reaches_the_wire_as_configured() {
    let mut recorder = receiver(async |mut stream: TcpStream| {
        let text = read_request(&mut stream).await;
        until_closed(&mut stream).await;
        text
    })
    .await;
    let url = format!(
        "http://Wire.Example.:{}/a%20b/../c?d=%7B&e#frag",
        recorder.address.port()
    );
    let target = Target::new(&url.parse().unwrap()).unwrap();
    assert_eq!(target.host(), "wire.example");
    send(&client(), request(&url)).await;
    let received = event(&mut recorder.finished).await.unwrap();
    assert!(
        received.starts_with("POST /c?d=%7B&e HTTP/1.1\r\n"),
        "{received}"
    );
    let host = format!("host: wire.example:{}\r\n", recorder.address.port());
    assert!(received.contains(&host), "{received}");
}
