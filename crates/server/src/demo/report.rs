//! What the demo counted, as a table for people and as JSON for machines.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What the demo counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Messages that were answered 202.
    pub messages: u64,
    /// How long it all took.
    pub seconds: f64,
    /// By receiver.
    pub rows: Vec<Row>,
}

/// What one receiver saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How it verifies.
    pub receiver: &'static str,
    /// The preset of its endpoint.
    pub preset: &'static str,
    /// When it deployed the new secret: after this share of the messages, in percent.
    pub deployed_percent: Option<u32>,
    /// Messages sent to it.
    pub sent: u64,
    /// Different messages it accepted.
    pub delivered: u64,
    /// Requests it refused because their signature did not match; the fallback delivered them.
    pub rejected: u64,
    /// Requests it answered 503; a retry delivered them.
    pub unavailable: u64,
    /// Messages that never arrived.
    pub lost: u64,
    /// Messages that arrived again, with the same id.
    pub duplicates: u64,
    /// Requests signed by the old secret after it was retired.
    pub old_key_after_retirement: u64,
}

impl Report {
    /// Whether nothing was lost and no retired key signed.
    pub fn is_clean(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.lost == 0 && row.old_key_after_retirement == 0)
    }

    /// The table at the end of the demo.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "receiver",
            "preset",
            "new secret at",
            "sent",
            "delivered",
            "rejected",
            "503",
            "lost",
            "twice",
        ]);
        for row in &self.rows {
            table.add_row([
                row.receiver.to_owned(),
                row.preset.to_owned(),
                row.deployed_percent
                    .map_or("never".to_owned(), |percent| format!("{percent} %")),
                row.sent.to_string(),
                row.delivered.to_string(),
                row.rejected.to_string(),
                row.unavailable.to_string(),
                row.lost.to_string(),
                row.duplicates.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}
