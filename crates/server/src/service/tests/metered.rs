//! Evidence for metrics: a bounded number of endpoints, those with the nearest deadline.

use hookturn_core::id::RotationId;
use hookturn_core::time::{DAY, HOUR};

use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::Bench;

fn rotate(mode: ModeName, overlap: Option<u64>) -> NewRotation {
    NewRotation {
        mode,
        overlap,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    }
}

/// The rotations that are told of, and how many endpoints are left out, where there is room for so many.
fn told(bench: &Bench, most: usize) -> (Vec<RotationId>, usize) {
    let figures = bench.service.rotation_evidence(most);
    let told = figures.known.iter().map(|known| known.evidence.rotation);
    (told.collect(), figures.left_out)
}

#[tokio::test]
async fn the_nearest_deadlines_come_first_and_what_has_no_room_is_counted() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let asked = [
        // It has no deadline, so it comes last.
        (ModeName::Staged, None),
        (ModeName::Overlap, Some(2 * DAY)),
        (ModeName::Overlap, Some(DAY)),
        (ModeName::Immediate, None),
    ];
    let mut opened = Vec::new();
    for (mode, overlap) in asked {
        let keyring = bench.endpoint(app).await.endpoint.keyring;
        let input = rotate(mode, overlap);
        let made = bench
            .service
            .open_rotation(&bench.owner, keyring, input, None, None);
        opened.push(made.await.unwrap().rotation.id);
    }
    let [staged, late, soon, _] = opened[..] else {
        panic!("four were opened")
    };
    assert_eq!(told(&bench, 10), (vec![soon, late, staged], 0));
    assert_eq!(told(&bench, 2), (vec![soon, late], 1));
    assert_eq!(told(&bench, 0), (vec![], 3));
    let finished = bench
        .service
        .finish_rotation(&bench.owner, soon, None, None)
        .await;
    finished.unwrap();
    assert_eq!(told(&bench, 2), (vec![late, staged], 0));
    // Over by its date, before it is written down.
    bench.clock.advance(2 * DAY + HOUR);
    assert_eq!(told(&bench, 2), (vec![staged], 0));
}
