//! G10: one attempt takes at most 64 KiB of memory for the receiver's answer, whatever it sends.
//!
//! Measured, not computed: an allocator counts what the client's thread holds, and the receivers live
//! on threads of their own. Counted is what an attempt holds whenever it waits, connection and TLS
//! included: so much is held by each of those that wait at once. While it runs it holds more for a
//! moment, such as a TLS record beside its text; a delivery shard is one thread, so there is one such
//! moment at a time, and it is bounded apart.

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
use hookturn::outbound::{
    AddressPolicy, Client, ClientConfig, Request, Sending, SystemResolver, Target,
};
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

/// What an attempt may hold in addition while its thread works for it: a TLS record of the largest size
/// that is being decrypted, and buffers of the parser that are being replaced.
const MOMENT_BYTES: usize = 24 * 1024;

/// What an attempt that has a connection of HTTP/2 for itself may hold beside [`ATTEMPT_BYTES`]: the parser
/// makes buffers of 28 KiB, and the tasks and channels around it and the session of TLS take as much again.
/// None of it can be made smaller from outside. Beside it are the body and the record that it comes in.
const CONNECTION_H2_BYTES: usize = 32 * 1024;

/// What it may hold in addition for a moment: a TLS record is in memory twice while it is decrypted.
const MOMENT_H2_BYTES: usize = 8 * 1024;

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
        ("nothing", script("", Vec::new())),
        (
            "one byte of a body",
            script(&format!("{declared}z"), Vec::new()),
        ),
        (
            "one byte less than a body is kept",
            script(&format!("{declared}{}", "z".repeat(16_383)), Vec::new()),
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

/// A frame of HTTP/2 of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// What is sent over HTTP/2, after the settings.
fn scripts_h2() -> Vec<(&'static str, Script)> {
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;
    let field = b"\x00\x01x\x01y";
    // A value of two million bytes begins.
    let huge = b"\x88\x00\x01x\x7f\x81\x89\x7a";
    let letters = [b'z'; 16_000];
    let many = [b"\x88", &field.repeat(3_000)[..]].concat();
    // Sixty fields of 60 bytes, in five bits a letter.
    let packed = [
        b"\x00\x01x\xbc",
        &[0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(12)[..],
    ]
    .concat();
    let packed = [b"\x88", &packed.repeat(50)[..]].concat();
    let ended = frame(HEADERS, END_HEADERS, b"\x88");
    let body = frame(0, 0, &letters);
    let whole = |once: Vec<u8>, block: &[u8]| Script {
        once,
        block: block.to_vec(),
    };
    vec![
        ("nothing", whole(Vec::new(), b"")),
        ("an endless body", whole(ended.clone(), &body)),
        (
            "frames of no known kind without end",
            whole(Vec::new(), &frame(0x20, 0, &letters)),
        ),
        (
            "an endless body with padding",
            whole(
                ended.clone(),
                &frame(0, 8, &[&[255_u8][..], &letters].concat()),
            ),
        ),
        (
            "a frame of a body that stalls",
            whole([&ended[..], &body[..15_000]].concat(), b""),
        ),
        (
            "many headers and an endless body",
            whole(frame(HEADERS, END_HEADERS, &many), &body),
        ),
        (
            "packed headers and an endless body",
            whole(frame(HEADERS, END_HEADERS, &packed), &body),
        ),
        (
            "many headers that stall",
            whole(frame(HEADERS, 0, &many), b""),
        ),
        (
            "a header of 60 KiB that stalls",
            whole(
                [
                    frame(HEADERS, 0, huge),
                    frame(CONTINUATION, 0, &letters).repeat(3),
                    frame(CONTINUATION, 0, &letters)[..12_000].to_vec(),
                ]
                .concat(),
                b"",
            ),
        ),
        (
            "a header without end",
            whole(frame(HEADERS, 0, huge), &frame(CONTINUATION, 0, &letters)),
        ),
        (
            "headers without end",
            whole(
                frame(HEADERS, 0, b"\x88"),
                &frame(CONTINUATION, 0, &field.repeat(3_000)),
            ),
        ),
        (
            "informational responses without end",
            whole(
                Vec::new(),
                &frame(HEADERS, END_HEADERS, b"\x08\x03103").repeat(1_000),
            ),
        ),
    ]
}

/// Reads until the head of a request came.
fn read_head_h2(stream: &mut impl Read) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    loop {
        let mut start = [0; 9];
        stream.read_exact(&mut start).unwrap();
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        if start[3] == 1 {
            return;
        }
    }
}

fn perform_h2(stream: &mut (impl Read + Write), script: &Script) {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&settings).unwrap();
    stream.flush().unwrap();
    read_head_h2(stream);
    answer(stream, script);
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
    answer(stream, script);
}

