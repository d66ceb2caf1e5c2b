//! Receivers whose answers are slow, endless, broken or misleading.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hookturn::outbound::{FailureKind, Response, RetryAfter};
use hookturn_core::limits::{RESPONSE_BODY_BYTES, RESPONSE_HEADERS};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{
    answer, client, event, failure, flood, read_request, receiver, request, send, until_closed,
};

const TEN_GIB: u64 = 10 * 1024 * 1024 * 1024;
/// More than all socket buffers between the two sides hold, far less than what is offered.
const IN_BUFFERS: u64 = 64 * 1024 * 1024;

/// One byte every 20 ms: always alive, never done.
async fn drip(stream: &mut TcpStream, text: &[u8]) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for byte in text.iter().cycle() {
        ticks.tick().await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn g10_a_receiver_that_never_answers_is_left_at_the_deadline() {
    let mut hostile = receiver(async |mut stream: TcpStream| until_closed(&mut stream).await).await;
    let exchange = send(&client(), request(&hostile.url())).await;
    assert_eq!(exchange.remote, Some(hostile.address));
    let failure = failure(exchange, FailureKind::Timeout);
    assert!(failure.detail.contains("300 ms"), "{failure}");
    assert!(failure.detail.contains("headers"), "{failure}");
    event(&mut hostile.finished).await;
}

#[tokio::test]
async fn g10_a_head_that_drips_does_not_move_the_deadline() {
    let mut hostile = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nx-slow: ")
            .await
            .unwrap();
        drip(&mut stream, b"z").await;
    })
    .await;
    let failure = failure(
        send(&client(), request(&hostile.url())).await,
        FailureKind::Timeout,
    );
    assert!(failure.detail.contains("headers"), "{failure}");
    event(&mut hostile.finished).await;
}

#[tokio::test]
async fn g10_a_body_that_drips_does_not_move_the_deadline() {
    let mut hostile = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await
            .unwrap();
        drip(&mut stream, b"z").await;
    })
    .await;
    let failure = failure(
        send(&client(), request(&hostile.url())).await,
        FailureKind::Timeout,
    );
    assert!(failure.detail.contains("body (status 200)"), "{failure}");
    event(&mut hostile.finished).await;
}

/// Sends `head`, then `block` until ten gibibytes went out or the sender closes.
async fn endless(head: &'static str, block: Vec<u8>) {
    let mut hostile = receiver(move |mut stream: TcpStream| {
        let block = block.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            flood(&mut stream, &block, TEN_GIB).await
        }
    })
    .await;
    let client = client();
    let response = answer(send(&client, request(&hostile.url())).await);
    assert_eq!(response.status, 200);
    assert!(response.truncated);
    assert_eq!(response.body.len(), RESPONSE_BODY_BYTES);
    assert!(response.body.iter().all(|&byte| byte == b'z'));
    let written = event(&mut hostile.finished).await;
    assert!(written < IN_BUFFERS, "{written} bytes went out");
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn g10_ten_declared_gibibytes_are_not_read() {
    endless(
        "HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n",
        vec![b'z'; 65_536],
    )
    .await;
}

#[tokio::test]
async fn g10_ten_chunked_gibibytes_are_not_read() {
    let mut chunk = b"1000\r\n".to_vec();
    chunk.extend_from_slice(&[b'z'; 4_096]);
    chunk.extend_from_slice(b"\r\n");
    endless(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        chunk,
    )
    .await;
}

#[tokio::test]
async fn g10_a_body_until_the_end_of_the_connection_is_not_read() {
    endless("HTTP/1.0 200 OK\r\n\r\n", vec![b'z'; 65_536]).await;
}

#[tokio::test]
async fn g10_a_mebibyte_of_headers_is_refused() {
    let mut hostile = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        let line = format!("x-long: {}\r\n", "z".repeat(1_000));
        flood(&mut stream, line.as_bytes(), 1_048_576).await
    })
    .await;
    failure(
        send(&client(), request(&hostile.url())).await,
        FailureKind::HeadTooLarge,
    );
    event(&mut hostile.finished).await;
}

