//! A span around every request, for whoever collects them (feature `opentelemetry`),
//! within the caller's trace where its `traceparent` tells one
//! (W3C Trace Context, level 1).

use axum::http::HeaderMap;
use tracing::Span;

/// No span: nobody collects them.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn of_request(_: &'static str, _: &str, _: &HeaderMap) -> Span {
    Span::none()
}

/// The span of a request. What the request says is not in it.
#[cfg(feature = "opentelemetry")]
pub(crate) fn of_request(path: &'static str, id: &str, headers: &HeaderMap) -> Span {
    use tracing::field::Empty;

    let span = tracing::info_span!(
        "request",
        otel.name = path,
        otel.kind = "server",
        otel.status_code = Empty,
        http.route = path,
        http.response.status_code = Empty,
        request_id = id,
        fault = Empty,
    );
    join(&span, headers);
    span
}

/// How the request ended.
pub(crate) fn end(span: &Span, status: u16, fault: &'static str) {
    span.record("http.response.status_code", status);
    if !fault.is_empty() {
        span.record("fault", fault);
    }
    // A client's mistake is no error of the server.
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Makes the span a child of the caller's.
#[cfg(feature = "opentelemetry")]
fn join(span: &Span, headers: &HeaderMap) {
    use opentelemetry::propagation::TextMapPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let propagator = opentelemetry_sdk::propagation::TraceContextPropagator::new();
    // Without a collector, or after the span has begun, there is nothing to join.
    drop(span.set_parent(propagator.extract(&Carrier(headers))));
}

#[cfg(feature = "opentelemetry")]
struct Carrier<'a>(&'a HeaderMap);

#[cfg(feature = "opentelemetry")]
impl opentelemetry::propagation::Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
