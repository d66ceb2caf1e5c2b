//! KORE's error body: `{status, code, message, info?}`.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::super::problem::{Code, FieldError, Problem};

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorView {
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// A stable word for programs.
    #[schema(pattern = "^[a-z0-9_]+$", example = "not_found")]
    code: &'static str,
    /// What happened, and what to do next.
    message: String,
    /// The id of the request, for the log and the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "request 7f0c1c7e-7d0e-4a39-9d5c-2f7b0f2a9c11")]
    info: Option<String>,
}

/// Writes a problem into its response.
pub(in crate::api::dialect) fn render(
    problem: &Problem,
    response: &mut Response,
    request_id: &str,
) {
    let status = status_of(problem.code());
    let view = ErrorView {
        status: status.as_u16(),
        code: problem.code().as_str(),
        message: message_of(problem),
        info: Some(format!("request {request_id}")),
    };
    *response.status_mut() = status;
    // Three texts and a number: nothing JSON cannot say.
    let body = serde_json::to_string(&view).unwrap_or_default();
    problem.render_as(response, "application/json", body);
}

/// KORE answers 400 to every field that is not valid.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidField => StatusCode::BAD_REQUEST,
        other => other.status(),
    }
}

fn message_of(problem: &Problem) -> String {
    if problem.errors().is_empty() {
        return problem.detail().to_owned();
    }
    let errors: Vec<_> = problem.errors().iter().map(sentence).collect();
    let errors = errors.join("; ");
    match problem.code() {
        // Of a call that reads: there was nothing to change.
        Code::InvalidParameter => errors,
        _ => format!("nothing was changed: {errors}"),
    }
}

/// What is wrong with a field, a parameter or a header, by the name that the caller gave it.
fn sentence(error: &FieldError) -> String {
    let FieldError {
        pointer,
        parameter,
        header,
        detail,
        missing: _,
    } = error;
    let field = pointer
        .as_deref()
        .map(|pointer| pointer.trim_start_matches('/'));
    match field.or(parameter.as_deref()).or(header.as_deref()) {
        None | Some("") => format!("the body: {detail}"),
        Some(name) => format!("{name}: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;

    async fn rendered(problem: Problem) -> (Response<()>, Value) {
        let mut response = Response::default();
        render(
            &problem,
            &mut response,
            "7f0c1c7e-7d0e-4a39-9d5c-2f7b0f2a9c11",
        );
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap();
        (Response::from_parts(head, ()), body)
    }

    #[tokio::test]
    async fn our_own_failures_have_the_form_too_and_tell_no_cause() {
        let (response, body) = rendered(Problem::internal("the disk said whsec_hidden")).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(
            (&body["status"], &body["code"]),
            (&json!(500), &json!("internal"))
        );
        assert!(!body.to_string().contains("whsec_hidden"), "{body}");
        let busy = Problem::new(Code::Unavailable, "try again soon").retry_after(1);
        let (response, body) = rendered(busy).await;
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(body["message"], "try again soon");
    }
}
