//! The endpoints for operators: health, metrics and status.
//!
//! [`connections`] accepts and bounds, this module answers. Everything is read-only and is answered from what the
//! [`StatusSource`] has at hand, so no request can hold up the node.

mod connections;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;

pub use connections::Limits;

use crate::{
    metrics,
    status::{Status, StatusSource},
};

/// Serves until it is dropped, which also closes all connections. The limits are the product's.
pub async fn serve(listener: TcpListener, source: Arc<dyn StatusSource>) {
    serve_with(listener, source, Limits::default()).await;
}

/// As [`serve`], with other limits.
pub async fn serve_with(listener: TcpListener, source: Arc<dyn StatusSource>, limits: Limits) {
    connections::serve(listener, router(source), limits).await;
}

fn router(source: Arc<dyn StatusSource>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/status", get(status))
        .route("/members", get(members))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::map_response(common_headers))
        .with_state(source)
}

type Source = State<Arc<dyn StatusSource>>;

/// The process answers: that is all this says.
async fn live() -> &'static str {
    "live\n"
}

/// 200 once a leader is known and this node has caught up, otherwise 503 and why.
async fn ready(State(source): Source, headers: HeaderMap) -> Response {
    let status = source.status();
    let (code, reason) = match not_ready_reason(&status) {
        None => (StatusCode::OK, None),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Some(reason)),
    };
    if wants_json(&headers) {
        return (code, Json(json!({ "ready": reason.is_none(), "reason": reason }))).into_response();
    }
    let text = reason.map_or_else(|| "ready\n".to_owned(), |reason| format!("not ready: {reason}\n"));
    (code, text).into_response()
}

/// In words, why the node does not serve.
fn not_ready_reason(status: &Status) -> Option<String> {
    if status.ready {
        return None;
    }
    Some(status.not_ready_reason.clone().unwrap_or_else(|| match status.leader {
        None => "no leader is known".to_owned(),
        Some(leader) => format!("catching up with {leader}: applied {} of {}", status.applied, status.commit),
    }))
}

async fn metrics_text(State(source): Source) -> Response {
    let text = source.metrics().encode(&source.status());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(source): Source) -> Response {
    Json(source.status()).into_response()
}

async fn members(State(source): Source) -> Response {
    Json(source.status().members).into_response()
}

async fn index(State(source): Source) -> String {
    let status = source.status();
    let mut text = format!(
        "raft-node {}\nnode {}, {}, term {}, committed {}, applied {}\n\n",
        status.version,
        status.id.0,
        status.role.name(),
        status.term,
        status.commit,
        status.applied
    );
    for problem in &status.problems {
        text += &format!("! {problem}\n");
    }
    for (path, what) in PAGES {
        text += &format!("{path:<9} {what}\n");
    }
    text
}

/// What there is to see, for `/`.
const PAGES: [(&str, &str); 5] = [
    ("/livez", "200 while the process lives"),
    ("/readyz", "200 while it serves, 503 and why if not"),
    ("/status", "this node's view, as JSON"),
    ("/members", "the members, as JSON"),
    ("/metrics", "for Prometheus"),
];

async fn not_found(uri: Uri) -> Response {
    error(StatusCode::NOT_FOUND, &format!("there is no page {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{} does not take {method}", uri.path()))
}

fn error(code: StatusCode, sentence: &str) -> Response {
    (code, Json(json!({ "error": sentence }))).into_response()
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("application/json"))
}

/// What is shown is true now only, and is what its type says.
async fn common_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
