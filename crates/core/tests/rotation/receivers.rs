//! G6: a receiver of any class that changes keys at any moment of the window loses nothing, when
//! the sender follows the plan, the fallback and the belief.
//!
//! Time is small and every moment is tried: one message is sent in every millisecond, and the
//! receiver changes its key at every possible one.

use hookturn_core::id::SecretId;
use hookturn_core::receiver::{
    Exchange, ReceiverClass, ReceiverView, belief_after, fallback_is_due,
};
use hookturn_core::rotation::{Command, Mode, signing_plan};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_verify::Scheme;

use crate::support::{Bench, at, promote, rotate, rotation_id, secret_id};

/// What the receiver's code does with the signatures of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verifier {
    AnyOfList,
    First,
    Last,
    /// Expects exactly one and refuses a list.
    ExactlyOne,
}

/// What the sender knows of it.
fn classes_known_for(verifier: Verifier) -> [ReceiverClass; 3] {
    let found = match verifier {
        Verifier::AnyOfList => ReceiverClass::ListAware,
        Verifier::First => ReceiverClass::FirstOnly,
        Verifier::Last => ReceiverClass::LastOnly,
        Verifier::ExactlyOne => ReceiverClass::Single,
    };
    [found, ReceiverClass::Unknown, ReceiverClass::Unreachable]
}

#[derive(Debug, Clone, Copy)]
struct Receiver {
    verifier: Verifier,
    refuses_with: u16,
    holds: SecretId,
}

impl Receiver {
    fn answer(&self, signatures: &[SecretId]) -> u16 {
        let accepted = match self.verifier {
            Verifier::AnyOfList => signatures.contains(&self.holds),
            Verifier::First => signatures.first() == Some(&self.holds),
            Verifier::Last => signatures.last() == Some(&self.holds),
            Verifier::ExactlyOne => signatures == [self.holds],
        };
        if accepted { 200 } else { self.refuses_with }
    }
}

/// The sender's side of one endpoint.
struct Sender {
    bench: Bench,
    scheme: Scheme,
    view: ReceiverView,
    falls_back: bool,
    refused_exchanges: usize,
}

impl Sender {
    /// One attempt of a delivery: true when the receiver accepted it.
    fn attempt(&mut self, receiver: &Receiver, now: Timestamp, first: bool) -> bool {
        let plan = signing_plan(&self.bench.keyring, &self.view, self.scheme, now)
            .expect("the keyring has an active secret");
        let status = receiver.answer(&plan.sign_with);
        let accepted = status == 200;
        self.refused_exchanges += usize::from(!accepted);
        let [alone] = plan.sign_with.as_slice() else {
            return accepted;
        };
        let exchange = Exchange {
            signed_with: *alone,
            sent_at: now,
            status: Some(status),
        };
        let due = self.falls_back && fallback_is_due(self.view.belief, exchange, first, false);
        self.view.belief = belief_after(self.view.belief, exchange);
        match plan.fallback {
            Some(other) if due => {
                let status = receiver.answer(&[other]);
                self.refused_exchanges += usize::from(status != 200);
                let exchange = Exchange {
                    signed_with: other,
                    sent_at: now,
                    status: Some(status),
                };
                self.view.belief = belief_after(self.view.belief, exchange);
                status == 200
            }
            Some(_) | None => accepted,
        }
    }

    /// A delivery with one retry, which comes at the next moment at the latest.
    fn deliver(&mut self, receiver: &Receiver, now: Timestamp) -> bool {
        self.attempt(receiver, now, true) || (self.falls_back && self.attempt(receiver, now, false))
    }
}

/// Who does what when, in milliseconds; one message is sent in each of `0..until`.
struct Story {
    commands: Vec<(Millis, Command)>,
    /// The receiver takes the secret of this number into use at that moment.
    changes: Vec<(Millis, u32)>,
    until: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    verifier: Verifier,
    class: ReceiverClass,
    refuses_with: u16,
    scheme: Scheme,
    falls_back: bool,
}

struct Outcome {
    lost: usize,
    refused_exchanges: usize,
}

fn play(story: &Story, setting: Setting) -> Outcome {
    let mut sender = Sender {
        bench: Bench::new(),
        scheme: setting.scheme,
        view: ReceiverView {
            class: setting.class,
            belief: None,
        },
        falls_back: setting.falls_back,
        refused_exchanges: 0,
    };
    let mut receiver = Receiver {
        verifier: setting.verifier,
        refuses_with: setting.refuses_with,
        holds: secret_id(1),
    };
    let mut lost = 0;
    for moment in 0..story.until {
        for (_, command) in story.commands.iter().filter(|(when, _)| *when == moment) {
            sender.bench.run(at(moment), command.clone());
        }
        for (_, number) in story.changes.iter().filter(|(when, _)| *when == moment) {
            receiver.holds = secret_id(*number);
        }
        lost += usize::from(!sender.deliver(&receiver, at(moment)));
    }
    Outcome {
        lost,
        refused_exchanges: sender.refused_exchanges,
    }
}

