//! Pages are compressed for browsers that take it: the HTML of a list is mostly the same words.
//!
//! A compressed page tells its length, and a length tells what it has in common with what a stranger put into it,
//! if the stranger can make the browser ask again and again. He cannot: the session's cookie does not come along
//! with what another site asks for (`SameSite=Strict`), and without a session every page is sign-in. What
//! shows the value of a secret answers a form, and is left as it is.

use std::io::Write as _;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// Below this there is nothing to gain.
const BYTES_MIN: u64 = 1_024;
/// No page is as large; what is, is sent as it is.
const BYTES_MAX: u64 = 4 * 1_024 * 1_024;

/// Whether a browser takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"))
}

/// Compresses the pages that are asked for with GET.
pub(super) async fn pages(request: Request, next: Next) -> Response {
    let wanted = request.method() == Method::GET && takes_gzip(request.headers());
    let response = next.run(request).await;
    if !wanted || !is_page(&response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
    let Ok(plain) = to_bytes(body, limit).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    let written = encoder.write_all(&plain);
    let Ok(packed) = written.and_then(|()| encoder.finish()) else {
        return Response::from_parts(head, Body::from(plain));
    };
    let gzip = HeaderValue::from_static("gzip");
    head.headers.insert(header::CONTENT_ENCODING, gzip);
    head.headers.remove(header::CONTENT_LENGTH);
    let vary = HeaderValue::from_static("accept-encoding");
    head.headers.append(header::VARY, vary);
    Response::from_parts(head, Body::from(packed))
}

/// Whether it is a whole page in memory, and not compressed yet.
fn is_page(response: &Response) -> bool {
    let is_html = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    let size = http_body::Body::size_hint(response.body()).exact();
    is_html
        && !response.headers().contains_key(header::CONTENT_ENCODING)
        && size.is_some_and(|size| (BYTES_MIN..=BYTES_MAX).contains(&size))
}
