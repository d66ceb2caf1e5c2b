//! The commands in the life of a rotation, each with the way to where it begins.

use serde_json::{Value, json};

use crate::world::{Ask, World};

/// One request that changes a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    CreateEndpoint,
    CreateFirstSecret,
    CreatePendingSecret,
    ReplacePendingSecret,
    OpenImmediate,
    OpenOverlap,
    OpenStaged,
    Promote,
    Activate,
    Extend,
    Undo,
    Finish,
    Cancel,
    CompromiseRetiring,
    CompromisePending,
}

impl Command {
    /// A new world, and the request.
    pub(crate) async fn begin(self) -> (World, Ask) {
        let world = World::new().await;
        let (path, body) = match self {
            Self::CreateEndpoint => {
                let path = format!("{}/endpoints", app(&world).await);
                (path, endpoint())
            }
            Self::CreateFirstSecret => (shared_secrets(&world).await, json!({})),
            Self::CreatePendingSecret => (secrets(&world).await, json!({ "name": "next" })),
            Self::ReplacePendingSecret => {
                let secrets = secrets(&world).await;
                world.must(&secrets, json!({})).await;
                (secrets, json!({ "replacePending": true }))
            }
            Self::OpenImmediate => (rotations(&world).await, json!({ "mode": "immediate" })),
            Self::OpenOverlap => (rotations(&world).await, json!({ "mode": "overlap" })),
            Self::OpenStaged => (rotations(&world).await, json!({ "mode": "staged" })),
            Self::Promote => (of_open(&world, "staged", "promote").await, json!({})),
            Self::Cancel => (of_open(&world, "staged", "cancel").await, json!({})),
            Self::Undo => (of_open(&world, "overlap", "undo").await, json!({})),
            Self::Finish => (of_open(&world, "overlap", "finish").await, json!({})),
            Self::Extend => {
                let until = world.now().after(20 * 24 * 3_600_000);
                let body = json!({ "retireAt": until });
                (of_open(&world, "overlap", "extend").await, body)
            }
            Self::Activate => {
                let secrets = secrets(&world).await;
                let pending = world.must(&secrets, json!({})).await;
                let body = json!({ "overlapSeconds": 3_600 });
                (format!("{secrets}/{}/activate", id(&pending)), body)
            }
            Self::CompromiseRetiring => (leaked(&world, "overlap", "retiring").await, json!({})),
            Self::CompromisePending => (leaked(&world, "staged", "pending").await, json!({})),
        };
        (world, Ask { path, body })
    }

    /// Whether its answer shows a value.
    pub(crate) fn makes_a_secret(self) -> bool {
        match self {
            Self::CreateEndpoint
            | Self::CreateFirstSecret
            | Self::CreatePendingSecret
            | Self::ReplacePendingSecret
            | Self::OpenImmediate
            | Self::OpenOverlap
            | Self::OpenStaged => true,
            Self::Promote
            | Self::Activate
            | Self::Extend
            | Self::Undo
            | Self::Finish
            | Self::Cancel
            | Self::CompromiseRetiring
            | Self::CompromisePending => false,
        }
    }
}

fn endpoint() -> Value {
    json!({ "url": "https://receiver.example/hooks" })
}

fn id(made: &Value) -> &str {
    made["id"].as_str().unwrap()
}

async fn app(world: &World) -> String {
    let app = world.must("/v1/apps", json!({ "name": "shop" })).await;
    format!("/v1/apps/{}", app["clientId"].as_str().unwrap())
}

/// The keyring of a new endpoint.
pub(crate) async fn keyring(world: &World) -> String {
    let endpoints = format!("{}/endpoints", app(world).await);
    let made = world.must(&endpoints, endpoint()).await;
    made["keyringId"].as_str().unwrap().to_owned()
}

async fn secrets(world: &World) -> String {
    format!("/v1/keyrings/{}/secrets", keyring(world).await)
}

/// The workspace's shared keyring has no secret at first.
async fn shared_secrets(world: &World) -> String {
    let workspaces = world.get("/v1/workspaces").await;
    let shared = workspaces["data"][0]["sharedKeyringId"].as_str().unwrap();
    format!("/v1/keyrings/{shared}/secrets")
}

async fn rotations(world: &World) -> String {
    format!("/v1/keyrings/{}/rotations", keyring(world).await)
}

/// A command on a rotation that is open.
async fn of_open(world: &World, mode: &str, command: &str) -> String {
    let rotations = rotations(world).await;
    let opened = world.must(&rotations, json!({ "mode": mode })).await;
    format!("/v1/rotations/{}/{command}", id(&opened))
}

/// The report that the secret in this status has leaked.
async fn leaked(world: &World, mode: &str, status: &str) -> String {
    let secrets = secrets(world).await;
    let rotations = secrets.replace("/secrets", "/rotations");
    world.must(&rotations, json!({ "mode": mode })).await;
    let listed = world.get(&secrets).await;
    let listed = listed["data"].as_array().unwrap();
    let leaked = listed.iter().find(|secret| secret["status"] == status);
    format!("{secrets}/{}/compromise", id(leaked.unwrap()))
}
