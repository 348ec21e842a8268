//! The layer that sees who is turned away, and what writes it into the record.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use events::{Actor, Event, EventId};

use super::observe::method_name;
use crate::denied::{Denied, Due, Peer};
use crate::gateway::Gateway;

/// How often it is looked whether something is to be written, while somebody was turned away lately.
const TICK: Duration = Duration::from_millis(250);

/// The layer that counts.
pub async fn watch(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_name(request.method());
    let response = next.run(request).await;
    if let Some(denied) = response.extensions().get::<Denied>() {
        let route = route.as_ref().map_or("", MatchedPath::as_str);
        let route = format!("{method} {}", route.strip_prefix("/api/v1").unwrap_or(route));
        gateway.denials().count(denied, peer, route, gateway.clock().now());
    }
    response
}

/// Writes what was counted, until the gateway closes; then the rest of it.
pub async fn record(gateway: Gateway) {
    let denials = gateway.denials();
    while !gateway.closing().is_cancelled() {
        let pause = async {
            denials.any().await;
            tokio::time::sleep(TICK).await;
        };
        tokio::select! {
            () = pause => publish(&gateway, denials.due(false)).await,
            () = gateway.closing().cancelled() => {}
        }
    }
    publish(&gateway, denials.due(true)).await;
}

async fn publish(gateway: &Gateway, due: Vec<Due>) {
    for (tenant, denied, time) in due {
        let (source, reason, count) =
            (denied.source.clone().unwrap_or_else(|| "many".to_owned()), denied.reason.clone(), denied.count);
        let event = Event {
            id: EventId::new(),
            tenant,
            sandbox: None,
            time,
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: denied.into(),
        };
        if let Err(error) = gateway.log().publish(&[event]).await {
            tracing::warn!(
                access.source = source,
                access.reason = reason,
                access.count = count,
                error = %error,
                "that access was denied is not recorded"
            );
        }
    }
}
