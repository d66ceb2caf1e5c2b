//! Where signatures travel: the names of the headers, and how a receiver hands its headers over.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::scheme::Scheme;

/// The names of a scheme's headers, in lower case. A white-label sender may rename them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderNames {
    /// Carries the message id; `None` where the scheme signs none.
    pub id: Option<Cow<'static, str>>,
    /// Carries the timestamp; `None` where the scheme has none or keeps it beside the signature.
    pub timestamp: Option<Cow<'static, str>>,
    /// Carries the signature or signatures.
    pub signature: Cow<'static, str>,
}

impl HeaderNames {
    /// The names that the scheme's own senders use.
    pub const fn of(scheme: Scheme) -> Self {
        let signature = match scheme {
            Scheme::Standard => {
                return Self {
                    id: Some(Cow::Borrowed("webhook-id")),
                    timestamp: Some(Cow::Borrowed("webhook-timestamp")),
                    signature: Cow::Borrowed("webhook-signature"),
                };
            }
            Scheme::Hopae => "x-hopae-signature",
            Scheme::Kore => "kore-signature",
            Scheme::Github => "x-hub-signature-256",
        };
        Self {
            id: None,
            timestamp: None,
            signature: Cow::Borrowed(signature),
        }
    }
}

/// The headers of a received request.
///
/// Implemented for lists of pairs (names compared without regard to case) and, through
/// [`from_fn`], for any map of headers.
pub trait Headers {
    /// The value of the first header with this name, which is given in lower case unless the
    /// verifier's [`HeaderNames`] say otherwise. Names of headers have no case.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for &[(&str, &[u8])] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_named(self, name)
    }
}

impl<const N: usize> Headers for [(&str, &[u8]); N] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_named(self, name)
    }
}

impl Headers for Vec<(&str, &[u8])> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_named(self, name)
    }
}

fn first_named<'h>(pairs: &[(&str, &'h [u8])], name: &str) -> Option<&'h [u8]> {
    pairs
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value)
}

/// Headers that a closure looks up; made by [`from_fn`].
pub struct FromFn<'h, F> {
    look_up: F,
    values: PhantomData<&'h [u8]>,
}

/// Makes [`Headers`] of a closure.
///
/// ```
/// use std::collections::HashMap;
/// use hookturn_verify::{Headers, from_fn};
///
/// let map = HashMap::from([("webhook-id", "msg_1")]);
/// let headers = from_fn(|name| map.get(name).map(|value| value.as_bytes()));
/// assert_eq!(headers.get("webhook-id"), Some(&b"msg_1"[..]));
/// ```
pub fn from_fn<'h, F>(look_up: F) -> FromFn<'h, F>
where
    F: Fn(&str) -> Option<&'h [u8]>,
{
    FromFn {
        look_up,
        values: PhantomData,
    }
}

impl<'h, F> Headers for FromFn<'h, F>
where
    F: Fn(&str) -> Option<&'h [u8]>,
{
    fn get(&self, name: &str) -> Option<&[u8]> {
        (self.look_up)(name)
    }
}
