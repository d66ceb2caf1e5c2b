//! Evidence: what an endpoint's receiver answered to the pending secret alone, and what follows.

use serde::{Deserialize, Serialize};

use super::control::{Control, Verdict, required_controls};
use super::latest::Latest;
use super::policy::{ProofPolicy, required_passes, ruled_out_percent};
use super::rehearsal::{ASKED_AT_MOST, ProbeAnswer};
use super::released::Released;
use super::standing::Standing;
use crate::id::{MessageId, RotationId};
use crate::rotation::Rotation;
use crate::time::{HOUR, Timestamp};

/// What is known about one endpoint's receiver and the secret that an open rotation brings.
///
/// Counts of one rotation: a new rotation starts with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The rotation it is about.
    pub rotation: RotationId,
    /// Passes in a row: requests signed with the new secret alone that were accepted, since the last
    /// one that was refused.
    pub run: u32,
    /// When the run's first pass was sent.
    pub run_since: Option<Timestamp>,
    /// When the latest pass was sent.
    pub passed_at: Option<Timestamp>,
    /// When the first pass of the rotation was sent, whatever was refused since.
    #[serde(default)]
    pub first_passed_at: Option<Timestamp>,
    /// When the pass that made the run long enough was sent: the hold-down counts from here.
    pub enough_at: Option<Timestamp>,
    /// Runs that a refusal ended.
    pub broken: u32,
    /// All passes of probes.
    pub probe_passes: u32,
    /// All passes of real deliveries: canaries, and fallbacks to the new secret.
    pub delivery_passes: u32,
    /// Requests signed with the new secret alone that were refused.
    pub refusals: u32,
    /// When the latest of those was sent.
    pub refused_at: Option<Timestamp>,
    /// Whether that one was refused with 500, which a broken receiver answers too.
    #[serde(default)]
    pub refused_by_500: bool,
    /// When the latest probe signed with the new secret alone was sent that was refused. A delivery may be
    /// refused for what is in it; a probe that was accepted before is refused for its signature.
    #[serde(default)]
    pub probe_refused_at: Option<Timestamp>,
    /// When the latest request was sent that was accepted, whichever secret signed it.
    pub accepted_at: Option<Timestamp>,
    /// Real deliveries of the time before the promotion that were signed with the new secret first.
    #[serde(default)]
    pub canaries: u32,
    /// Real deliveries that were refused and sent once more at once, signed with the other secret; not those
    /// that were refused for what is in them ([`super::is_about_content`]).
    #[serde(default)]
    pub fallbacks: u32,
    /// When the latest of those was sent once more.
    pub fallback_at: Option<Timestamp>,
    /// The latest control that was answered.
    pub control: Option<Control>,
    /// The latest answers to the new secret alone.
    #[serde(default = "Latest::none_accepted")]
    pub of_new: Latest,
    /// The latest answers to the current secret alone, of deliveries before the promotion.
    #[serde(default = "Latest::all_accepted")]
    pub of_current: Latest,
    /// Deliveries of the overlap that were signed with the old secret alone and accepted.
    pub old_needed: u32,
    /// When the latest of those was sent.
    pub old_needed_at: Option<Timestamp>,
    /// Probes in a row that were refused or not answered: each doubles the time to the next.
    pub unanswered: u32,
    /// Probes in a row whose answers said nothing.
    #[serde(default)]
    pub silent: u32,
    /// When the latest probe was sent.
    pub probed_at: Option<Timestamp>,
    /// Probes in the hour that began at `hour_since`.
    pub probes_in_hour: u32,
    /// Beginning of that hour.
    pub hour_since: Option<Timestamp>,
    /// Answers to the old secret alone: whether the receiver has dropped it.
    #[serde(default)]
    pub released: Released,
}

/// A request whose answer is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// A probe signed with the new secret alone.
    Probe,
    /// A probe signed with a random key alone.
    Control,
    /// A real delivery signed with the new secret alone.
    Delivery,
    /// A real delivery signed with the current secret alone, before the promotion.
    Current,
    /// A real delivery signed with the old secret alone, in the overlap.
    Old,
    /// A probe signed with the old secret alone, which asks whether it is refused.
    Released,
}

/// What to ask the receiver next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does it accept the new secret?
    NewSecret,
    /// Does it refuse a random key?
    Control,
}

