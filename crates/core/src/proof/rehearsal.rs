//! The rehearsal: a few inert probes, signed with the current secret and a random key, that find out
//! how a receiver verifies, before any new secret exists.

use std::fmt;

use hookturn_verify::Scheme;
use serde::{Deserialize, Serialize};

use crate::id::SecretId;
use crate::receiver::ReceiverClass;

/// With which keys a probe of the rehearsal is signed: C is the current secret, R a random key that
/// nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKeys {
    /// `[C]`: does it accept the probe at all?
    Current,
    /// `[C, R]`: does it accept when the first signature matches?
    CurrentRandom,
    /// `[R, C]`: does it accept when the last signature matches?
    RandomCurrent,
    /// `[R]`: does it verify?
    Random,
}

impl ProbeKeys {
    /// The probes of a rehearsal in the order they are sent: four, or two where the scheme carries
    /// one signature.
    pub const fn of(scheme: Scheme) -> &'static [Self] {
        if scheme.carries_many_signatures() {
            &[
                Self::Current,
                Self::CurrentRandom,
                Self::RandomCurrent,
                Self::Random,
            ]
        } else {
            &[Self::Current, Self::Random]
        }
    }
}

impl fmt::Display for ProbeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "[C]",
            Self::CurrentRandom => "[C, R]",
            Self::RandomCurrent => "[R, C]",
            Self::Random => "[R]",
        })
    }
}

/// One key of a probe's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKey {
    /// A secret of the endpoint's keyring; it must be live when the probe is signed.
    Secret(SecretId),
    /// The old secret of a rotation, while it is retiring: it signs to ask whether the receiver refuses it.
    Former(SecretId),
    /// A key that was just drawn and that nobody holds.
    Random,
}

/// What an answer says about the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeAnswer {
    /// 2xx: the signature was good enough.
    Accepted,
    /// 400, 401, 403 or 422: the signature was not good enough.
    Refused,
    /// 500: a verifier that throws, or a receiver that is broken. Only repetition tells.
    Threw,
    /// Anything else, or no answer: says nothing about the signature.
    Silent,
}

impl ProbeAnswer {
    /// What a status says; `None` for a timeout, a network error or a broken response.
    pub const fn of(status: Option<u16>) -> Self {
        match status {
            Some(200..=299) => Self::Accepted,
            Some(400 | 401 | 403 | 422) => Self::Refused,
            Some(500) => Self::Threw,
            Some(_) | None => Self::Silent,
        }
    }
}

/// How often one question is asked before a 500 or silence is taken for the answer.
pub const ASKED_AT_MOST: u8 = 3;

/// A rehearsal in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    questions: Vec<Asked>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    keys: ProbeKeys,
    times: u8,
    answer: Option<ProbeAnswer>,
    status: Option<u16>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Send this probe and record its answer.
    Probe(ProbeKeys),
    /// Nothing is left to ask.
    Found(Finding),
}

/// How a receiver verifies, and how that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its class.
    pub class: ReceiverClass,
    /// Whether it answers 500 to a signature that does not match. Then a 500 to a delivery may be
    /// about the signature too.
    pub throws: bool,
    /// Whether it refused the probe that the current secret signed alone: it holds another secret, or
    /// it refuses the probe itself.
    pub refused_current: bool,
    /// What it answered to a signature that does not match, where it accepts the current secret and that
    /// status says nothing about signatures: a delivery that it answers so is not repaired by a fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odd_status: Option<u16>,
}

impl Rehearsal {
    /// A rehearsal of a receiver of this scheme.
    pub fn new(scheme: Scheme) -> Self {
        let asked = |&keys| Asked {
            keys,
            times: 0,
            answer: None,
            status: None,
        };
        Self {
            questions: ProbeKeys::of(scheme).iter().map(asked).collect(),
        }
    }

    /// Probes that it sends at most.
    pub fn at_most(&self) -> u32 {
        let questions = u32::try_from(self.questions.len()).unwrap_or(u32::MAX);
        questions.saturating_mul(u32::from(ASKED_AT_MOST))
    }

    /// What to do next.
    ///
    /// 1. `[C]` comes first. While it is refused, throws or is silent nothing else is worth asking.
    /// 2. An answer that tells (accepted, refused) ends its question. A 500 or silence is asked again,
    ///    at most [`ASKED_AT_MOST`] times in all, so that a receiver that fails now and then is not
    ///    mistaken for one that verifies otherwise.
    pub fn next(&self) -> Ask {
        for asked in &self.questions {
            if !asked.is_settled() {
                return Ask::Probe(asked.keys);
            }
            if asked.keys == ProbeKeys::Current && asked.answer != Some(ProbeAnswer::Accepted) {
                break;
            }
        }
        Ask::Found(self.finding())
    }