/// Answers with these headers, and then with `end`; what comes of it, and the idle connections.
async fn with_headers(headers: String, end: &'static str) -> (Response, usize) {
    let response = format!("HTTP/1.1 200 OK\r\n{headers}{end}");
    let hostile = receiver(move |mut stream: TcpStream| {
        let response = response.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(response.as_bytes()).await.unwrap();
            until_closed(&mut stream).await;
        }
    })
    .await;
    let client = client();
    let response = answer(send(&client, request(&hostile.url())).await);
    (response, client.idle_connections())
}

/// The delivery is judged by the status, whatever the receiver's proxies add.
#[tokio::test]
async fn g10_of_many_headers_the_first_are_kept() {
    for (count, cut) in [
        (RESPONSE_HEADERS - 2, false),
        (RESPONSE_HEADERS, true),
        (101, true),
        (2_000, true),
    ] {
        let mut headers = String::new();
        for n in 0..count {
            write!(headers, "x-{n}: v\r\n").unwrap();
        }
        let end = "content-length: 3\r\nretry-after: 7\r\n\r\nend";
        let (response, idle) = with_headers(headers, end).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.headers_truncated, cut, "{count}");
        assert_eq!(response.headers.len(), RESPONSE_HEADERS, "{count}");
        assert!(response.headers.contains_key("x-61"));
        assert_eq!(response.retry_after, Some(RetryAfter::Seconds(7)));
        assert_eq!(
            (&response.body[..], response.truncated),
            (&b"end"[..], false)
        );
        assert_eq!(idle, 1, "the connection serves again");
    }
}

#[tokio::test]
async fn g10_a_large_head_is_cut() {
    let long = format!("x-long: {}\r\n", "z".repeat(9_000));
    let some = format!("x-some: {}\r\n", "z".repeat(1_000));
    let headers = format!("x-first: v\r\n{long}{}x-last: v\r\n", some.repeat(40));
    let end = "content-length: 3\r\nconnection: keep-alive\r\n\r\nend";
    let (response, idle) = with_headers(headers, end).await;
    assert!(response.headers_truncated);
    assert!(response.headers.contains_key("x-first"));
    assert!(!response.headers.contains_key("x-long"));
    assert_eq!(response.headers.get_all("x-some").iter().count(), 3);
    assert_eq!(&response.body[..], b"end");
    assert_eq!(idle, 1, "the connection serves again");
}

#[tokio::test]
async fn g10_a_flood_of_informational_responses_is_cut_off_by_bytes() {
    let mut hostile = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        let block = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
        flood(&mut stream, block.as_bytes(), TEN_GIB).await
    })
    .await;
    // Bytes end it, long before this deadline does.
    let mut request = request(&hostile.url());
    request.timeout_millis = 30_000;
    let exchange = send(&client(), request).await;
    assert!(
        exchange.timings.total < 10_000_000,
        "{:?}",
        exchange.timings
    );
    let failure = failure(exchange, FailureKind::BadResponse);
    assert!(failure.detail.contains("more bytes"), "{failure}");
    assert!(event(&mut hostile.finished).await < IN_BUFFERS);
}

/// A delivery shard is one thread: what a receiver sends at once is worked through in turns.
#[tokio::test]
async fn g10_a_flood_leaves_turns_to_others() {
    let receiver = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        let block = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000);
        flood(&mut stream, block.as_bytes(), TEN_GIB).await
    })
    .await;
    let client = client();
    let mut turns = 0;
    let mut patient = request(&receiver.url());
    patient.timeout_millis = 30_000;
    let mut exchange = std::pin::pin!(send(&client, patient));
    let exchange = std::future::poll_fn(|cx| {
        turns += 1;
        exchange.as_mut().poll(cx)
    })
    .await;
    failure(exchange, FailureKind::BadResponse);
    // The sixteen kibibytes before a body, two at a time.
    assert!(turns >= 8, "{turns} turns");
}

