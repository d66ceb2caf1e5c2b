//! G6: a receiver that switches at any moment of the window loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookturn::service::endpoints::{EndpointPatch, NewEndpoint};
use hookturn::service::rotation::ModeName;
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::endpoint::Preset;
use hookturn_core::proof::{Finding, Rehearsed};
use hookturn_core::receiver::{ReceiverClass, ReceiverView};
use hookturn_core::store::{ReceiverState, Store};
use hookturn_core::time::HOUR;
use hookturn_verify::{Secret, Verifier};

use crate::delivering::policy;
use crate::receiver::{Receiver, Seen, gated, status};
use crate::rig::{Rig, verifier};

/// How a receiver reads a header with several signatures, and what it answers to a bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ListAware,
    FirstOnly,
    LastOnly,
    Throws,
}

impl Kind {
    fn accepts(self, seen: &Seen, verifier: &Verifier) -> bool {
        let mut seen = seen.clone();
        for (name, value) in &mut seen.headers {
            if name == "webhook-signature" {
                let only = match self {
                    Self::ListAware | Self::Throws => continue,
                    Self::FirstOnly => value.split(' ').next(),
                    Self::LastOnly => value.split(' ').next_back(),
                };
                *value = only.unwrap().to_owned();
            }
        }
        seen.verify(verifier).is_ok()
    }

    fn refuses_with(self) -> u16 {
        if self == Self::Throws { 500 } else { 401 }
    }
}

/// Which secret a receiver holds, switched by the test.
fn holder(
    kind: Kind,
    keys: [Verifier; 2],
    held: Arc<AtomicUsize>,
) -> impl Fn(&Seen) -> crate::receiver::Reply {
    move |seen| {
        let key = &keys[held.load(Ordering::SeqCst)];
        status(if kind.accepts(seen, key) {
            200
        } else {
            kind.refuses_with()
        })
    }
}

struct Course {
    mode: ModeName,
    preset: Preset,
    kind: Kind,
    class: ReceiverClass,
    /// Before which message the receiver switches.
    switch_at: usize,
    /// Before which message a staged secret is activated.
    promote_at: usize,
    /// What a rehearsal had found of another receiver.
    mistaken_for: Option<ReceiverClass>,
}

const MESSAGES: usize = 12;

/// Runs traffic through a rotation. Returns how many exchanges were refused.
async fn run(course: &Course) -> usize {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            url: Some(receiver.url()),
            preset: course.preset,
            retry: Some(policy(&[0])),
            ..NewEndpoint::default()
        })
        .await;
    set_class(&rig, &made.endpoint, course.class).await;
    if let Some(class) = course.mistaken_for {
        rehearsed_as(&rig, &made.endpoint, class);
    }
    let key = |secret: &Secret| verifier(course.preset, &[("held", secret)]).url(receiver.url());
    let old = key(&made.once.as_ref().unwrap().value);
    let opened = rig
        .rotate(made.endpoint.keyring, course.mode, Some(HOUR))
        .await;
    let new = key(&opened.once.value);
    let held = Arc::new(AtomicUsize::new(0));
    receiver.answer(holder(course.kind, [old, new], Arc::clone(&held)));
    for n in 0..MESSAGES {
        if n == course.switch_at {
            held.store(1, Ordering::SeqCst);
        }
        if n == course.promote_at && course.mode == ModeName::Staged {
            let promoted =
                rig.service()
                    .promote_rotation(rig.caller(), opened.rotation.id, false, None, None);
            promoted.await.unwrap();
        }
        let message = rig.publish(&n.to_string()).await;
        let (delivery, attempts) = rig.until_settled(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        if course.kind != Kind::Throws && course.mistaken_for.is_none() {
            assert_eq!(attempts.len(), 1, "by the fallback of the same attempt");
        }
    }
    let refused = receiver.rest().len() - MESSAGES;
    rig.stop().await;
    refused
}

/// As a rehearsal would note it, before the first delivery.
async fn set_class(rig: &Rig, endpoint: &hookturn_core::endpoint::Endpoint, class: ReceiverClass) {
    let state = ReceiverState {
        view: ReceiverView {
            class,
            belief: None,
        },
        ..ReceiverState::default()
    };
    let noted = rig
        .store()
        .finish(Vec::new(), vec![(endpoint.workspace, endpoint.id, state)]);
    noted.await.unwrap();
}

/// As a rehearsal found it, of the receiver that was there then.
fn rehearsed_as(rig: &Rig, endpoint: &hookturn_core::endpoint::Endpoint, class: ReceiverClass) {
    let rehearsed = Rehearsed {
        finding: Finding {
            class,
            throws: false,
            refused_current: false,
            odd_status: None,
        },
        at: rig.now(),
        doubted_at: None,
    };
    rig.live()
        .find(endpoint.id, |known| known.after_rehearsal(rehearsed));
}

