//! What is known of a keyring's receivers, said before a rotation opens; with `--rehearse` found out
//! first.

use serde_json::{Value, json};

use super::super::client::{Client, Request};
use super::super::exit::{Exit, Failure};
use super::super::output::{Output, printable};
use super::Mode;

/// Says when each receiver of the keyring was last rehearsed and what that means for a rotation in
/// this mode; with `rehearse` it rehearses them first. A proven rotation of a receiver that the
/// rehearsal found nothing provable about is not opened.
pub(super) fn before_opening(
    client: &Client,
    keyring: &str,
    mode: Mode,
    rehearse: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let found = client.call(&Request::get(format!("/v1/keyrings/{keyring}")));
    let document = match found.and_then(|answer| answer.json()) {
        Ok(document) => document,
        // A key may be allowed to rotate and not to read.
        Err(_) if !rehearse => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let receivers = document["receivers"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    for receiver in receivers {
        let endpoint = receiver["endpointId"].as_str().unwrap_or_default();
        let finding = if rehearse {
            Some(rehearsed(client, endpoint, mode, output)?)
        } else {
            receiver.get("rehearsed").cloned()
        };
        output.hint(sentence(endpoint, finding.as_ref(), mode));
    }
    Ok(())
}

fn rehearsed(
    client: &Client,
    endpoint: &str,
    mode: Mode,
    output: &mut Output,
) -> Result<Value, Failure> {
    output.hint(format!("{endpoint}: rehearsing, a few inert requests …"));
    let request = Request::post(format!("/v1/endpoints/{endpoint}/rehearse"), &json!({}));
    let finding = client.call_apart(&request)?.json()?;
    let class = finding["class"].as_str().unwrap_or_default();
    if mode == Mode::Proven && !can_be_proved(class) {
        return Err(Failure::new(
            Exit::Conflict,
            format!(
                "no rotation was opened: {}, so a proven one would wait for ever",
                printable(finding["words"].as_str().unwrap_or_default())
            ),
        )
        .next("see to the receiver and try again, or rotate with --mode overlap"));
    }
    Ok(finding)
}

fn can_be_proved(class: &str) -> bool {
    matches!(class, "list_aware" | "first_only" | "last_only" | "single")
}

fn sentence(endpoint: &str, finding: Option<&Value>, mode: Mode) -> String {
    let Some(finding) = finding else {
        return format!(
            "{endpoint}: never rehearsed; --rehearse finds out how its receiver verifies before anything \
             is opened"
        );
    };
    let text = |name: &str| printable(finding[name].as_str().unwrap_or_default());
    format!(
        "{endpoint}: rehearsed {}: {} ({}). With mode {}: {}",
        text("at"),
        text("words"),
        text("class"),
        mode.word(),
        meaning(mode, finding["class"].as_str().unwrap_or_default())
    )
}

/// What a class of receivers means for a rotation in this mode.
const fn meaning(mode: Mode, class: &str) -> &'static str {
    match (mode, class.as_bytes()) {
        (_, b"does_not_verify") => {
            "it accepts anything, so nothing can be refused and nothing can be proved; tell its owner \
             that anyone can send to it"
        }
        (Mode::Proven, b"unreachable" | b"unknown") => {
            "nothing can be proved as it is; rehearse again when it answers, or use --mode overlap"
        }
        (_, b"unreachable" | b"unknown") => {
            "how it verifies is not known: it gets one signature at a time, and what it refuses is sent \
             again at once with the other secret"
        }
        (Mode::Immediate, _) => {
            "every delivery is refused and retried until it has deployed the new secret"
        }
        (_, b"list_aware") => {
            "it gets both signatures while both secrets are live, and refuses nothing whenever it deploys"
        }
        (Mode::Overlap | Mode::Staged, _) => {
            "it gets the signature of the secret it is believed to hold; expect one refused request when \
             it deploys, delivered at once with the other secret"
        }
        (Mode::Proven, _) => {
            "it gets one signature at a time; expect a few refused requests while it deploys, each \
             delivered at once with the other secret"
        }
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::receiver::ReceiverClass;

    use super::*;

    const CLASSES: [ReceiverClass; 7] = [
        ReceiverClass::ListAware,
        ReceiverClass::FirstOnly,
        ReceiverClass::LastOnly,
        ReceiverClass::Single,
        ReceiverClass::DoesNotVerify,
        ReceiverClass::Unreachable,
        ReceiverClass::Unknown,
    ];

    #[test]
    fn what_cannot_be_proved_is_said_and_only_that() {
        for class in CLASSES {
            let class = class.as_str();
            let said = meaning(Mode::Proven, class).contains("nothing can be proved");
            assert_eq!(said, !can_be_proved(class), "{class}");
        }
    }

    #[test]
    fn a_receiver_that_was_never_rehearsed_is_offered_one() {
        let offered = sentence("ep_1", None, Mode::Overlap);
        assert!(offered.contains("--rehearse"), "{offered}");
        let finding =
            json!({"at": "2026-11-22T00:00:00.000Z", "class": "first_only", "words": "w\u{1b}"});
        let said = sentence("ep_1", Some(&finding), Mode::Proven);
        assert!(
            said.contains("2026-11-22") && said.contains("mode proven"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'));
    }
}