impl Evidence {
    /// Nothing is known yet.
    pub const fn new(rotation: RotationId) -> Self {
        Self {
            rotation,
            run: 0,
            run_since: None,
            passed_at: None,
            first_passed_at: None,
            enough_at: None,
            broken: 0,
            probe_passes: 0,
            delivery_passes: 0,
            refusals: 0,
            refused_at: None,
            refused_by_500: false,
            probe_refused_at: None,
            accepted_at: None,
            canaries: 0,
            fallbacks: 0,
            fallback_at: None,
            control: None,
            of_new: Latest::none_accepted(),
            of_current: Latest::all_accepted(),
            old_needed: 0,
            old_needed_at: None,
            unanswered: 0,
            silent: 0,
            probed_at: None,
            probes_in_hour: 0,
            hour_since: None,
            released: Released {
                refusals: 0,
                refused_at: None,
                accepted_at: None,
                silent: 0,
                asked_at: None,
            },
        }
    }

    /// What is known about this rotation: evidence of another one says nothing about it.
    pub fn about(known: Option<Self>, rotation: RotationId) -> Self {
        known
            .filter(|evidence| evidence.rotation == rotation)
            .unwrap_or(Self::new(rotation))
    }

    /// When the latest request was sent that any of this is about.
    pub fn latest_at(&self) -> Option<Timestamp> {
        [
            self.passed_at,
            self.refused_at,
            self.accepted_at,
            self.fallback_at,
            self.old_needed_at,
            self.probed_at,
            self.control.map(|control| control.at),
        ]
        .into_iter()
        .max()
        .flatten()
    }

    /// Whether the last answer to the new secret alone was that it is accepted.
    pub fn accepts_new(&self) -> bool {
        self.passed_at.is_some() && self.passed_at > self.refused_at
    }

    /// Whether a request signed with the new secret alone was the last thing that told which one the
    /// receiver holds.
    pub fn holds_new(&self) -> bool {
        let refused = self.refused_at.max(self.old_needed_at);
        self.passed_at.is_some_and(|passed| Some(passed) > refused)
    }

    /// Since when the receiver is known to lack the new secret, and so to need the old one: the latest
    /// probe signed with the new one was refused, as late as the latest request with it that was accepted
    /// or later, and it does verify.
    pub fn lacks_new_since(&self) -> Option<Timestamp> {
        let verifies = self.control.is_none() || self.verified_at().is_some();
        self.probe_refused_at
            .filter(|at| verifies && Some(*at) >= self.passed_at)
    }

    /// What is known after an answer to a request that was sent at `sent_at`.
    ///
    /// 1. The new secret accepted: one more pass. A pass that comes when the last one fell out of the
    ///    policy's window begins a new run, for a proof is of one time.
    /// 2. The new secret refused: the run is over. It counts as broken when there was one, which makes
    ///    the next one more expensive ([`required_passes`]).
    /// 3. A 500 to the new secret is a refusal where controls are answered 500 and something was
    ///    accepted since, or a run is on; elsewhere it is silence, for a receiver that answers 500 to
    ///    everything is broken and says nothing about secrets.
    /// 4. A control refused, with 500 too: the receiver verifies. A control accepted: it does not, and
    ///    what was collected before proves nothing; nor does what is accepted until one is refused again,
    ///    whenever its answer arrives.
    /// 5. A delivery of the overlap that the old secret alone got accepted: it is still needed, unless
    ///    the receiver is known to accept the new one as well.
    /// 6. A delivery before the promotion that the current secret alone got refused: the receiver may
    ///    have switched; one that it got accepted: it has not, or not everywhere. The latest of both, and of
    ///    those to the new secret, are counted ([`Evidence::switched_early`]).
    /// 7. Silence changes nothing but the time to the next probe.
    /// 8. Answers may arrive out of order; each time that is kept only grows.
    /// 9. An answer to the old secret alone in a probe says whether it is dropped, and nothing about
    ///    whether it is needed.
    #[must_use]
    pub fn after(
        self,
        policy: &ProofPolicy,
        observed: Observed,
        answer: ProbeAnswer,
        sent_at: Timestamp,
    ) -> Self {
        self.taking(policy, observed, (answer, None), sent_at)
    }

