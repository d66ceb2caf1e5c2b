//! What an attempt teaches about its receiver. Pure.

use hookturn_core::delivery::{Attempt, ExchangeResult, ExhaustedReason, Next};
use hookturn_core::endpoint::DisabledReason;
use hookturn_core::limits::{ACCEPTED_STALE, RETRY_AFTER_MAX};
use hookturn_core::receiver::{ReceiverView, belief_after};
use hookturn_core::store::{Hold, ReceiverState};
use hookturn_core::time::{Millis, Timestamp};

use super::super::limits::Sign;
use crate::courier::Attempted;

/// What an attempt says about the endpoint's health: an answer about the message is an answer.
pub(super) fn sign(attempt: &Attempt) -> Sign {
    match attempt.decisive().map(|exchange| &exchange.result) {
        Some(ExchangeResult::Answered(answer)) if answer.status < 500 && answer.status != 429 => {
            Sign::Answered {
                took: Millis::from(attempt.duration_millis),
            }
        }
        Some(ExchangeResult::Answered(_) | ExchangeResult::Failed(_)) | None => Sign::Unwell,
    }
}

/// How long a 429 or 503 that came now asks everyone to wait, cut to what is obeyed.
fn asked_to_wait(attempt: &Attempt, now: Timestamp) -> Option<Hold> {
    match &attempt.decisive()?.result {
        ExchangeResult::Answered(answer) if matches!(answer.status, 429 | 503) => {
            let wait = answer.retry_after_millis?.min(RETRY_AFTER_MAX);
            Some(Hold {
                since: attempt.started_at,
                until: now.after(wait),
                status: answer.status,
            })
        }
        ExchangeResult::Answered(_) | ExchangeResult::Failed(_) => None,
    }
}

/// Takes what an attempt taught into the receiver's state. Returns whether that is worth storing: a
/// belief that changed its key, the first failures, the first success after one, a longer wait. The belief
/// changes only if the attempt was `about_keys`, and not about what is in the message. An attempt that began before the
/// endpoint got its present URL is about another receiver.
pub(super) fn remember(
    state: &mut ReceiverState,
    made: &Attempted,
    about_keys: bool,
    retargeted_at: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    if Some(made.attempt.started_at) < retargeted_at {
        return false;
    }
    let key = |view: &ReceiverView| view.belief.map(|belief| belief.secret);
    let known = key(&state.view);
    // Applied to what is known by now: attempts of one endpoint overlap, and one that began with an
    // older belief and learnt nothing must not bring that back.
    for exchange in made.evidence.iter().filter(|_| about_keys) {
        state.view.belief = belief_after(state.view.belief, *exchange);
    }
    let mut changed = key(&state.view) != known;
    let hold = state.hold.map(|hold| hold.until);
    if let Some(asked) = asked_to_wait(&made.attempt, now)
        && hold < Some(asked.until)
    {
        state.hold = Some(asked);
        changed = true;
    }
    if made.attempt.accepted() {
        changed |= state.note_success();
        if state
            .accepted_at
            .is_none_or(|at| now.since(at) >= ACCEPTED_STALE)
        {
            state.accepted_at = Some(now);
            changed = true;
        }
    } else {
        changed |= state.note_failure(now);
    }
    changed
}

/// Whether the endpoint must be disabled: on 410 at once, or when nothing was accepted for too long,
/// this attempt included.
pub(super) fn must_disable(
    next: &Next,
    receiver: &ReceiverState,
    now: Timestamp,
    disable_after: Millis,
) -> Option<DisabledReason> {
    if matches!(next, Next::Exhausted(ExhaustedReason::Gone)) {
        return Some(DisabledReason::Gone);
    }
    receiver
        .failed_too_long(now, disable_after)
        .then_some(DisabledReason::Failing)
}

#[cfg(test)]
mod tests {
    use hookturn_core::id::SecretId;
    use hookturn_core::receiver::{Belief, Exchange};

    use super::*;

    #[test]
    fn what_a_message_is_refused_for_takes_no_belief_away() {
        let at = Timestamp::from_millis;
        let believed = Some(Belief {
            secret: SecretId::from_bytes([1; 16]),
            at: at(10),
        });
        let refused = |number| Exchange {
            signed_with: SecretId::from_bytes([number; 16]),
            sent_at: at(20),
            status: Some(422),
        };
        let made = Attempted {
            attempt: Attempt {
                number: 1,
                started_at: at(20),
                duration_millis: 2,
                exchanges: Vec::new(),
            },
            evidence: vec![refused(1), refused(2)],
            refused_both_at: None,
            ended_at: at(22),
        };
        for (about_keys, wanted) in [(false, believed), (true, None)] {
            let mut state = ReceiverState::default();
            state.view.belief = believed;
            remember(&mut state, &made, about_keys, None, at(22));
            assert_eq!(state.view.belief, wanted);
        }
    }
}
