//! G10: one attempt takes at most 64 KiB of memory for the receiver's answer, whatever it sends.
//!
//! Measured, not computed: an allocator counts what the client's thread holds, and the receivers live
//! on threads of their own. Counted is everything between the call and its end, connection included;
//! over TLS, the buffers for the largest record come on top.

#![expect(
    clippy::unwrap_used,
    reason = "a receiver that cannot work fails the test"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use hookturn::outbound::{AddressPolicy, Client, ClientConfig, Request, SystemResolver, Target};
use hookturn_core::limits::ATTEMPT_BYTES;
use rustls::pki_types::PrivateKeyDer;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator with a count for each thread.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is the only place that sees every allocation"
)]
// SAFETY: both calls go to the system's allocator unchanged; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// What TLS holds beside the answer while a record of the largest size arrives: the record in a buffer
/// that grows by doubling, and its plaintext.
const TLS_RECORD_BYTES: usize = 56 * 1024;

/// What a receiver sends: `once`, then `block` again and again until the sender closes.
#[derive(Clone)]
struct Script {
    once: Vec<u8>,
    block: Vec<u8>,
}

fn script(once: &str, block: impl Into<Vec<u8>>) -> Script {
    Script {
        once: once.as_bytes().to_vec(),
        block: block.into(),
    }
}

fn scripts() -> Vec<(&'static str, Script)> {
    let mut many = String::from("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n");
    for n in 0..60 {
        write!(many, "x-{n}: {}\r\n", "v".repeat(120)).unwrap();
    }
    many.push_str("\r\n");
    let mut chunk = b"4000\r\n".to_vec();
    chunk.extend_from_slice(&[b'z'; 0x4000]);
    chunk.extend_from_slice(b"\r\n");
    let declared = "HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = format!("x-long: {}\r\n", "z".repeat(1_000));
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
    vec![
        (
            "endless declared body",
            script(declared, vec![b'z'; 65_536]),
        ),
        ("endless chunked body", script(chunked, chunk)),
        (
            "endless tiny chunks",
            script(chunked, b"1\r\nz\r\n".repeat(1_000)),
        ),
        (
            "the largest head and an endless body",
            script(&many, vec![b'z'; 65_536]),
        ),
        ("endless headers", script("HTTP/1.1 200 OK\r\n", long)),
        (
            "endless chunk extension",
            script(&format!("{chunked}1;"), vec![b'z'; 65_536]),
        ),
        ("endless informational responses", script("", early)),
        ("noise", script("", vec![0xff; 65_536])),
    ]
}

fn read_head(stream: &mut impl Read) {
    let mut seen = Vec::new();
    let mut buffer = [0; 1_024];
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => seen.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

fn perform(stream: &mut (impl Read + Write), script: &Script) {
    read_head(stream);
    if stream.write_all(&script.once).is_ok() {
        while stream.write_all(&script.block).is_ok() {}
    }
}

/// Runs the script on a thread for one connection.
fn receiver(script: Script, tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        match tls {
            None => perform(&mut stream, &script),
            Some(config) => {
                let session = rustls::ServerConnection::new(config).unwrap();
                perform(&mut rustls::StreamOwned::new(session, stream), &script);
            }
        }
    });
    address
}

fn identity() -> (String, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), Arc::new(config))
}

/// The most that one exchange held at any moment, in bytes.
async fn peak_of(client: &Client, url: &str) -> usize {
    let request = Request {
        method: http::Method::POST,
        target: Arc::new(Target::new(&url.parse().unwrap()).unwrap()),
        body: Bytes::from_static(b"{}"),
        timeout_millis: 5_000,
        connect_timeout_millis: 5_000,
    };
    let before = LIVE.get();
    PEAK.set(before);
    let headers = || Ok::<_, std::convert::Infallible>(http::HeaderMap::new());
    let Ok(exchange) = client.send(request, headers).await;
    let peak = (PEAK.get() - before).cast_unsigned();
    assert!(exchange.timings.total < 5_000_000, "{exchange:?}");
    peak
}

#[test]
fn g10_an_attempt_stays_within_its_memory() {
    let (root, tls) = identity();
    let policy = AddressPolicy {
        allow_nets: vec!["127.0.0.1/32".parse().unwrap()],
        allow_http: true,
    };
    let mut config = ClientConfig::new(
        policy,
        Arc::new(SystemResolver::new()),
        Some(root.as_bytes()),
    )
    .unwrap();
    config.idle_for = std::time::Duration::ZERO;
    let client = Client::new(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fine = script("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Vec::new());
    let quiet = Script {
        block: vec![b' '],
        ..fine
    };
    runtime.block_on(async {
        // What is made once for all attempts is made now.
        peak_of(
            &client,
            &format!("http://{}/", receiver(quiet.clone(), None)),
        )
        .await;
        peak_of(
            &client,
            &format!("https://{}/", receiver(quiet, Some(tls.clone()))),
        )
        .await;
        for (name, script) in scripts() {
            let plain = receiver(script.clone(), None);
            let peak = peak_of(&client, &format!("http://{plain}/")).await;
            println!("{name}: {peak} bytes over http");
            assert!(
                peak > 1_024 && peak <= ATTEMPT_BYTES,
                "{name}: {peak} bytes"
            );
            let secure = receiver(script, Some(tls.clone()));
            let peak = peak_of(&client, &format!("https://{secure}/")).await;
            println!("{name}: {peak} bytes over https");
            assert!(
                peak <= ATTEMPT_BYTES + TLS_RECORD_BYTES,
                "{name}: {peak} bytes"
            );
        }
    });
}
