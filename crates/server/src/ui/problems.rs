//! What is wrong with a form that was sent: told beside the field it is about, or above the form when
//! it is about none.

use hookturn_core::rotation::Rejected;
use http::StatusCode;

use super::error::{UiError, status_of};
use super::visitor::Visitor;
use crate::service::ServiceError;

/// What is wrong, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// About the form as a whole.
    pub whole: Option<String>,
    fields: Vec<(&'static str, String)>,
}

/// Fields of a form, each with the JSON pointer by which the service knows it.
pub(super) type Fields = [(&'static str, &'static str)];

impl Problems {
    /// Something about the form as a whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self {
            whole: Some(message.into()),
            fields: Vec::new(),
        }
    }

    /// One field is wrong.
    pub(super) fn field(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            whole: None,
            fields: vec![(name, message.into())],
        }
    }

    /// One more field is wrong.
    pub(super) fn add(&mut self, name: &'static str, message: impl Into<String>) {
        self.fields.push((name, message.into()));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.fields.is_empty()
    }

    /// What is wrong with a field.
    pub fn of(&self, field: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(name, _)| *name == field)
            .map(|(_, message)| message.as_str())
    }

    /// What the service refused, and the status to answer: what the visitor can mend stands in the
    /// form, and everything else has a page of its own.
    pub(super) fn refused(
        error: &ServiceError,
        visitor: &Visitor,
        fields: &Fields,
    ) -> Result<(Self, StatusCode), UiError> {
        let status = status_of(error);
        let problems = match error {
            ServiceError::Invalid { pointer, message }
            | ServiceError::Missing { pointer, message } => {
                match fields.iter().find(|(known, _)| known == pointer) {
                    Some((_, field)) => Self::field(field, message),
                    None => Self::whole(error.to_string()),
                }
            }
            ServiceError::Rejected(rejected) => {
                let about = about(rejected);
                let field = fields.iter().find(|(known, _)| about.contains(known));
                if let Some((_, field)) = field {
                    return Ok((Self::field(field, error.to_string()), status));
                }
                Self::whole(error.to_string())
            }
            ServiceError::Conflict { .. } => Self::whole(error.to_string()),
            other => return Err(UiError::service(other, &visitor.base)),
        };
        Ok((problems, status))
    }
}

/// The fields that a keyring's rules found wrong, by the names that the API gives them.
fn about(rejected: &Rejected) -> &'static [&'static str] {
    match rejected {
        Rejected::OverlapTooLong => &["/overlapSeconds"],
        Rejected::NotLater { .. } | Rejected::RetiresTooLate => &["/retireAt"],
        // What is so, and no field, is in the way.
        _ => &[],
    }
}