    /// [`Evidence::after`], for an answer whose status is known: with what a control was refused is what
    /// [`super::is_about_content`] needs.
    #[must_use]
    pub fn after_status(
        self,
        policy: &ProofPolicy,
        observed: Observed,
        status: Option<u16>,
        sent_at: Timestamp,
    ) -> Self {
        let answer = ProbeAnswer::of(status);
        self.taking(policy, observed, (answer, status), sent_at)
    }

    fn taking(
        mut self,
        policy: &ProofPolicy,
        observed: Observed,
        (answer, status): (ProbeAnswer, Option<u16>),
        sent_at: Timestamp,
    ) -> Self {
        if answer == ProbeAnswer::Accepted && observed != Observed::Control {
            self.accepted_at = self.accepted_at.max(Some(sent_at));
        }
        match observed {
            Observed::Probe => {
                self.unanswered = match answer {
                    ProbeAnswer::Accepted => 0,
                    ProbeAnswer::Refused | ProbeAnswer::Threw | ProbeAnswer::Silent => {
                        self.unanswered.saturating_add(1)
                    }
                };
                self.note_probe(sent_at);
                self.note_new(policy, observed, answer, sent_at);
            }
            Observed::Delivery => self.note_new(policy, observed, answer, sent_at),
            Observed::Control => {
                self.note_probe(sent_at);
                self.note_control(answer, status, sent_at);
            }
            Observed::Current => match answer {
                ProbeAnswer::Accepted => self.of_current = self.of_current.then(true),
                // A 500 may have another cause; it counts only until others are accepted.
                ProbeAnswer::Refused | ProbeAnswer::Threw => {
                    self.of_current = self.of_current.then(false);
                }
                ProbeAnswer::Silent => {}
            },
            Observed::Old => {
                if answer == ProbeAnswer::Accepted && !self.accepts_new() {
                    self.old_needed = self.old_needed.saturating_add(1);
                    self.old_needed_at = self.old_needed_at.max(Some(sent_at));
                }
            }
            Observed::Released => {
                self.released = self.released.after(answer, self.throws(), sent_at);
            }
        }
        self
    }

    fn note_new(
        &mut self,
        policy: &ProofPolicy,
        observed: Observed,
        answer: ProbeAnswer,
        sent_at: Timestamp,
    ) {
        match answer {
            ProbeAnswer::Accepted => self.pass(policy, observed, sent_at),
            ProbeAnswer::Refused => self.refuse(observed, sent_at),
            // In a run it ends the run, which is the careful side: it costs time, and no proof.
            ProbeAnswer::Threw if self.throws() && (self.run > 0 || self.answers_others()) => {
                self.refuse(observed, sent_at);
                self.refused_by_500 = true;
            }
            ProbeAnswer::Threw | ProbeAnswer::Silent => {
                // Silence of a delivery has its retries; it is the probes that are counted.
                if observed == Observed::Probe {
                    self.silent = self.silent.saturating_add(1);
                }
            }
        }
    }

    fn pass(&mut self, policy: &ProofPolicy, observed: Observed, sent_at: Timestamp) {
        let stale = self
            .passed_at
            .is_some_and(|last| sent_at >= last.after(policy.window_millis));
        if stale {
            self.end_run();
        }
        self.silent = 0;
        self.of_new = self.of_new.then(true);
        self.passed_at = self.passed_at.max(Some(sent_at));
        self.first_passed_at = self.first_passed_at.or(Some(sent_at));
        let refused_again_at = self.control.and_then(|control| control.refused_again_at);
        if refused_again_at <= Some(sent_at) {
            self.run = self.run.saturating_add(1);
            self.run_since = self.run_since.or(Some(sent_at));
            if self.enough_at.is_none() && self.run >= required_passes(policy, self.broken) {
                self.enough_at = Some(sent_at);
            }
        }
        let total = if observed == Observed::Probe {
            &mut self.probe_passes
        } else {
            &mut self.delivery_passes
        };
        *total = total.saturating_add(1);
    }

    fn refuse(&mut self, observed: Observed, sent_at: Timestamp) {
        if observed == Observed::Probe {
            self.probe_refused_at = self.probe_refused_at.max(Some(sent_at));
        }
        self.silent = 0;
        self.of_new = self.of_new.then(false);
        self.refused_by_500 = false;
        self.refusals = self.refusals.saturating_add(1);
        self.refused_at = self.refused_at.max(Some(sent_at));
        if self.run > 0 {
            self.broken = self.broken.saturating_add(1);
        }
        self.end_run();
    }

