//! Endpoints that are made, switched off and switched on while messages are sent, each at any node.

use super::{Ask, Command, Operation, Setup, SwitchWord, Trouble, setup};
use crate::random::Random;

/// Puts one or two stories between the operations: an endpoint is made, messages are sent at once, it is switched off and on
/// again, and messages are sent at once. `known` endpoints are there from the beginning.
pub(super) fn arrive(operations: &mut Vec<Operation>, random: &mut Random, known: u64, nodes: u64) {
    for _ in 0..random.between(1, 2) {
        let new = Setup {
            picky: random.chance(300),
            ..setup(random)
        };
        let mut story = chapter(random, nodes, |node| Operation::Create { setup: new, node });
        // The new one, if it is made and no other is before it.
        let endpoint = u8::try_from(random.between(0, known)).unwrap_or(0);
        let off = random.pick(&[
            SwitchWord::Disabled,
            SwitchWord::Disabled,
            SwitchWord::Paused,
        ]);
        for to in [off, SwitchWord::Enabled] {
            let wait = random.chance(850);
            story.extend(chapter(random, nodes, |node| {
                Operation::Ask(Ask {
                    endpoint,
                    command: Command::Switch { to },
                    patience_millis: None,
                    wait,
                    node,
                })
            }));
        }
        let mut at = random.below(operations.len() as u64 + 1);
        for operation in story {
            let index = usize::try_from(at).unwrap_or(0).min(operations.len());
            operations.insert(index, operation);
            // Mostly one right after the other: what another node does not know yet, it knows soon.
            at += 1 + random.pick(&[0, 0, 0, 1]);
        }
    }
}

/// Something is asked of one node, and others publish at once; at times one of them follows late, because something was
/// wrong with it.
fn chapter(random: &mut Random, nodes: u64, asked: impl FnOnce(u8) -> Operation) -> Vec<Operation> {
    let (node, late) = (anywhere(random, nodes), anywhere(random, nodes));
    let mut chapter = Vec::new();
    if nodes > 1 && late != node && random.chance(300) {
        let millis = random.pick(&[400, 1_200, 1_900, 2_600]);
        let what = random.pick(&[
            Trouble::Paused { millis },
            Trouble::Cut { millis },
            Trouble::Unanswered { millis },
        ]);
        chapter.push(Operation::Node { node: late, what });
        chapter.push(asked(node));
        chapter.push(publish(random, late));
    } else {
        chapter.push(asked(node));
    }
    for _ in 0..random.between(0, 2) {
        let node = anywhere(random, nodes);
        chapter.push(publish(random, node));
    }
    chapter
}

fn publish(random: &mut Random, node: u8) -> Operation {
    Operation::Publish {
        count: u8::try_from(random.between(1, 3)).unwrap_or(1),
        batch: random.chance(300),
        node,
    }
}

fn anywhere(random: &mut Random, nodes: u64) -> u8 {
    u8::try_from(random.below(nodes)).unwrap_or(0)
}
