//! Request bodies: read within a bound, parsed strictly, and explained when they are not valid.
//!
//! A body is parsed once and fast. Only when that fails is it parsed again with its path tracked,
//! so that good requests do not pay for the explanation of bad ones. The explanation names fields
//! and what is expected, never the value that was sent.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use hookturn_core::limits;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use super::problem::{Code, Problem, looks_secret};
use super::room::Place;

/// Time a client has to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is read and dropped of a body that is too large: time and bytes.
const REST_TIME: Duration = Duration::from_secs(1);
const REST_BYTES: usize = 16 * 1024 * 1024;

/// A request body of at most `MAX` bytes that is declared as JSON, or is absent. It may hold
/// secrets, so it has no `Debug`.
pub(super) struct JsonBody<const MAX: usize> {
    /// The bytes as they came.
    pub(super) bytes: Bytes,
}

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for JsonBody<MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let bytes = collect(request, MAX).await?;
        if !declared && !bytes.is_empty() {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send the body with `Content-Type: application/json`",
            ));
        }
        Ok(Self { bytes })
    }
}

impl<const MAX: usize> JsonBody<MAX> {
    /// The body as a `T`.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        parse(&self.bytes)
    }

    /// The body as a `T`, or the default without a body.
    pub(super) fn parse_or_default<'a, T: Deserialize<'a> + Default>(
        &'a self,
    ) -> Result<T, Problem> {
        if self.bytes.is_empty() {
            Ok(T::default())
        } else {
            self.parse()
        }
    }
}

/// A request body that is read as JSON whatever it is declared as, for dialects: a script that sends
/// JSON with `curl -d` declares a form. It may hold secrets, so it has no `Debug`.
pub(super) struct AnyBody {
    /// The bytes as they came.
    pub(super) bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let bytes = collect(request, limits::BODY_BYTES).await?;
        Ok(Self { bytes })
    }
}

impl AnyBody {
    /// The body as a `T`. Without one, what is missing is the body.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        if self.bytes.trim_ascii().is_empty() {
            return Err(Problem::missing_field("", "is missing: send a JSON object"));
        }
        parse(&self.bytes)
    }
}

/// The body of a request of at most `max` bytes.
pub(super) async fn collect(request: Request, max: usize) -> Result<Bytes, Problem> {
    let length = content_length(request.headers());
    let encoded = is_encoded(request.headers());
    let place = request.extensions().get::<Place>().cloned();
    let mut body = request.into_body();
    if encoded {
        drop_rest(&mut body).await;
        return Err(Problem::new(
            Code::UnsupportedEncoding,
            "nothing was stored: bodies that are compressed or otherwise encoded are not taken; send \
             the JSON text itself, without `Content-Encoding`",
        ));
    }
    if length.is_some_and(|length| length > max as u64) {
        drop_rest(&mut body).await;
        return Err(too_large(max));
    }
    let most = length.and_then(|length| usize::try_from(length).ok());
    read(body, most.unwrap_or(max), max, place.as_ref()).await
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Whether the body is something else than its text: `identity` is what RFC 9110 calls the text.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > "application/+json".len()
            && essence
                .get(.."application/".len())
                .is_some_and(|start| start.eq_ignore_ascii_case("application/"))
            && essence
                .get(essence.len() - "+json".len()..)
                .is_some_and(|end| end.eq_ignore_ascii_case("+json")))
}

fn too_large(max: usize) -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("nothing was stored: the body has at most {max} bytes"),
    )
}

/// Why a body was not read to its end.
enum Ended {
    /// It is larger than it may be.
    TooLarge,
    /// There was no room for it.
    Full(Problem),
    /// It broke off, or is not what HTTP allows.
    Broken(axum::Error),
}