    fn end_run(&mut self) {
        self.run = 0;
        self.run_since = None;
        self.enough_at = None;
    }

    fn note_control(&mut self, answer: ProbeAnswer, status: Option<u16>, sent_at: Timestamp) {
        let verdict = match answer {
            ProbeAnswer::Accepted => Verdict::AcceptsAnything,
            ProbeAnswer::Refused => Verdict::Verifies,
            ProbeAnswer::Threw => Verdict::Throws,
            ProbeAnswer::Silent => {
                self.silent = self.silent.saturating_add(1);
                self.unanswered = self.unanswered.saturating_add(1);
                return;
            }
        };
        // A 500 may come from a broken receiver: it does not end a silence.
        if verdict != Verdict::Throws && self.silent > 0 {
            self.silent = 0;
            self.unanswered = 0;
        }
        if self.control.is_some_and(|known| sent_at < known.at) {
            return;
        }
        let was_fooled = self.control.is_some_and(|known| known.is_fooled());
        let control = Control::after(self.control, self.passed_at, verdict, status, sent_at);
        self.control = Some(control);
        if control.is_fooled() || was_fooled {
            self.end_run();
        }
        // The next one is asked later and later, until one is refused.
        if control.is_fooled() {
            self.unanswered = self.unanswered.saturating_add(1);
        } else if was_fooled {
            self.unanswered = 0;
        }
    }

    /// Whether it answers 500 to signatures that do not match.
    pub fn throws(&self) -> bool {
        self.control
            .is_some_and(|control| control.verdict == Verdict::Throws)
    }

    /// Whether something was accepted since the latest control: then the receiver is not broken, and
    /// its 500 is about the signature.
    fn answers_others(&self) -> bool {
        self.control
            .is_some_and(|control| self.accepted_at >= Some(control.at))
    }

    /// When the latest control was sent, if it was refused.
    fn verified_at(&self) -> Option<Timestamp> {
        self.control.and_then(|control| match control.verdict {
            Verdict::Verifies | Verdict::Throws => Some(control.at),
            Verdict::AcceptsAnything => None,
        })
    }

    /// Whether enough controls were refused in a row, the latest after the pass that was enough.
    fn is_controlled(&self, policy: &ProofPolicy) -> bool {
        let (controls, needed) = self.controls(policy);
        controls >= needed && self.verified_at() >= self.enough_at
    }

    /// Controls in a row that were refused, and how many a proof needs: more once one was accepted
    /// ([`required_controls`]).
    pub fn controls(&self, policy: &ProofPolicy) -> (u32, u32) {
        match self.control {
            Some(control) => (control.refusals, control.needed(policy)),
            None => (0, required_controls(policy, 0)),
        }
    }

    fn note_probe(&mut self, sent_at: Timestamp) {
        self.probed_at = self.probed_at.max(Some(sent_at));
        let within = |since: &Timestamp| sent_at < since.after(HOUR);
        if self.hour_since.as_ref().is_some_and(within) {
            self.probes_in_hour = self.probes_in_hour.saturating_add(1);
        } else {
            self.hour_since = Some(sent_at);
            self.probes_in_hour = 1;
        }
    }

