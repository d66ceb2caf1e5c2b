//! The part of the live view that is about what probes and deliveries have shown of receivers.
//!
//! It counts at once and is stored soon. Where several nodes share the store, each part of it is found by one of them
//! at a time: the evidence by the node that sends to the endpoint, a rehearsal or a test by the one that was asked
//! for it.

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::proof::{Findings, is_about_content, learn_attempt};
use hookturn_core::receiver::Exchange;
use hookturn_core::time::Timestamp;

use super::{Live, View};

impl Live {
    /// What probes and deliveries have shown of a receiver.
    pub fn findings(&self, id: EndpointId) -> Findings {
        self.read().findings_of(id)
    }

    /// Takes what an answer shows into an endpoint's findings. They are stored soon
    /// ([`Live::unsaved_findings`]), and count at once.
    pub fn find(&self, endpoint: EndpointId, find: impl FnOnce(Findings) -> Findings) {
        self.write(|view| {
            let known = view.findings_of(endpoint);
            let found = find(known);
            if found != known {
                view.unsaved.entry(endpoint).or_insert(known);
                view.put_findings(endpoint, &found);
            }
        });
    }

    /// Takes what an attempt of a delivery shows into the findings: that one which carried two signatures
    /// was refused, and what its exchanges that were signed with one key alone, in order, say about the
    /// secrets of an open rotation. What was sent to a former URL of the endpoint says nothing. Returns
    /// whether they say anything about keys: not when the message was refused for what is in it.
    pub fn learn(
        &self,
        endpoint: EndpointId,
        exchanges: &[Exchange],
        refused_both_at: Option<Timestamp>,
    ) -> bool {
        let retargeted_at = self.read().retargeted_at(endpoint);
        if let Some(at) = refused_both_at.filter(|at| Some(*at) >= retargeted_at) {
            self.find(endpoint, |known| known.doubted(at));
        }
        let Some(first) = exchanges.first() else {
            return true;
        };
        if Some(first.sent_at) < retargeted_at {
            return true;
        }
        let rotation = {
            let view = self.read();
            let keyring = view
                .endpoints
                .get(&endpoint)
                .and_then(|endpoint| view.keyrings.get(&endpoint.keyring));
            // Steady is the rule, and costs no more than this look.
            keyring.and_then(|keyring| keyring.open_rotation(first.sent_at).cloned())
        };
        let mut about_content = false;
        if let Some(rotation) = rotation {
            self.find(endpoint, |known| {
                about_content = is_about_content(known.evidence.as_ref(), &rotation, exchanges);
                Findings {
                    evidence: learn_attempt(known.evidence, &rotation, exchanges),
                    ..known
                }
            });
        }
        !about_content
    }

    /// The findings that changed since the last call, by workspace, for whoever stores them.
    pub fn unsaved_findings(&self) -> Vec<(WorkspaceId, EndpointId, Findings)> {
        self.write(|view| {
            let unsaved = std::mem::take(&mut view.unsaved);
            let written = unsaved.into_keys().filter_map(|endpoint| {
                let workspace = view.endpoints.get(&endpoint)?.workspace;
                let findings = *view.findings.get(&endpoint)?;
                Some((workspace, endpoint, findings))
            });
            let mut written: Vec<_> = written.collect();
            written.sort_unstable_by_key(|(workspace, endpoint, _)| (*workspace, *endpoint));
            written
        })
    }

    /// The findings of these could not be stored: they are unsaved again.
    pub fn not_saved(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        self.write(|view| {
            for endpoint in endpoints {
                // What is stored is not known any more: whatever is, is not what is known here.
                view.unsaved.entry(endpoint).or_default();
            }
        });
    }

    /// Takes in what another node found about a receiver. What was found here and is not stored yet stays, part
    /// by part: each part is found by one node at a time. Only engines call this.
    pub fn take_findings(&self, endpoint: EndpointId, stored: Findings) {
        self.write(|view| {
            let known = view.findings.get(&endpoint).copied().unwrap_or_default();
            let merged = match view.unsaved.get_mut(&endpoint) {
                Some(base) => {
                    let merged = merged(base, &known, &stored);
                    *base = stored;
                    merged
                }
                None => stored,
            };
            view.put_findings(endpoint, &merged);
        });
    }
}

/// What is known of a receiver when this node and another found something since `base`: of each part the one
/// that changed, and of what both changed the later.
fn merged(base: &Findings, ours: &Findings, theirs: &Findings) -> Findings {
    fn part<T: PartialEq + Copy>(
        [base, ours, theirs]: [&T; 3],
        later: impl Fn(&T, &T) -> bool,
    ) -> T {
        if ours == base || (theirs != base && later(theirs, ours)) {
            *theirs
        } else {
            *ours
        }
    }
    Findings {
        rehearsed: part(
            [&base.rehearsed, &ours.rehearsed, &theirs.rehearsed],
            |theirs, ours| theirs.map(|found| found.at) > ours.map(|found| found.at),
        ),
        // The endpoint's owner finds it; a new owner begins with what the last one stored.
        evidence: part(
            [&base.evidence, &ours.evidence, &theirs.evidence],
            |theirs, ours| theirs.map(|found| found.rotation) > ours.map(|found| found.rotation),
        ),
        tested_at: part(
            [&base.tested_at, &ours.tested_at, &theirs.tested_at],
            |theirs, ours| theirs > ours,
        ),
    }
}

impl View {
    /// Since when the endpoint has its URL, if it had another one before.
    pub(super) fn retargeted_at(&self, endpoint: EndpointId) -> Option<Timestamp> {
        self.endpoints.get(&endpoint)?.retargeted_at
    }

    /// What is known of the receiver at the URL that the endpoint has now.
    pub(super) fn findings_of(&self, endpoint: EndpointId) -> Findings {
        let known = self.findings.get(&endpoint).copied().unwrap_or_default();
        known.since(self.retargeted_at(endpoint))
    }

    fn put_findings(&mut self, endpoint: EndpointId, found: &Findings) {
        self.findings.insert(endpoint, *found);
        let keyring = self.endpoints.get(&endpoint).map(|known| known.keyring);
        self.stirred
            .extend(keyring.filter(|keyring| self.open.contains(keyring)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(at: i64) -> Findings {
        Findings {
            tested_at: Some(Timestamp::from_millis(at)),
            ..Findings::default()
        }
    }

    #[test]
    fn of_what_two_nodes_found_each_keeps_what_only_it_found() {
        let base = Findings::default();
        let merged = |ours, theirs| merged(&base, &ours, &theirs);
        assert_eq!(merged(tested(5), base), tested(5), "not stored yet");
        assert_eq!(merged(base, tested(7)), tested(7));
        assert_eq!(merged(tested(5), tested(7)), tested(7), "the later");
        assert_eq!(merged(tested(9), tested(7)), tested(9));
    }

    #[test]
    fn what_another_node_stored_is_known_and_what_was_found_here_is_stored_still() {
        let (live, endpoint) = (Live::default(), EndpointId::from_bytes([7; 16]));
        live.take_findings(endpoint, tested(3));
        assert_eq!(live.findings(endpoint), tested(3));
        live.find(endpoint, |_| tested(8));
        live.take_findings(endpoint, tested(4));
        assert_eq!(live.findings(endpoint), tested(8));
        live.take_findings(endpoint, tested(9));
        assert_eq!(live.findings(endpoint), tested(9));
    }
}