/// Reads a body that has at most `most` bytes by what its head says, and may have `max`.
async fn read(
    mut body: Body,
    most: usize,
    max: usize,
    place: Option<&Place>,
) -> Result<Bytes, Problem> {
    let gathering = gather(&mut body, most, max, place);
    let Ok(gathered) = tokio::time::timeout(BODY_TIME, gathering).await else {
        let seconds = BODY_TIME.as_secs();
        return Err(Problem::new(
            Code::IncompleteBody,
            format!("nothing was stored: the body did not come within {seconds} seconds"),
        ));
    };
    match gathered {
        Ok(bytes) => Ok(bytes),
        Err(Ended::TooLarge) => {
            drop_rest(&mut body).await;
            Err(too_large(max))
        }
        Err(Ended::Full(problem)) => {
            drop_rest(&mut body).await;
            Err(problem)
        }
        Err(Ended::Broken(error)) if is_malformed(&error) => Err(Problem::new(
            Code::MalformedRequest,
            "nothing was stored: the body is not what its Transfer-Encoding says, such as a chunk whose \
             size is not a hexadecimal number",
        )),
        Err(Ended::Broken(_)) => Err(Problem::new(
            Code::IncompleteBody,
            "nothing was stored: the connection ended before the body did",
        )),
    }
}

async fn gather(
    body: &mut Body,
    most: usize,
    max: usize,
    place: Option<&Place>,
) -> Result<Bytes, Ended> {
    // Nearly every body is one piece, which is kept as it is. Many small ones would each keep what they came in.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Ended::Broken)?.into_data() else {
            continue;
        };
        let length = first.len() + whole.len() + data.len();
        if length > max {
            return Err(Ended::TooLarge);
        }
        if let Some(place) = place.filter(|place| place.is_needed_for(length)) {
            place.take(most).await.map_err(Ended::Full)?;
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
    }
    if whole.is_empty() {
        return Ok(first);
    }
    Ok(whole.freeze())
}

/// Whether a body came that HTTP does not allow, rather than none. These are the kinds that the decoder of
/// chunks ends with; a connection that breaks has others.
fn is_malformed(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{InvalidData, InvalidInput};
            return matches!(io.kind(), InvalidData | InvalidInput);
        }
        cause = error.source();
    }
    false
}

/// Takes what the client is still sending. A connection that is closed over bytes nobody has read is
/// reset, and the client would see that instead of the answer.
async fn drop_rest(body: &mut Body) {
    let reading = async {
        let mut left = REST_BYTES;
        while let Some(Ok(frame)) = body.frame().await
            && left > 0
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    let _out_of_patience = tokio::time::timeout(REST_TIME, reading).await;
}

/// Parses `bytes`, or says what is wrong with them.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(
            Code::InvalidUtf8,
            format!(
                "nothing was stored: byte {} of the body is not part of a UTF-8 character",
                error.valid_up_to()
            ),
        )
    })?;
    match serde_json::from_str(text) {
        Ok(Object(body)) => Ok(body),
        Err(error) => Err(explain::<T>(text, &error)),
    }
}

/// A `T` that is written as an object. Alone, a struct would be read from an array too, its fields
/// by their order.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A whole number that is not negative, however JSON writes it: `5`, `5.0` and `5e0` are one number to
/// JSON and to JSON Schema's `integer`, and serde takes the first only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Whole<T>(pub(super) T);

impl<T> Whole<T> {
    /// The number.
    pub(super) fn get(self) -> T {
        self.0
    }
}

/// What every `f64` up to it that has no fraction stands for exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<T>(PhantomData<T>);

        impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
            type Value = Whole<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WHOLE)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let refused = || E::invalid_value(Unexpected::Unsigned(number), &self);
                T::try_from(number).map(Whole).map_err(|_| refused())
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
                if number.fract() != 0.0 || !(0.0..=EXACT_MAX).contains(&number) {
                    return Err(E::invalid_type(Unexpected::Float(number), &self));
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "no fraction, not negative and exact: the lines above"
                )]
                self.visit_u64(number as u64)
            }
        }

        deserializer.deserialize_u64(Number(PhantomData))
    }
}

/// Reads a plain number as a [`Whole`] one.
pub(super) fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(Whole::get)
}

/// The same for three of them.
pub(super) fn wholes<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[T; 3], D::Error> {
    <[Whole<T>; 3]>::deserialize(deserializer).map(|all| all.map(Whole::get))
}

