//! The rotation machine: its rules one by one, its guarantees over random command sequences, and
//! receivers of every class that change keys at every moment.

mod fleet;
mod plan;
mod properties;
mod proven;
mod receivers;
mod rules_1_to_6;
mod rules_7_to_12;
mod several;
mod stored;
mod support;