#[tokio::test]
async fn informational_responses_are_skipped() {
    let polite = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream
            .write_all(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                  HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
            )
            .await
            .unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    assert_eq!(
        answer(send(&client(), request(&polite.url())).await).status,
        202
    );
}

#[tokio::test]
async fn g10_a_compressed_body_stays_compressed() {
    // The first bytes of a gzip stream; what follows does not matter, because nobody unpacks it.
    const BOMB: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xec\xc1\x01\x01\x00\x00";
    let mut hostile = receiver(async |mut stream: TcpStream| {
        let received = read_request(&mut stream).await.unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            BOMB.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(BOMB).await.unwrap();
        received
    })
    .await;
    let response = answer(send(&client(), request(&hostile.url())).await);
    assert_eq!(&response.body[..], BOMB);
    assert!(!response.truncated);
    let received = event(&mut hostile.finished).await.to_ascii_lowercase();
    assert!(!received.contains("accept-encoding"), "{received}");
    assert!(received.contains("content-length: 17\r\n"), "{received}");
    assert!(received.contains("user-agent: hookturn/"), "{received}");
}

#[tokio::test]
async fn g10_a_redirect_is_an_answer_and_is_not_followed() {
    let mut inside = receiver(async |_: TcpStream| ()).await;
    let location = inside.url();
    let hostile = receiver(move |mut stream: TcpStream| {
        let location = location.clone();
        async move {
            read_request(&mut stream).await;
            let response = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(response.as_bytes()).await.unwrap();
            until_closed(&mut stream).await;
        }
    })
    .await;
    let response = answer(send(&client(), request(&hostile.url())).await);
    assert_eq!(response.status, 307);
    assert!(response.headers.contains_key("location"));
    assert!(
        inside.finished.try_recv().is_err(),
        "the redirect was followed"
    );
}

#[tokio::test]
async fn g10_a_reset_in_the_middle_of_the_body_is_not_an_answer() {
    let hostile = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc")
            .await
            .unwrap();
    })
    .await;
    let failure = failure(
        send(&client(), request(&hostile.url())).await,
        FailureKind::Reset,
    );
    assert!(failure.detail.contains("(status 200)"), "{failure}");
}

#[tokio::test]
async fn g10_a_reset_before_the_answer_is_reported() {
    // Closing with unread bytes makes the kernel send a reset.
    let hostile = receiver(async |stream: TcpStream| stream.readable().await.unwrap()).await;
    let failure = failure(
        send(&client(), request(&hostile.url())).await,
        FailureKind::Reset,
    );
    assert!(failure.detail.contains("before it answered"), "{failure}");
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn g10_what_is_not_http_is_a_bad_response() {
    for banner in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 banana OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        &format!("{CHUNKED}xyz\r\n"),
        &format!("{CHUNKED}fffffffffffffffff\r\n"),
        &format!("{CHUNKED}0\r\n{}\r\n", "x: a\r\n".repeat(2_000)),
    ] {
        let sent: Arc<str> = banner.into();
        let hostile = receiver(move |mut stream: TcpStream| {
            let sent = Arc::clone(&sent);
            async move {
                read_request(&mut stream).await;
                stream.write_all(sent.as_bytes()).await.unwrap();
                until_closed(&mut stream).await;
            }
        })
        .await;
        let failure = send(&client(), request(&hostile.url()))
            .await
            .result
            .unwrap_err();
        assert_eq!(
            failure.kind,
            FailureKind::BadResponse,
            "{banner:?}: {failure}"
        );
        assert!(failure.detail.contains("is not valid HTTP"), "{failure}");
    }
}

#[tokio::test]
async fn retry_after_is_read() {
    let busy = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 503 Busy\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    let response = answer(send(&client(), request(&busy.url())).await);
    assert_eq!(response.retry_after, Some(RetryAfter::Seconds(120)));
}
