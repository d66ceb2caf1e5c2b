//! What the demo counted, as a table for people and as JSON for machines.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What the demo counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Messages that were answered 202; each went to every receiver.
    pub messages: u64,
    /// How long it all took.
    pub seconds: f64,
    /// By receiver.
    pub rows: Vec<Row>,
}

/// What one receiver saw, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it is.
    pub receiver: &'static str,
    /// The preset of its endpoint.
    pub preset: &'static str,
    /// The class that the rehearsal found.
    pub class: String,
    /// When it held the new secret, on every machine, in seconds since the start.
    pub deployed_seconds: Option<f64>,
    /// What was proved about the new secret; absent where nothing can be.
    pub proved: Option<Proved>,
    /// What the server says of it in the end.
    pub words: String,
    /// Messages sent to it.
    pub sent: u64,
    /// Different messages it accepted.
    pub delivered: u64,
    /// Requests with messages that it refused because their signature did not match; each was
    /// delivered at once, signed with the other secret, or by a retry.
    pub refused: u64,
    /// Probes it was sent.
    pub probes: u64,
    /// Messages that never arrived.
    pub lost: u64,
    /// Messages that arrived again, with the same id.
    pub duplicates: u64,
    /// Requests signed by the old secret after it was retired.
    pub old_key_after_retirement: u64,
}

/// What was proved about a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proved {
    /// Requests in a row that were signed with the new secret alone and accepted.
    pub passes: u64,
    /// The stale share of its machines that they rule out, in percent, with 95 % confidence.
    pub rules_out_percent: u8,
    /// When the new secret was promoted, in seconds since the start.
    pub promoted_seconds: f64,
}

impl Report {
    /// Whether nothing was lost, no retired key signed, and exactly those were proved that verify.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| {
            let verifies = row.class != "does_not_verify";
            row.lost == 0 && row.old_key_after_retirement == 0 && row.proved.is_some() == verifies
        })
    }

    /// The table at the end of the demo.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "receiver",
            "found to be",
            "deployed",
            "promoted",
            "what was proved",
            "messages",
            "refused",
            "lost",
        ]);
        for row in &self.rows {
            let at = |seconds: Option<f64>| {
                seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"))
            };
            table.add_row([
                row.receiver.to_owned(),
                row.class.clone(),
                at(row.deployed_seconds),
                at(row.proved.map(|proved| proved.promoted_seconds)),
                row.proved.map_or("nothing".to_owned(), |proved| {
                    format!(
                        "{} passes: ≤ {} % stale",
                        proved.passes, proved.rules_out_percent
                    )
                }),
                row.delivered.to_string(),
                row.refused.to_string(),
                row.lost.to_string(),
            ]);
        }
        for column in [2, 3, 5, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }
}
