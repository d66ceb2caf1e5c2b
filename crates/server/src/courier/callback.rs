//! KORE callbacks whose payload travels as parameters: a form in the body, or a query in the URL.
//!
//! Both are `application/x-www-form-urlencoded` of the payload's members, in their order:
//!
//! 1. A string is itself; a number, `true` and `false` are their JSON text, as it was published.
//! 2. `null` is empty.
//! 3. An array or an object is its JSON text without insignificant white space.
//! 4. A payload that is no object is one member, `payload`, by the same rules. So is an object with a
//!    name that is no text (half of a surrogate pair); such a value stays as it was published.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use url::form_urlencoded::Serializer;

use super::request::minified;

/// The parameters that a payload becomes.
pub(super) fn parameters(payload: &[u8]) -> String {
    let mut out = Serializer::new(String::with_capacity(payload.len()));
    match serde_json::from_slice::<Members<'_>>(payload) {
        Ok(Members(members)) => {
            for (name, value) in members {
                out.append_pair(&name, &text(value.get()));
            }
        }
        Err(_) => {
            out.append_pair("payload", &text(&String::from_utf8_lossy(payload)));
        }
    }
    out.finish()
}

/// The members of an object in their order, each as often as it is there.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsWritten;

        impl<'de> Visitor<'de> for AsWritten {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(AsWritten)
    }
}

fn text(value: &str) -> Cow<'_, str> {
    let value = value.trim_ascii();
    match value.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str::<String>(value).map_or(Cow::Borrowed(value), Cow::Owned)
        }
        Some(b'n') => Cow::Borrowed(""),
        Some(b'{' | b'[') => {
            let kept = minified(&Bytes::copy_from_slice(value.as_bytes()));
            Cow::Owned(String::from_utf8_lossy(&kept).into_owned())
        }
        Some(_) | None => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use url::form_urlencoded::parse;

    #[test]
    fn members_become_parameters_in_their_order() {
        for (payload, wanted) in [
            (
                r#"{"field1":"value1","field2":"value2"}"#,
                "field1=value1&field2=value2",
            ),
            (r#" { "z" : 1.0 , "a" : 1e400 } "#, "z=1.0&a=1e400"),
            (r#"{"a":true,"b":false,"c":null}"#, "a=true&b=false&c="),
            (
                r#"{"a":[1, "x y"],"b":{"c" : [ ]}}"#,
                "a=%5B1%2C%22x+y%22%5D&b=%7B%22c%22%3A%5B%5D%7D",
            ),
            (r#"{"a":1,"a":2}"#, "a=1&a=2"),
            (r#"{"a b":"c&d=e+f ü\n"}"#, "a+b=c%26d%3De%2Bf+%C3%BC%0A"),
            (r#"{"\u00e9":"\u20ac"}"#, "%C3%A9=%E2%82%AC"),
            (r#"{"":""}"#, "="),
            ("{}", ""),
            ("[1, 2]", "payload=%5B1%2C2%5D"),
            (r#""text""#, "payload=text"),
            (" 7 ", "payload=7"),
            ("null", "payload="),
            (r#"{"a":"\ud800"}"#, "a=%22%5Cud800%22"),
            (r#"{"\ud800": 1}"#, "payload=%7B%22%5Cud800%22%3A1%7D"),
        ] {
            assert_eq!(parameters(payload.as_bytes()), wanted, "{payload}");
        }
    }

    proptest! {
        #[test]
        fn what_a_form_parser_reads_is_what_was_published(
            members in prop::collection::btree_map("\\PC{0,8}", "\\PC{0,20}|[&=+%# ]{0,8}", 0..6),
        ) {
            let object: Map<String, Value> = members
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(value.clone())))
                .collect();
            let form = parameters(&serde_json::to_vec(&object).unwrap());
            prop_assert!(form.bytes().all(|byte| byte.is_ascii_graphic()));
            let read: Vec<_> = parse(form.as_bytes()).into_owned().collect();
            prop_assert!(read.into_iter().eq(members));
        }
    }
}
