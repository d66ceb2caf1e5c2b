//! The pages. Each is a template with the values it shows, made from what the service answers, and has
//! samples that a test renders.

pub mod apps;
pub mod overview;
pub mod sign_in;
