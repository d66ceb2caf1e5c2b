//! What looking at open rotations costs: what is due, not what is there.

use std::sync::Arc;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, KeyringId, RotationId, SecretId};
use hookturn_core::proof::{ProbeKey, ProofPolicy};
use hookturn_core::rotation::{Command, KeyKind, Keyring, KeyringOwner, Mode, NewSecret, apply};
use hookturn_core::store::Write;
use hookturn_core::time::SECOND;
use tokio::task::JoinSet;

use super::super::proving::{ProbeFuture, Prober};
use super::super::testing::Bench;

const KEYRINGS: u32 = 10_000;

/// No endpoint of this test ever accepted anything, so none is probed.
struct Nobody;

impl Prober for Nobody {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        unreachable!("nobody may be probed")
    }
}

fn id(number: u32, kind: u8) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn new_secret(number: u32, kind: u8) -> NewSecret {
    NewSecret {
        id: SecretId::from_bytes(id(number, kind)),
        fingerprint: hex::encode([kind; 4]).parse().unwrap(),
        name: None,
    }
}

/// A keyring of an endpoint, with an active secret and, if asked for, an open proven rotation.
fn keyring(bench: &Bench, template: &Endpoint, number: u32, rotating: bool) -> [Write; 2] {
    let endpoint = EndpointId::from_bytes(id(number, 1));
    let owner = KeyringOwner::Endpoint { endpoint };
    let keyring_id = KeyringId::from_bytes(id(number, 2));
    let workspace = bench.owner.workspace;
    let now = bench.service.now();
    let create = Command::CreateSecret {
        secret: new_secret(number, 3),
        rotation: RotationId::from_bytes(id(number, 4)),
        overlap: 0,
        replace_pending: false,
        reason: None,
    };
    let fresh = Keyring::new(keyring_id, workspace, owner, KeyKind::Symmetric);
    let mut keyring = apply(&fresh, create, now).unwrap().keyring;
    if rotating {
        let rotate = Command::Rotate {
            rotation: RotationId::from_bytes(id(number, 5)),
            mode: Mode::Proven {
                policy: ProofPolicy::default(),
            },
            secret: new_secret(number, 6),
            reason: None,
        };
        keyring = apply(&keyring, rotate, now).unwrap().keyring;
    }
    let endpoint = Endpoint {
        id: endpoint,
        keyring: keyring_id,
        ..template.clone()
    };
    [Write::Endpoint(endpoint), Write::Keyring(keyring)]
}

async fn sweep(bench: &Bench) {
    let prober: Arc<dyn Prober> = Arc::new(Nobody);
    let mut probes = JoinSet::new();
    let moved = bench.service.prove_rotations(&prober, &mut probes).await;
    moved.unwrap();
    assert!(probes.is_empty());
}

#[tokio::test]
async fn steady_keyrings_are_not_looked_at_and_open_ones_a_part_at_a_time() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let template = bench.endpoint(app).await.endpoint;
    for rotating in [false, true] {
        let made = (0..KEYRINGS).flat_map(|number| keyring(&bench, &template, number, rotating));
        bench.live.apply(made.collect());
        if !rotating {
            sweep(&bench).await;
            let (now, stirred) = (bench.service.now(), bench.live.take_stirred());
            assert!(bench.service.agenda.take(stirred, now).is_empty());
            assert!(bench.live.to_settle(now).is_empty());
        }
    }
    // All of them are new once; after that each comes every few seconds, a thousand in a sweep at most.
    let limit = usize::try_from(KEYRINGS).unwrap();
    let (now, mut looks) = (bench.service.now(), 0);
    let mut stirred = bench.live.take_stirred();
    assert_eq!(stirred.len(), limit);
    loop {
        let due = bench.service.agenda.take(std::mem::take(&mut stirred), now);
        assert!(due.len() <= 1_000);
        if due.is_empty() {
            break;
        }
        looks += due.len();
    }
    assert_eq!(looks, limit);
    let started = tokio::time::Instant::now();
    sweep(&bench).await;
    let idle = started.elapsed();
    bench.clock.advance(5 * SECOND);
    let started = tokio::time::Instant::now();
    sweep(&bench).await;
    let busy = started.elapsed();
    println!("10,000 open rotations: {idle:?} a sweep with nothing due, {busy:?} with 1,000 looks");
    // An answer of a receiver, and nothing else, is looked at before its time.
    let endpoint = EndpointId::from_bytes(id(7, 1));
    let rotation = RotationId::from_bytes(id(7, 5));
    bench
        .live
        .find(endpoint, |known| hookturn_core::proof::Findings {
            evidence: Some(hookturn_core::proof::Evidence::new(rotation)),
            ..known
        });
    let news: Vec<_> = bench.live.take_stirred().into_iter().collect();
    assert_eq!(news, [KeyringId::from_bytes(id(7, 2))]);
}