    /// Where the endpoint stands at `now`. The first line that holds:
    ///
    /// 1. The latest control was accepted: it does not verify, as far as is known.
    /// 2. Never asked: `not_asked`. The last probe said nothing and there is no run, or the last
    ///    [`ASKED_AT_MOST`] said nothing: `unreachable`, whatever it answered before.
    /// 3. No run: it refused the new secret last.
    /// 4. Too few passes, or the last one is older than the window: collecting.
    /// 5. No control was refused since the pass that was enough, or not within the policy's time of the
    ///    last pass, or not as many in a row as [`super::required_controls`] says: awaiting one. So the passes
    ///    stand between and among refused controls.
    /// 6. The hold-down is not over. It counts from the pass that was enough, or from the last
    ///    delivery that needed the old secret, whichever is later.
    /// 7. Proved.
    pub fn standing(&self, policy: &ProofPolicy, now: Timestamp) -> Standing {
        if let Some(control) = self.control.filter(Control::is_fooled) {
            return Standing::DoesNotVerify { at: control.at };
        }
        let needed = required_passes(policy, self.broken);
        if self.silent
            >= if self.run == 0 {
                1
            } else {
                u32::from(ASKED_AT_MOST)
            }
        {
            return Standing::Unreachable;
        }
        let passed_at = self.passed_at.filter(|_| self.run > 0);
        let Some(passed_at) = passed_at else {
            return match (self.refused_at, self.probed_at) {
                (Some(refused_at), _) => Standing::NotReady { refused_at },
                (None, Some(_)) => Standing::Collecting { passes: 0, needed },
                (None, None) => Standing::NotAsked,
            };
        };
        let passes = self.run;
        let stale = now >= passed_at.after(policy.window_millis);
        let Some(enough_at) = self.enough_at.filter(|_| !stale) else {
            return Standing::Collecting { passes, needed };
        };
        let near = self
            .verified_at()
            .is_some_and(|at| passed_at < at.after(policy.control_every_millis));
        if !near || !self.is_controlled(policy) {
            let (controls, controls_needed) = self.controls(policy);
            return Standing::AwaitingControl {
                passes,
                controls,
                controls_needed,
            };
        }
        let quiet_since = enough_at.max(self.old_needed_at.unwrap_or(enough_at));
        let until = quiet_since.after(policy.hold_down_millis);
        if now < until {
            return Standing::HoldingDown { passes, until };
        }
        Standing::Proved {
            passes,
            rules_out_percent: ruled_out_percent(policy, passes),
        }
    }

    /// Where the endpoint stands in its rotation at `now`: [`Evidence::standing`], except that once the
    /// new secret is active what was proved stays proved while the next control is due, when its passes are
    /// older than the window, and while a hold-down would begin again: nothing is promoted by it any more. What is asked then is asked to see whether the receiver still verifies; nothing
    /// waits for it any more.
    pub fn standing_in(
        &self,
        rotation: &Rotation,
        policy: &ProofPolicy,
        now: Timestamp,
    ) -> Standing {
        let standing = self.standing(policy, now);
        let controlled = self.is_controlled(policy);
        let was_proved = |passes: u32| passes > 0 && controlled && rotation.promotion.is_some();
        let proved = |passes| Standing::Proved {
            passes,
            rules_out_percent: ruled_out_percent(policy, passes),
        };
        match standing {
            Standing::AwaitingControl { passes, .. } | Standing::HoldingDown { passes, .. }
                if was_proved(passes) =>
            {
                proved(passes)
            }
            Standing::Collecting { passes, needed } if passes >= needed && was_proved(passes) => {
                proved(passes)
            }
            other => other,
        }
    }

    /// What to ask next and when, at the earliest.
    ///
    /// 1. When the latest control was accepted, another one and nothing else: what is accepted meanwhile proves
    ///    nothing. Each that is accepted doubles the time to the next, as in 3.
    /// 2. A control first, again when there were enough passes, whenever the last refused one is as
    ///    old as the policy allows, and after a refusal with 500: what answers 500 to both, and accepts
    ///    nothing in between, is broken. Age alone asks for none right after another: where probes are
    ///    further apart than controls may be, the two take turns. As many as a proof needs are spread over the
    ///    passes, with an acceptance between two of them, and as a coin falls: a receiver of which every other request
    ///    fails would otherwise fail every control and no pass.
    /// 3. Otherwise the new secret, every `probeEveryMillis`; each probe in a row that was refused or
    ///    not answered doubles that, up to the longest time.
    /// 4. Never more than `probesPerHour` in the hour that began with the first of them.
    pub fn next_probe(&self, policy: &ProofPolicy, now: Timestamp) -> (Timestamp, Question) {
        let Some(probed_at) = self.probed_at else {
            return (now, Question::Control);
        };
        let doubled = policy
            .probe_every_millis
            .saturating_mul(1 << self.unanswered.min(30));
        let due = probed_at.after(doubled.min(policy.probe_back_off_max_millis));
        let due = match self.hour_since {
            Some(since) if self.probes_in_hour >= policy.probes_per_hour => {
                due.max(since.after(HOUR))
            }
            Some(_) | None => due,
        };
        let at = due.max(now);
        let control_is_fresh = self.verified_at().is_some_and(|refused| {
            (at < refused.after(policy.control_every_millis) || refused == probed_at)
                && Some(refused) >= self.enough_at
                && !(self.refused_by_500 && Some(refused) < self.refused_at)
        });
        let needed = required_passes(policy, self.broken);
        let among_passes = is_heads(probed_at)
            && self
                .control
                .is_some_and(|control| control.is_due(policy, self.run, needed, self.passed_at));
        let question = if control_is_fresh && !among_passes {
            Question::NewSecret
        } else {
            Question::Control
        };
        (at, question)
    }