    /// Notes the answer to a probe: its status, `None` without one.
    #[must_use]
    pub fn after(mut self, keys: ProbeKeys, status: Option<u16>) -> Self {
        let answer = ProbeAnswer::of(status);
        for asked in &mut self.questions {
            if asked.keys == keys && !asked.is_settled() {
                asked.times += 1;
                // Silence after a 500 does not unsay it.
                if asked.answer != Some(ProbeAnswer::Threw) || answer != ProbeAnswer::Silent {
                    asked.answer = Some(answer);
                    asked.status = status;
                }
            }
        }
        self
    }

    /// The class, from the answers.
    ///
    /// 1. `[C]` refused: `unknown`, for nothing can be concluded about a receiver that does not accept
    ///    the current secret. `[C]` without a telling answer: `unreachable`.
    /// 2. `[R]` accepted: `does_not_verify`, whatever else was answered. `[R]` silent: `unreachable`.
    /// 3. `[R]` refused, or answered 500 each time: it verifies. In a scheme of one signature:
    ///    `single`.
    /// 4. Otherwise by which of `[C, R]` and `[R, C]` were accepted: both `list_aware`, the first
    ///    `first_only`, the last `last_only`, none `single` (it takes the header for one signature).
    ///    Silence to one of them: `unreachable`.
    fn finding(&self) -> Finding {
        let answer = |keys| {
            self.questions
                .iter()
                .find(|asked| asked.keys == keys)
                .and_then(|asked| asked.answer)
        };
        let current = answer(ProbeKeys::Current);
        let random = answer(ProbeKeys::Random);
        let class = match (current, random) {
            (Some(ProbeAnswer::Refused), _) => ReceiverClass::Unknown,
            (Some(ProbeAnswer::Threw | ProbeAnswer::Silent) | None, _)
            | (Some(ProbeAnswer::Accepted), Some(ProbeAnswer::Silent) | None) => {
                ReceiverClass::Unreachable
            }
            (Some(ProbeAnswer::Accepted), Some(ProbeAnswer::Accepted)) => {
                ReceiverClass::DoesNotVerify
            }
            (Some(ProbeAnswer::Accepted), Some(ProbeAnswer::Refused | ProbeAnswer::Threw)) => {
                by_position(
                    answer(ProbeKeys::CurrentRandom),
                    answer(ProbeKeys::RandomCurrent),
                )
            }
        };
        let odd = |asked: &&Asked| asked.answer == Some(ProbeAnswer::Silent);
        let odd_status = self
            .questions
            .iter()
            .filter(odd)
            .find_map(|asked| asked.status)
            .filter(|_| {
                class == ReceiverClass::Unreachable && current == Some(ProbeAnswer::Accepted)
            });
        Finding {
            odd_status,
            class,
            throws: random == Some(ProbeAnswer::Threw),
            refused_current: current == Some(ProbeAnswer::Refused),
        }
    }
}

/// Rule 4 of [`Rehearsal::finding`]; `None` where the scheme has no such probe.
fn by_position(first: Option<ProbeAnswer>, last: Option<ProbeAnswer>) -> ReceiverClass {
    let (Some(first), Some(last)) = (first, last) else {
        return ReceiverClass::Single;
    };
    match (first, last) {
        (ProbeAnswer::Silent, _) | (_, ProbeAnswer::Silent) => ReceiverClass::Unreachable,
        (ProbeAnswer::Accepted, ProbeAnswer::Accepted) => ReceiverClass::ListAware,
        (ProbeAnswer::Accepted, ProbeAnswer::Refused | ProbeAnswer::Threw) => {
            ReceiverClass::FirstOnly
        }
        (ProbeAnswer::Refused | ProbeAnswer::Threw, ProbeAnswer::Accepted) => {
            ReceiverClass::LastOnly
        }
        (ProbeAnswer::Refused | ProbeAnswer::Threw, ProbeAnswer::Refused | ProbeAnswer::Threw) => {
            ReceiverClass::Single
        }
    }
}

