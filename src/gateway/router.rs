//! The router: the routes, and the stack before them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State as Extract},
    http::{HeaderValue, Method, Uri, Version, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};

use super::{
    State,
    access::{self, Access},
    cors, deadline,
    error::{ApiError, ErrorKind},
    health::Stage,
    in_flight::{self, InFlight},
    late,
    limit::{self, door::Cost},
    narrow, portions, request,
    routes::{Door, ROUTES},
    unread::{self, Unread},
    wire,
};

/// Smaller answers are not worth compressing.
const COMPRESSED_FROM: u16 = 1024;

/// Builds the router of a listener: of all routes where there is only one listener, else of those behind `door`.
pub fn router(state: Arc<State>, door: Door) -> Router {
    let in_flight = InFlight::new(&state.config);
    let mut router = Router::new();
    for route in ROUTES.iter().filter(|route| door == Door::Both || [door, Door::Both].contains(&route.door))
    {
        // A layer stands before those above it: read them from below.
        let mut methods = (route.methods)();
        if matches!(route.access, Access::Read | Access::Delete) {
            methods = if route.own_body {
                methods.route_layer(from_fn_with_state(Arc::clone(&state), narrow::narrow_by_url))
            } else {
                methods.route_layer(from_fn_with_state(Arc::clone(&state), narrow::narrow))
            };
        }
        if let Some(cost) = Cost::of(route) {
            let door = limit::door::Door::new(&state, &in_flight, cost);
            methods = methods.route_layer(from_fn_with_state(door, limit::door::enter));
        }
        methods = methods.route_layer(from_fn_with_state((Arc::clone(&state), route.access), access::enter));
        // Health is answered, and the server operated, however much else there is to do.
        if route.access != Access::Open && route.door != Door::Admin {
            methods = methods.route_layer(from_fn_with_state(Arc::clone(&in_flight), in_flight::limit));
            methods = methods.route_layer(from_fn(late::refuse));
        }
        methods = if route.unhurried {
            methods.route_layer(from_fn(deadline::take_time))
        } else {
            methods.route_layer(from_fn_with_state(state.config.request_timeout, deadline::hurry))
        };
        if route.path.starts_with("/api/v1/") {
            router = router.route(&format!("/prometheus{}", route.path), methods.clone());
        }
        router = router.route(route.path, methods);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // 7. They go out in portions, and are compressed in portions.
        .layer(from_fn(portions::portion_out))
        // 6. Large answers are compressed, if the caller can read that.
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                // Chunks are dense as they are.
                .compress_when(
                    SizeAbove::new(COMPRESSED_FROM)
                        .and(NotForContentType::const_new(wire::remote_read::STREAM)),
                ),
        )
        // 5. Pages of configured origins may read the answer.
        .layer(from_fn_with_state(Arc::clone(&state), cors::allow_origins))
        // 4. Web pages are kept out while there is no other door.
        .layer(from_fn_with_state(Arc::clone(&state), guard_host))
        // 3. What is left of a body does not spoil its connection.
        .layer(from_fn_with_state(Unread::default(), unread::forget_the_rest))
        // 2. On our way out, a connection's answer is its last.
        .layer(from_fn_with_state(Arc::clone(&state), close_when_draining))
        // 1. An id, a log line, a place in the counters.
        .layer(from_fn_with_state(Arc::clone(&state), request::observe))
        .with_state(state)
}

async fn guard_host(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let checked = match &state.config.host_guard {
        Some(guard) => guard.check(request.method(), request.uri(), request.headers()),
        None => Ok(()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::new(ErrorKind::Forbidden, refusal.to_string()).into_response(),
    }
}

/// Sends callers away while there is time: a proxy takes another connection for its next request, and finds
/// the others of us ready. HTTP/2 has a word of its own for it, which hyper says.
async fn close_when_draining(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let one_by_one = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if one_by_one && state.readiness.stage() == Stage::Draining {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("page not found: there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