const WHOLE: &str = "a whole number, not negative and not too large";

const REQUIRED: &str = "is required";
const OUT_OF_RANGE: &str = "number out of range";

/// Whether a text is JSON at all is asked apart: serde calls some wrong types a syntax error.
fn explain<'a, T: Deserialize<'a>>(text: &'a str, error: &serde_json::Error) -> Problem {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return malformed(&error);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (pointer, said) = match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer)
    {
        Ok(_) => (String::new(), error.to_string()),
        Err(tracked) => (pointer(tracked.path()), tracked.inner().to_string()),
    };
    let (pointer, detail) = describe(pointer, &said);
    if detail == REQUIRED {
        return Problem::missing_field(pointer, detail);
    }
    Problem::field(pointer, detail)
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    // Messages about syntax are fixed texts; the position is given apart.
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or("not a JSON text");
    Problem::new(
        Code::MalformedJson,
        format!("nothing was stored: line {line}, column {column}: {said}"),
    )
    .with("line", line)
    .with("column", column)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push(pointer: &mut String, key: &str) {
    pointer.push('/');
    if looks_secret(key) {
        return;
    }
    for letter in key.chars().take(Problem::NAME_CHARS) {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// A body that says nothing: absent or `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A body that may say why, for the audit log.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Why {
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub(super) reason: Option<String>,
}

/// Turns serde's sentence, which may repeat what was sent, into where and what is expected.
fn describe(mut pointer: String, said: &str) -> (String, String) {
    let said = said.split(" at line ").next().unwrap_or(said);
    let quoted = || said.split('`').nth(1).unwrap_or_default();
    if said.starts_with("unknown field") {
        // From the end: the name may hold anything, what is allowed is ours.
        let allowed = ["expected ", "there are no fields"]
            .into_iter()
            .find_map(|ours| Some(&said[said.rfind(&format!("`, {ours}"))? + "`, ".len()..]))
            .unwrap_or_default();
        // A path that serde already ends with the field needs no second one.
        let mut last = String::new();
        push(&mut last, quoted());
        if !pointer.ends_with(&last) {
            pointer.push_str(&last);
        }
        return (pointer, format!("unknown field; {allowed}"));
    }
    if said.starts_with("missing field") {
        push(&mut pointer, quoted());
        return (pointer, REQUIRED.to_owned());
    }
    if said.starts_with("duplicate field") {
        push(&mut pointer, quoted());
        return (pointer, "is given twice".to_owned());
    }
    if said.starts_with(OUT_OF_RANGE) {
        return (pointer, "the number is out of range".to_owned());
    }
    if said.starts_with("expected ") {
        return (pointer, "expected a value of another type".to_owned());
    }
    if said.starts_with("unknown variant") {
        let expected = said.rsplit("expected ").next().unwrap_or_default();
        return (pointer, format!("expected {expected}"));
    }
    if said.starts_with("invalid ") {
        let expected = said.rsplit(", expected ").next().unwrap_or_default();
        return (pointer, format!("expected {}", plain(expected)));
    }
    (pointer, said.to_owned())
}

/// What a Rust type is called outside.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => WHOLE,
        "i64" => "a whole number",
        "a sequence" => "an array",
        "a map" => "an object",
        text if text.starts_with("struct ") => "an object",
        other => other,
    }
}

/// Takes `null` for an absent field.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Tells an absent field (`None`) from one that is `null` (`Some(None)`), for PATCH.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Reads a field of a PATCH whose default is that of its type: `null` puts it back to that (RFC 7396).
pub(super) fn reset<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    or_default(deserializer).map(Some)
}

const NO_DEFAULT: &str = "cannot be null: leave it out to keep what is there";