fn settings(falls_back: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let verifiers = [
        Verifier::AnyOfList,
        Verifier::First,
        Verifier::Last,
        Verifier::ExactlyOne,
    ];
    for verifier in verifiers {
        for class in classes_known_for(verifier) {
            for refuses_with in [400, 401, 403, 422, 500] {
                for scheme in Scheme::ALL {
                    settings.push(Setting {
                        verifier,
                        class,
                        refuses_with,
                        scheme,
                        falls_back,
                    });
                }
            }
        }
    }
    settings
}

const OPENED: Millis = 3;
const PROMOTED: Millis = 9;
const SPAN: Millis = 8;

/// The receiver switches in an overlap: at the opening at the earliest, and at the last moment in
/// which the old secret may no longer be used at the latest.
fn overlap_stories() -> Vec<Story> {
    let switch_at = OPENED..=OPENED + SPAN;
    let story = |when| Story {
        commands: vec![(OPENED, rotate(2, Mode::Overlap { overlap: SPAN }))],
        changes: vec![(when, 2)],
        until: OPENED + SPAN + 5,
    };
    switch_at.map(story).collect()
}

fn staged_stories() -> Vec<Story> {
    let switch_at = OPENED..=PROMOTED + SPAN;
    let story = |when| Story {
        commands: vec![
            (OPENED, rotate(2, Mode::Staged { overlap: SPAN })),
            (PROMOTED, promote(2)),
        ],
        changes: vec![(when, 2)],
        until: PROMOTED + SPAN + 5,
    };
    switch_at.map(story).collect()
}

/// The receiver switches, the rotation is undone, and the receiver switches back.
fn undo_stories() -> Vec<Story> {
    let mut stories = Vec::new();
    for there in OPENED..PROMOTED {
        for back in PROMOTED..=PROMOTED + SPAN {
            stories.push(Story {
                commands: vec![
                    (OPENED, rotate(2, Mode::Overlap { overlap: SPAN })),
                    (
                        PROMOTED,
                        Command::Undo {
                            rotation: rotation_id(2),
                        },
                    ),
                ],
                changes: vec![(there, 2), (back, 1)],
                until: PROMOTED + SPAN + 5,
            });
        }
    }
    stories
}

fn nothing_is_lost(stories: &[Story]) {
    for setting in settings(true) {
        for story in stories {
            let outcome = play(story, setting);
            assert_eq!(outcome.lost, 0, "{setting:?}, changes {:?}", story.changes);
        }
    }
}

#[test]
fn g6_overlap_loses_nothing_whenever_the_receiver_switches() {
    nothing_is_lost(&overlap_stories());
}

#[test]
fn g6_staged_loses_nothing_whenever_the_receiver_switches() {
    nothing_is_lost(&staged_stories());
}

#[test]
fn g6_an_undo_loses_nothing_whenever_the_receiver_switches_back() {
    nothing_is_lost(&undo_stories());
}

#[test]
fn g6_a_new_secret_that_leaks_in_the_overlap_loses_nothing() {
    let mut stories = overlap_stories();
    for story in &mut stories {
        story.commands.push((
            OPENED + 2,
            Command::Compromise {
                secret: secret_id(2),
            },
        ));
    }
    nothing_is_lost(&stories);
}

#[test]
fn in_an_overlap_a_receiver_costs_few_refused_exchanges() {
    for setting in settings(true) {
        for story in overlap_stories() {
            let refused = play(&story, setting).refused_exchanges;
            assert!(
                refused <= 2,
                "{refused} for {setting:?}, changes {:?}",
                story.changes
            );
        }
    }
}

/// The model can lose: without the fallback every setting but the list-aware one does.
#[test]
fn without_the_fallback_the_same_stories_lose_messages() {
    for setting in settings(false) {
        let carried =
            setting.class == ReceiverClass::ListAware && setting.scheme == Scheme::Standard;
        let stories = staged_stories();
        let lost: usize = stories.iter().map(|story| play(story, setting).lost).sum();
        assert_eq!(lost == 0, carried, "{lost} lost for {setting:?}");
    }
}

/// What is older than any exchange takes is not late: the clock was set back. The refusal takes the belief
/// away, so that the next 500 is followed by the fallback.
#[test]
fn a_clock_that_is_set_back_does_not_keep_a_belief() {
    let (one, hour) = (secret_id(1), 3_600_000);
    let exchange = |sent_at: Timestamp, status| Exchange {
        signed_with: one,
        sent_at,
        status: Some(status),
    };
    let believed = belief_after(None, exchange(at(hour), 200));
    assert_eq!(believed.map(|belief| belief.secret), Some(one));
    let late = at(hour).before(60_000);
    assert_eq!(belief_after(believed, exchange(late, 500)), believed);
    assert_eq!(belief_after(believed, exchange(at(0), 500)), None);
}