impl Asked {
    const fn is_settled(self) -> bool {
        match self.answer {
            Some(ProbeAnswer::Accepted | ProbeAnswer::Refused) => true,
            Some(ProbeAnswer::Threw | ProbeAnswer::Silent) => self.times >= ASKED_AT_MOST,
            None => false,
        }
    }
}

impl Finding {
    /// What was found, in one sentence.
    pub fn words(&self) -> String {
        if let Some(status) = self.odd_status {
            return format!(
                "it accepted a request signed with the current secret, and answered {status} to a \
                 signature that does not match: no status that tells of signatures"
            );
        }
        self.class_words().to_owned()
    }

    const fn class_words(self) -> &'static str {
        match self.class {
            ReceiverClass::ListAware => {
                "it reads every signature of a request and accepts when one of them matches"
            }
            ReceiverClass::FirstOnly => "it reads the first signature of a request only",
            ReceiverClass::LastOnly => "it reads the last signature of a request only",
            ReceiverClass::Single => "it verifies one signature",
            ReceiverClass::DoesNotVerify => {
                "it accepted a request signed with a random key: it verifies nothing"
            }
            ReceiverClass::Unreachable => {
                "it did not answer in a way that says anything about signatures"
            }
            ReceiverClass::Unknown if self.refused_current => {
                "it refused a request signed with the current secret: it holds another one, or it \
                 refuses the probe's event type or body"
            }
            ReceiverClass::Unknown => "it was never rehearsed",
        }
    }

    /// What that means for a rotation, in one sentence. A rehearsal asks with the current secret: whoever refused that
    /// while a new one is pending (`is_pending`) may have deployed the new one.
    pub const fn consequence(&self, is_pending: bool) -> &'static str {
        if self.odd_status.is_some() {
            return "nothing can be proved, and in an overlap a delivery that it answers so is not \
                    repaired with the other secret: make it answer 401 to a signature that does not \
                    match, then rehearse again";
        }
        match self.class {
            ReceiverClass::ListAware => {
                "a rotation signs with both secrets while both are live; the receiver may switch at \
                 any moment and refuses nothing"
            }
            ReceiverClass::FirstOnly | ReceiverClass::LastOnly | ReceiverClass::Single => {
                "a rotation signs with the secret the receiver is believed to hold and repairs a \
                 refusal with the other at once; expect a refused request when it switches"
            }
            ReceiverClass::DoesNotVerify => {
                "nothing can be proved about its secret; rotate when you like, and tell its owner \
                 that anyone can send to it"
            }
            ReceiverClass::Unreachable => {
                "nothing can be proved until it answers; rotate with mode overlap, or rehearse again"
            }
            ReceiverClass::Unknown if is_pending && self.refused_current => {
                "the receiver may hold the pending secret already, which a rehearsal does not ask about: \
                 what the open rotation shows of this endpoint says whether it accepts it; if not, check \
                 which secret it holds, or choose another probe body"
            }
            ReceiverClass::Unknown => {
                "nothing can be proved; check which secret it holds, or choose another probe body, \
                 and rehearse again"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rehearses a receiver that answers by a function; returns what was found and asked.
    fn rehearse(
        scheme: Scheme,
        mut answer: impl FnMut(ProbeKeys, usize) -> Option<u16>,
    ) -> (Finding, usize) {
        let mut rehearsal = Rehearsal::new(scheme);
        let mut asked = 0;
        loop {
            match rehearsal.next() {
                Ask::Found(finding) => return (finding, asked),
                Ask::Probe(keys) => {
                    let status = answer(keys, asked);
                    rehearsal = rehearsal.after(keys, status);
                    asked += 1;
                }
            }
        }
    }

    /// A receiver that accepts the given probes and answers `refusal` to the others.
    fn accepting(accepted: &[ProbeKeys], refusal: u16) -> impl Fn(ProbeKeys, usize) -> Option<u16> {
        move |keys, _| {
            Some(if accepted.contains(&keys) {
                204
            } else {
                refusal
            })
        }
    }

    #[test]
    fn every_class_is_told_apart() {
        use ProbeKeys::{Current, CurrentRandom, Random, RandomCurrent};
        let cases: [(Scheme, &[ProbeKeys], ReceiverClass); 9] = [
            (
                Scheme::Standard,
                &[Current, CurrentRandom, RandomCurrent],
                ReceiverClass::ListAware,
            ),
            (
                Scheme::Standard,
                &[Current, CurrentRandom],
                ReceiverClass::FirstOnly,
            ),
            (
                Scheme::Standard,
                &[Current, RandomCurrent],
                ReceiverClass::LastOnly,
            ),
            (Scheme::Standard, &[Current], ReceiverClass::Single),
            (
                Scheme::Standard,
                &[Current, CurrentRandom, RandomCurrent, Random],
                ReceiverClass::DoesNotVerify,
            ),
            (Scheme::Standard, &[], ReceiverClass::Unknown),
            (Scheme::Hopae, &[Current], ReceiverClass::Single),
            (
                Scheme::Kore,
                &[Current, Random],
                ReceiverClass::DoesNotVerify,
            ),
            (Scheme::Github, &[], ReceiverClass::Unknown),
        ];
        for (scheme, accepted, class) in cases {
            let (finding, asked) = rehearse(scheme, accepting(accepted, 401));
            assert_eq!(finding.class, class, "{scheme} {accepted:?}");
            assert!(asked <= ProbeKeys::of(scheme).len());
            assert!(!finding.throws);
        }
    }

    #[test]
    fn a_verifier_that_throws_is_told_from_a_broken_receiver() {
        let (finding, asked) = rehearse(
            Scheme::Standard,
            accepting(&[ProbeKeys::Current, ProbeKeys::CurrentRandom], 500),
        );
        assert_eq!(finding.class, ReceiverClass::FirstOnly);
        assert!(finding.throws);
        assert_eq!(asked, 2 + 2 * usize::from(ASKED_AT_MOST));
        let (finding, asked) = rehearse(Scheme::Standard, |_, _| Some(500));
        assert_eq!(finding.class, ReceiverClass::Unreachable);
        assert_eq!(asked, usize::from(ASKED_AT_MOST));
    }

    #[test]
    fn silence_is_never_ready_and_never_not_ready() {
        for status in [None, Some(503), Some(429), Some(404), Some(302)] {
            let (finding, _) = rehearse(Scheme::Hopae, |_, _| status);
            assert_eq!(finding.class, ReceiverClass::Unreachable, "{status:?}");
            assert!(!finding.refused_current);
        }
    }

    #[test]
    fn a_status_that_tells_nothing_of_signatures_is_named_where_the_secret_is_accepted() {
        use ProbeKeys::{Current, CurrentRandom, RandomCurrent};
        for (scheme, status) in [
            (Scheme::Hopae, 404),
            (Scheme::Standard, 302),
            (Scheme::Standard, 503),
        ] {
            for accepted in [&[Current][..], &[Current, CurrentRandom, RandomCurrent]] {
                let (finding, _) = rehearse(scheme, accepting(accepted, status));
                assert_eq!(finding.class, ReceiverClass::Unreachable);
                assert_eq!(finding.odd_status, Some(status));
                let words = finding.words();
                assert!(words.contains(&format!("answered {status}")), "{words}");
                assert!(finding.consequence(false).contains("answer 401"));
            }
        }
        // A timeout has no status, and what does not accept the secret tells nothing by another.
        for (status, of_current) in [(None, 200), (Some(404), 404)] {
            let (finding, _) = rehearse(Scheme::Hopae, |keys, _| match keys {
                Current => Some(of_current),
                _ => status,
            });
            assert_eq!(finding.class, ReceiverClass::Unreachable);
            assert_eq!(finding.odd_status, None);
        }
    }

    #[test]
    fn a_flapping_receiver_is_asked_again() {
        // Every other request fails, with 503 and with 500 in turn.
        for failure in [503, 500] {
            let (finding, _) = rehearse(Scheme::Standard, |keys, nth| {
                if nth % 2 == 0 {
                    return Some(failure);
                }
                Some(if keys == ProbeKeys::Random { 401 } else { 200 })
            });
            assert_eq!(finding.class, ReceiverClass::ListAware, "{failure}");
        }
    }

    #[test]
    fn every_class_has_words_for_people() {
        for (accepted, refusal) in [(&[ProbeKeys::Current][..], 401), (&[], 401), (&[], 503)] {
            let (finding, _) = rehearse(Scheme::Standard, accepting(accepted, refusal));
            assert!(!finding.words().is_empty() && !finding.consequence(false).is_empty());
            // Only whoever refused the current secret can be one that holds the pending one.
            let may_hold = finding.consequence(true).contains("pending");
            assert_eq!(may_hold, finding.refused_current, "{finding:?}");
        }
    }
}
