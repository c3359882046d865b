//! Who may knock where: one table of paths and scopes, and the layer that asks it.
//!
//! Invariant: a path that the table does not name needs a key as soon as one exists. What a key may see behind a path is
//! the handlers' to say.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Denied;
use crate::{
    access::{Caller, Scope},
    http::{ApiError, App},
};

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    /// Nothing: machines ask whether the process lives.
    Nothing,
    /// Any good key.
    Key,
    /// A key with one of these.
    OneOf(&'static [Scope]),
}

use Scope::{Approve, Content, Operate, Plan, Read, Submit};

fn need(method: &Method, path: &str) -> Need {
    let path = path.strip_prefix("/p/").and_then(|rest| rest.split_once('/')).map_or(path, |(_, rest)| rest);
    let mut parts = path.trim_matches('/').split('/');
    let looks = *method == Method::GET || *method == Method::HEAD;
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next()) {
        ("healthz" | "readyz", "", None) => Need::Nothing,
        ("metrics", "", None) => Need::OneOf(&[Read]),
        ("v1", "jobs", None) if looks => Need::OneOf(&[Read]),
        ("v1", "jobs", Some(_)) if !looks => Need::OneOf(&[Submit, Operate]),
        ("v1", "jobs" | "files" | "batches", _) if looks => Need::OneOf(&[Submit, Read]),
        ("v1", "jobs" | "files" | "batches" | "chat", _) => Need::OneOf(&[Submit]),
        ("v1", "models", _) => Need::OneOf(&[Submit, Read, Plan, Content]),
        ("v1", "ops", Some("explain" | "plan")) => Need::OneOf(&[Plan, Operate]),
        ("v1", "ops", Some("config")) if looks => Need::OneOf(&[Plan, Operate]),
        ("v1", "ops", Some("forecast")) if !looks => Need::OneOf(&[Submit, Plan, Operate]),
        ("v1", "ops", Some("keys")) => Need::OneOf(&[Operate]),
        ("v1", "ops", Some("batches")) if looks => Need::OneOf(&[Submit, Read, Operate]),
        ("v1", "ops", _) if looks => Need::OneOf(&[Read, Operate]),
        ("v1", "ops", Some("rollouts")) if (path.ends_with("/promote") || path.ends_with("/approve")) => {
            Need::OneOf(&[Approve])
        }
        ("v1", "ops", _) => Need::OneOf(&[Operate]),
        _ => Need::Key,
    }
}

/// The scopes of which a path wants one: `None` where it wants no key, none of them where any key will do.
pub(in crate::http) fn scopes_for(method: &Method, path: &str) -> Option<&'static [Scope]> {
    match need(method, path) {
        Need::Nothing => None,
        Need::Key => Some(&[]),
        Need::OneOf(scopes) => Some(scopes),
    }
}

/// Lets a request in, with its caller, or says why not.
pub(in crate::http) async fn authorise(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let need = need(request.method(), request.uri().path());
    if need == Need::Nothing {
        return next.run(request).await;
    }
    let caller = match app.keys.admit(token(request.headers()), app.engine.now()) {
        Ok(caller) => caller,
        Err(denied) => return refuse(denied),
    };
    if let Need::OneOf(scopes) = need
        && !scopes.iter().any(|scope| caller.may(*scope))
    {
        let wanted: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
        return ApiError::forbidden(
            "insufficient_scope",
            format!("key {:?} may not do this: it needs the scope {}", caller.name(), wanted.join(" or ")),
        )
        .into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn refuse(denied: Denied) -> Response {
    let message = match denied {
        Denied::NoKey => "this daemon wants a key: send `Authorization: Bearer KEY`".to_owned(),
        Denied::NoKeyExists => {
            "no key exists, and anybody could be asking: make one with `landbridge key create --scope submit`"
                .to_owned()
        }
        Denied::Bad(refusal) => refusal.to_string(),
        Denied::TooOften { limit, wait } => {
            let message = format!("this key may ask {limit} times a minute");
            return ApiError::too_many("rate_limit_exceeded", message, Some(wait)).into_response();
        }
    };
    let mut response = ApiError::unauthorised(message).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    debug_assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    response
}

/// The caller that the gate let in.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ApiError::unauthorised("this path is not behind the gate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_asks_for_its_scope() {
        let of = |line: &str| {
            let (method, path) = line.split_once(' ').unwrap();
            match need(&method.parse().unwrap(), path) {
                Need::Nothing => "nothing".to_owned(),
                Need::Key => "key".to_owned(),
                Need::OneOf(scopes) => scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"),
            }
        };
        for (line, expected) in [
            ("GET /healthz", "nothing"),
            ("GET /readyz", "nothing"),
            ("GET /metrics", "read"),
            ("POST /v1/jobs", "submit"),
            ("GET /v1/jobs", "read"),
            ("GET /v1/jobs/x/why", "submit|read"),
            ("POST /v1/jobs/x/cancel", "submit|operate"),
            ("POST /v1/chat/completions", "submit"),
            ("POST /p/triage/v1/chat/completions", "submit"),
            ("GET /p/triage/v1/models", "submit|read|plan|content"),
            ("POST /v1/files", "submit"),
            ("DELETE /v1/files/x", "submit"),
            ("GET /v1/files/x/content", "submit|read"),
            ("POST /v1/batches/x/cancel", "submit"),
            ("GET /v1/ops/pipelines", "read|operate"),
            ("POST /v1/ops/explain", "plan|operate"),
            ("POST /v1/ops/flags", "operate"),
            ("GET /v1/ops/keys", "operate"),
            ("POST /v1/ops/plan", "plan|operate"),
            ("GET /v1/ops/report", "read|operate"),
            ("GET /v1/ops/config/3/diff", "plan|operate"),
            ("POST /v1/ops/config/rollback", "operate"),
            ("POST /v1/ops/rollouts/a/b/promote", "approve"),
            ("POST /v1/ops/rollouts/a/b/approve", "approve"),
            ("POST /v1/jobs/x/scores", "submit|operate"),
            ("POST /v1/ops/rollouts/a/b/pause", "operate"),
            ("GET /openapi.json", "key"),
            ("GET /nowhere", "key"),
            ("GET /healthz/../v1/ops/keys", "key"),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }
}
