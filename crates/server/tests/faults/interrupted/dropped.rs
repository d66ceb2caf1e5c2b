//! The connection is dropped after every byte of a request (closed after each, ended in other ways after some),
//! and while its answer is read.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::script::Script;
use super::{Known, version};
use crate::support::http::Api;
use crate::support::process::Setup;
use crate::support::{app, endpoint};

/// Times that a whole request is left without its answer, and that a part of the answer is read, for each way to
/// go away.
const TURNS: usize = 32;

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It closes.
    Close,
    /// It is gone without a word: the server gets a reset.
    Reset,
    /// It says that it writes no more, and does not wait for what it is told.
    HalfClose,
}

/// Where a client goes away.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After so many bytes of the request.
    Wrote(usize),
    /// After so many bytes of the answer.
    Read(usize),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_dropped_connection_leaves_a_rotation_done_or_not_and_the_replay_tells() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start().await;
    let api = server.api();
    let app = app(&api).await;
    let made = endpoint(&api, &app, "http://127.0.0.1:9/", json!({})).await;
    let version = version(&api, &made.keyring).await;
    let mut script = Script::new(&made.keyring, version);
    let mut replayed = 0;
    for (end, stride) in [(End::Close, 1), (End::Reset, 8), (End::HalfClose, 8)] {
        let mut wrote = 0;
        while wrote < script.next().request(&api).bytes().len() {
            interrupt(&api, &mut script, end, Moment::Wrote(wrote)).await;
            wrote += stride;
        }
        for turn in 0..TURNS {
            // The whole request, again and again: here the server and the end of the connection race.
            let all = script.next().request(&api).bytes().len();
            replayed += usize::from(interrupt(&api, &mut script, end, Moment::Wrote(all)).await);
            interrupt(&api, &mut script, end, Moment::Read(1 + turn * 16)).await;
        }
    }
    let log = server.stop().await.join("\n");
    assert!(!log.contains("panicked"), "{log}");
    println!(
        "dropped connections: {} commands; of {} that were sent whole and not read, {replayed} had happened",
        script.done(),
        3 * TURNS
    );
}

/// Goes away in the middle of the next command, and repeats it; whether it had happened.
async fn interrupt(api: &Api, script: &mut Script, end: End, moment: Moment) -> bool {
    let command = script.next();
    let request = command.request(api).bytes();
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::new();
    let known = match moment {
        Moment::Wrote(bytes) => {
            stream.write_all(&request[..bytes]).await.unwrap();
            if bytes < request.len() {
                Known::NotDone
            } else {
                Known::Unknown
            }
        }
        Moment::Read(bytes) => {
            stream.write_all(&request).await.unwrap();
            read.resize(bytes, 0);
            let count = stream.read(&mut read).await.unwrap();
            assert!(count > 0, "{command:?}: no answer");
            read.truncate(count);
            Known::Done
        }
    };
    match end {
        End::Close => {}
        End::Reset => stream.set_zero_linger().unwrap(),
        End::HalfClose => stream.shutdown().await.unwrap(),
    }
    drop(stream);
    let (repeated, replay) = command.repeat(api, known, false).await;
    let said = body_of(&read);
    assert!(
        repeated.body.starts_with(said),
        "{command:?}, {end:?}, {moment:?}: the first answer began {}, the second is {repeated:?}",
        String::from_utf8_lossy(said)
    );
    script.advance(&repeated);
    replay
}

/// What was read of an answer's body.
fn body_of(read: &[u8]) -> &[u8] {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n");
    head.map_or(&[], |end| &read[end + 4..])
}
