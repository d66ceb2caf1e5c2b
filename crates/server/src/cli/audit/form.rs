//! The form in which the API and an export show an audit entry: reader and writer side by side.
//!
//! An export has one entry a line, as JSON without white space, its members sorted by name. The subject's
//! ids stand in a member of their own; what is absent has no member, but subject and detail are always
//! there. Whatever the reader makes of an entry, the writer must make the same entry of it: so what is
//! shown is what was hashed, and nothing else.
//!
//! The dashboard's export has the stored form instead, in which the subject's ids stand beside the rest
//! and nothing is sorted. The reader takes both; there is no third.

use hookturn_core::audit::Recorded;
use serde_json::{Map, Value};

/// Members of the entry itself; whatever else its stored form has is an id of the subject.
const MEMBERS: &[&str] = &[
    "seq",
    "at",
    "workspaceId",
    "actor",
    "action",
    "requestId",
    "reason",
    "fingerprint",
    "detail",
    "previousHash",
    "hash",
];

/// The entry that is shown, if it is one.
pub(super) fn read(shown: &Value) -> Option<Recorded> {
    let mut document = shown.as_object()?.clone();
    if let Some(workspace) = document.remove("workspaceId") {
        document.insert("workspace".to_owned(), workspace);
    }
    if let Some(Value::Object(subject)) = document.remove("subject") {
        document.extend(subject);
    }
    serde_json::from_value(Value::Object(document)).ok()
}

/// The lines that an export may have for an entry.
pub(super) fn lines(recorded: &Recorded) -> [String; 2] {
    let stored = serde_json::to_string(recorded).unwrap_or_default();
    [shown(recorded).to_string(), stored]
}

/// The entry as it is shown.
pub(super) fn shown(recorded: &Recorded) -> Value {
    let Ok(Value::Object(document)) = serde_json::to_value(recorded) else {
        // An entry is texts, numbers and maps with text keys: nothing JSON cannot say.
        return Value::Null;
    };
    let mut subject = Map::new();
    let mut shown = Map::new();
    for (name, value) in document {
        let name = match name.as_str() {
            "workspace" => "workspaceId".to_owned(),
            _ => name,
        };
        if MEMBERS.contains(&&*name) {
            shown.insert(name, value);
        } else {
            subject.insert(name, value);
        }
    }
    shown.insert("subject".to_owned(), Value::Object(subject));
    shown
        .entry("detail")
        .or_insert_with(|| Value::Object(Map::new()));
    Value::Object(shown)
}