/// Reads a field of a PATCH that has no default: it may be absent, and not `null`.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    match Option::deserialize(deserializer)? {
        Some(value) => Ok(Some(value)),
        None => Err(serde::de::Error::custom(NO_DEFAULT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        name: String,
        count: Option<u32>,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        mode: Mode,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Mode {
        One,
        Two,
    }

    /// Body, code, pointer of the first error.
    const BAD: &[(&str, &str, &str)] = &[
        ("", "malformed_json", ""),
        ("{", "malformed_json", ""),
        (r#"{"name":"a"} x"#, "malformed_json", ""),
        (r#"{"name":"a","colour":1}"#, "invalid_field", "/colour"),
        (r#"{"count":1}"#, "invalid_field", "/name"),
        (r#"{"name":"a","count":-1}"#, "invalid_field", "/count"),
        (r#"{"name":"a","count":1.5}"#, "invalid_field", "/count"),
        (r#"{"name":"a","count":1e999}"#, "invalid_field", "/count"),
        (
            r#"{"name":"a","count":"whsec_a1"}"#,
            "invalid_field",
            "/count",
        ),
        (
            r#"{"name":"a","inner":[{"mode":"whsec_a1"}]}"#,
            "invalid_field",
            "/inner/0/mode",
        ),
        (
            r#"{"name":"a","inner":[{"mode":5}]}"#,
            "invalid_field",
            "/inner/0/mode",
        ),
        (
            r#"{"name":"a","inner":[{"mode":null}]}"#,
            "invalid_field",
            "/inner/0/mode",
        ),
        (
            r#"{"name":"a","inner":[{"mode":"one","a/b":1}]}"#,
            "invalid_field",
            "/inner/0/a~1b",
        ),
        (r#"{"name":"a","name":"b"}"#, "invalid_field", "/name"),
        (r#"["whsec_a1"]"#, "invalid_field", ""),
        (r#"["a",1,[]]"#, "invalid_field", ""),
        ("null", "invalid_field", ""),
        (r#"{"name":"a","whsec_a1":1}"#, "invalid_field", "/"),
    ];

    #[test]
    fn bad_bodies_get_a_code_and_a_pointer_and_no_echo() {
        for (body, code, pointer) in BAD {
            let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code().as_str(), *code, "{body}");
            let shown = format!("{problem:?}");
            if problem.code() == Code::InvalidField {
                let wanted = format!("pointer: Some({pointer:?})");
                assert!(shown.contains(&wanted), "{body}: {shown}");
            }
            assert!(!shown.contains("a1"), "{body}: {shown}");
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Numbers {
        one: Option<Whole<u8>>,
        #[serde(default)]
        more: Vec<Whole<u64>>,
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, wanted) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("5e0", Some(5)),
            ("50e-1", Some(5)),
            ("0.0", Some(0)),
            ("-0.0", Some(0)),
            ("255.0", Some(255)),
            ("null", None),
        ] {
            let body = format!(r#"{{"one":{text},"more":[{}]}}"#, text.replace("null", "1"));
            let read = parse::<Numbers>(body.as_bytes()).unwrap();
            assert_eq!(read.one.map(|one| one.0), wanted, "{text}");
            assert_eq!(read.more, [Whole(u64::from(wanted.unwrap_or(1)))], "{text}");
        }
        for text in [
            "5.5", "-1", "-1.0", "256", "256.0", "1e300", "1e999", "true", "\"5\"", "[5]",
        ] {
            let body = format!(r#"{{"one":{text}}}"#);
            let problem = parse::<Numbers>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidField, "{text}");
            let pointer = problem.errors()[0].pointer.as_deref();
            assert_eq!(pointer, Some("/one"), "{text}");
        }
    }

    #[test]
    fn other_bytes_than_utf8_are_refused() {
        let problem = parse::<Sample>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert_eq!(problem.code(), Code::InvalidUtf8);
    }

    #[test]
    fn codings_are_recognised_in_lists_and_in_any_case() {
        for (values, wanted) in [
            (&["gzip"][..], true),
            (&["GZIP"], true),
            (&["identity, br"], true),
            (&["identity", "zstd"], true),
            (&["Identity"], false),
            (&[" , identity,"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(is_encoded(&headers), wanted, "{values:?}");
        }
    }

    #[test]
    fn json_is_recognised_with_parameters_and_suffixes() {
        for (value, wanted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("text/json", false),
            ("application/jsonp", false),
            ("application/+json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_json(&headers), wanted, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