fn answer(stream: &mut (impl Read + Write), script: &Script) {
    if stream.write_all(&script.once).is_ok() && stream.flush().is_ok() {
        if script.block.is_empty() {
            // Says no more, and stays until the sender is gone.
            let _gone = stream.read(&mut [0]);
            return;
        }
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
                let is_http2 = !config.alpn_protocols.is_empty();
                let session = rustls::ServerConnection::new(config).unwrap();
                let mut stream = rustls::StreamOwned::new(session, stream);
                if is_http2 {
                    perform_h2(&mut stream, &script);
                } else {
                    perform(&mut stream, &script);
                }
            }
        }
    });
    address
}

/// Sends many headers and almost as much of a body as is kept, and then a record of the largest size but
/// its last byte.
fn stalled(config: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = rustls::ServerConnection::new(config).unwrap();
        let mut tls = rustls::StreamOwned::new(session, stream);
        read_head(&mut tls);
        let headers: Vec<_> = (0..62).map(|n| format!("x-{n}: v\r\n")).collect();
        let headers = headers.concat();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n{headers}\r\n");
        tls.write_all(head.as_bytes()).unwrap();
        tls.write_all(&[b'z'; 8_000]).unwrap();
        let mut record = Vec::new();
        tls.conn.writer().write_all(&[b'z'; 16_384]).unwrap();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut record).unwrap();
        }
        tls.sock.write_all(&record[..record.len() - 1]).unwrap();
        let _gone = tls.sock.read(&mut [0]);
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

/// The most that one exchange held while it waited, and at any moment, in bytes.
async fn peak_of(client: &Arc<Client>, url: &str) -> (usize, usize) {
    let request = Request {
        method: http::Method::POST,
        target: Arc::new(Target::new(&url.parse().unwrap()).unwrap()),
        body: Bytes::from_static(b"{}"),
        timeout_millis: 2_000,
        connect_timeout_millis: 2_000,
        sending: Sending::AtLeastOnce,
    };
    let headers = || Ok::<_, std::convert::Infallible>(http::HeaderMap::new());
    let client = Arc::clone(client);
    // In a task of its own, as a delivery shard does it.
    let exchanging = tokio::spawn(async move {
        let before = LIVE.get();
        PEAK.set(before);
        let mut sending = Box::pin(client.send(request, headers));
        let mut held = 0;
        let Ok(exchange) = std::future::poll_fn(|cx| {
            let polled = sending.as_mut().poll(cx);
            held = held.max(LIVE.get() - before);
            polled
        })
        .await;
        let peak = PEAK.get() - before;
        (exchange, held, peak)
    });
    let (exchange, held, peak) = exchanging.await.unwrap();
    assert!(exchange.timings.total < 3_000_000, "{exchange:?}");
    (held.cast_unsigned(), peak.cast_unsigned())
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
    let client = Arc::new(Client::new(Arc::new(config)));
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
        let mut too_much = Vec::new();
        let url = format!("https://{}/", stalled(Arc::clone(&tls)));
        let (held, _) = peak_of(&client, &url).await;
        println!("a record that stalls: {held} bytes held");
        assert!(held > 50_000 && held <= ATTEMPT_BYTES, "{held} bytes held");
        for (name, script) in scripts() {
            let plain = receiver(script.clone(), None);
            let secure = receiver(script, Some(tls.clone()));
            for url in [format!("http://{plain}/"), format!("https://{secure}/")] {
                too_much.extend(beyond(&client, name, &url, (ATTEMPT_BYTES, MOMENT_BYTES)).await);
            }
        }
        let mut over_h2 = rustls::ServerConfig::clone(&tls);
        over_h2.alpn_protocols = vec![b"h2".to_vec()];
        let over_h2 = Arc::new(over_h2);
        for (name, script) in scripts_h2() {
            let address = receiver(script, Some(Arc::clone(&over_h2)));
            let url = format!("https://{address}/");
            let most = (ATTEMPT_BYTES + CONNECTION_H2_BYTES, MOMENT_H2_BYTES);
            too_much.extend(beyond(&client, name, &url, most).await);
            // The task of the connection ends when its last user is gone.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        assert!(too_much.is_empty(), "{too_much:#?}");
    });
}

/// What an exchange held that is more than `most`, or in a moment than `moment` beside it.
async fn beyond(
    client: &Arc<Client>,
    name: &str,
    url: &str,
    (most, moment): (usize, usize),
) -> Option<String> {
    let (held, peak) = peak_of(client, url).await;
    println!("{name}: {held} bytes held, {peak} for a moment: {url}");
    let fits = held > 1_024 && held <= most && peak <= most + moment;
    (!fits).then(|| format!("{name}: {held} bytes held, {peak} for a moment: {url}"))
}