    /// Whether, before the promotion, the receiver is better asked with the new secret first: of the latest
    /// answers more were acceptances of the new secret than of the current one. A receiver that accepts both
    /// accepts as many of each, and has not switched. Of a half-deployed fleet it is true while more
    /// machines hold the new one.
    pub fn switched_early(&self) -> bool {
        self.of_new.accepted() > self.of_current.accepted()
    }

    /// The share of deliveries, in percent, that is signed with the new secret first.
    ///
    /// 1. None until a control was refused and a probe passed: a receiver that lacks the new secret
    ///    does not pay for finding that out.
    /// 2. Then the first share, and the next after every `canaryPasses` further passes of the run.
    /// 3. A refusal takes it back to none, with the run.
    /// 4. All of them when the receiver [switched early](Self::switched_early): the current secret first
    ///    would cost it a refused request each time.
    pub fn canary_percent(&self, policy: &ProofPolicy) -> u8 {
        if self.switched_early() {
            return 100;
        }
        if self.run == 0 || self.verified_at().is_none() {
            return 0;
        }
        let step = (self.run - 1) / policy.canary_passes.max(1);
        let last = policy.canary_percent.len() - 1;
        let step = usize::try_from(step).map_or(last, |step| step.min(last));
        policy.canary_percent[step]
    }

    /// Whether the old secret has not been needed for the policy's quiet time, counted from `since`
    /// (the promotion) at the earliest.
    pub fn is_quiet(&self, policy: &ProofPolicy, since: Timestamp, now: Timestamp) -> bool {
        self.quiet_at(policy, since).is_some_and(|at| now >= at)
    }

    /// From when on the old secret is quiet, unless it is needed once more; `None` while that is not known.
    ///
    /// 1. Never while the receiver is known to lack the new secret ([`Evidence::lacks_new_since`]).
    /// 2. The quiet time begins at `since` (the promotion), when the new secret alone was first accepted, or with
    ///    the last moment that the old one was needed, whichever is latest. Until the new one was accepted nobody
    ///    knows whether it is held: a message signed with both may be accepted for the old one. Needed is what a
    ///    delivery got accepted by, and what a receiver that refuses a probe with the new one must still hold.
    /// 3. It is over when the new secret alone is accepted once more after its length: a receiver that was silent
    ///    meanwhile did not do without the old one.
    /// 4. What accepted a random key last needs no secret; that it did is asked again as in 3.
    pub fn quiet_at(&self, policy: &ProofPolicy, since: Timestamp) -> Option<Timestamp> {
        if self.lacks_new_since().is_some() {
            return None;
        }
        let (first, latest) = match self.control.filter(Control::is_fooled) {
            Some(control) => (since, control.at),
            None => (self.first_passed_at?, self.passed_at?),
        };
        let needed = self.old_needed_at.max(self.probe_refused_at);
        let begins = needed.map_or(first, |at| at.max(first)).max(since);
        let over = begins.after(policy.quiet_millis);
        (latest >= over).then_some(over)
    }

    /// Whether something needed the old secret after `since`, the promotion, or needs it now; also where it was
    /// asked, and never accepted the new one.
    pub fn needed_old_since(&self, since: Timestamp) -> bool {
        let fooled = self.control.as_ref().is_some_and(Control::is_fooled);
        let never_accepted = self.probed_at.is_some() && self.passed_at.is_none() && !fooled;
        never_accepted
            || self.lacks_new_since().is_some()
            || self.old_needed_at.max(self.probe_refused_at) > Some(since)
    }
}

/// A coin that is tossed once for each moment, and falls alike for everybody who looks.
fn is_heads(at: Timestamp) -> bool {
    // The finalizer of SplitMix64: moments at even distances fall as others do.
    let mut bits = at.as_millis().cast_unsigned();
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) & 1 == 1
}

/// Whether a message is among the canaries at this share. The same message always is or is not, at
/// every attempt.
pub fn is_canary(message: MessageId, percent: u8) -> bool {
    // The last bytes of an id are random; FNV-1a spreads whatever they are.
    let hash = message
        .to_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    (hash >> 32) % 100 < u64::from(percent)
}