fn receivers() -> Vec<(Preset, Kind, ReceiverClass)> {
    let mut all = vec![
        (Preset::Standard, Kind::ListAware, ReceiverClass::ListAware),
        (Preset::Standard, Kind::ListAware, ReceiverClass::Unknown),
        (Preset::Standard, Kind::FirstOnly, ReceiverClass::FirstOnly),
        (Preset::Standard, Kind::LastOnly, ReceiverClass::LastOnly),
        (Preset::Standard, Kind::Throws, ReceiverClass::Unknown),
    ];
    for preset in [Preset::Hopae, Preset::Kore, Preset::Github] {
        all.push((preset, Kind::ListAware, ReceiverClass::Single));
        all.push((preset, Kind::Throws, ReceiverClass::Unknown));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_an_overlap_loses_nothing_whenever_the_receiver_switches() {
    for (preset, kind, class) in receivers() {
        for switch_at in [0, 5, MESSAGES - 1] {
            let course = Course {
                mode: ModeName::Overlap,
                preset,
                kind,
                class,
                switch_at,
                promote_at: 0,
                mistaken_for: None,
            };
            let refused = run(&course).await;
            let allowed = match (class, kind) {
                (ReceiverClass::ListAware, _) => 0,
                // One switch costs one refused exchange; a verifier that throws is only then asked
                // with the other key when nothing is believed any longer.
                (_, Kind::Throws) => 2,
                _ => 1,
            };
            assert!(
                refused <= allowed,
                "{preset} {kind:?} {class:?} at {switch_at}: {refused}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_a_staged_secret_loses_nothing_whenever_the_receiver_switches() {
    const PROMOTE_AT: usize = 6;
    for (preset, kind, class) in receivers() {
        for switch_at in [0, 3, 9] {
            let course = Course {
                mode: ModeName::Staged,
                preset,
                kind,
                class,
                switch_at,
                promote_at: PROMOTE_AT,
                mistaken_for: None,
            };
            let refused = run(&course).await;
            // Three messages tell that it switched before the promotion, one after it; one that throws says so
            // less clearly.
            let allowed = match (class, kind, switch_at < PROMOTE_AT) {
                (ReceiverClass::ListAware, ..) => 0,
                (_, Kind::Throws, _) | (_, _, true) => 3,
                (_, _, false) => 1,
            };
            assert!(
                refused <= allowed,
                "{preset} {kind:?} {class:?} at {switch_at}: {refused} > {allowed}"
            );
        }
    }
}

/// A rehearsal is of one moment: the verifier is replaced, or one machine of several kinds answered it.
#[tokio::test(flavor = "multi_thread")]
async fn g6_a_receiver_that_was_taken_for_one_that_reads_lists_loses_nothing() {
    for kind in [Kind::FirstOnly, Kind::LastOnly, Kind::Throws] {
        for mode in [ModeName::Overlap, ModeName::Staged] {
            for switch_at in [0, 5, MESSAGES - 1] {
                let course = Course {
                    mode,
                    preset: Preset::Standard,
                    kind,
                    class: ReceiverClass::Unknown,
                    switch_at,
                    promote_at: 6,
                    mistaken_for: Some(ReceiverClass::ListAware),
                };
                let refused = run(&course).await;
                assert!(refused <= 4, "{mode:?} {kind:?} at {switch_at}: {refused}");
            }
        }
    }
}

/// What was seen of the receiver at one URL says nothing of the one at the next.
#[tokio::test(flavor = "multi_thread")]
async fn g6_g7_another_url_is_another_receiver() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(crate::delivering::retrying(receiver.url(), &[0]))
        .await;
    let id = made.endpoint.id;
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    rig.until_nothing_is_due().await;
    rehearsed_as(&rig, &made.endpoint, ReceiverClass::ListAware);
    assert!(rig.live().receiver(id).accepted_at.is_some());
    assert!(rig.live().findings(id).rehearsed.is_some());
    rig.advance(1);
    let url = format!("{}/elsewhere", receiver.url());
    let patch = EndpointPatch {
        url: Some(url),
        ..EndpointPatch::default()
    };
    rig.patch(id, patch).await;
    let known = rig.live().receiver(id);
    assert_eq!(known.accepted_at, None, "never contacted");
    assert_eq!(known.view.belief, None);
    assert_eq!(rig.live().findings(id).rehearsed, None);
    // The next one is learned anew, and counts.
    let message = rig.publish("2").await;
    rig.until_settled(message).await;
    rig.until_nothing_is_due().await;
    assert!(rig.live().receiver(id).accepted_at.is_some());
    receiver.rest();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_the_belief_survives_a_restart_and_overlapping_attempts() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(crate::delivering::retrying(receiver.url(), &[0]))
        .await;
    let old = made.once.as_ref().unwrap().value.clone();
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Overlap, Some(HOUR))
        .await
        .once
        .value;
    let held = verifier(Preset::Standard, &[("held", &new)]);
    let both = verifier(Preset::Standard, &[("old", &old), ("new", &new)]);
    // The first four begin together under the old belief; one of them is answered 503 to the end
    // and must not bring that belief back.
    receiver.answer(move |seen| match seen.verify(&held) {
        Ok(_) => status(200),
        Err(_) if seen.number == 3 => gated(503),
        Err(_) => status(401),
    });
    rig.publish_many((0..4).map(|n| n.to_string())).await;
    let mut seen = receiver.take(3).await;
    receiver.open_gate();
    rig.until_nothing_is_due().await;
    seen.extend(receiver.rest());
    rig.restart().await;
    for n in 0..3 {
        let message = rig.publish(&n.to_string()).await;
        rig.until_settled(message).await;
    }
    let signers: Vec<_> = receiver
        .rest()
        .iter()
        .map(|seen| seen.signer(&both))
        .collect();
    assert_eq!(signers, ["new"; 3], "nothing is refused any more");
    rig.stop().await;
}
