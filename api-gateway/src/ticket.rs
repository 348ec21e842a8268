//! What stands for a key in front of one WebSocket: signed, short-lived, spent by its use.

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use events::{ApiKeyId, EventId, TenantId};
use secrets::MasterKey;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::auth::{Caller, Maker};
use crate::denied::Denial;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// How long a ticket is good.
pub const LIFETIME: TimeDelta = TimeDelta::seconds(60);
/// What the subprotocol that carries one starts with.
const PREFIX: &str = "ticket.";
const PURPOSE: &str = "ticket";
/// The WebSockets that tickets are for, below the prefix of the API. Anywhere else a ticket is nothing.
const ROUTES: [&str; 4] =
    ["/sandboxes/{id}/exec/ws", "/sandboxes/{id}/replay", "/execs/{id}/attach", "/events/ws"];
/// No ticket is longer.
const MAX_LEN: usize = 2 << 10;

/// Who a ticket lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    id: EventId,
    expires_at: DateTime<Utc>,
    tenant: TenantId,
    #[serde(flatten)]
    maker: Maker,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl Ticket {
    fn of(caller: &Caller, maker: Maker, expires_at: DateTime<Utc>) -> Self {
        Self {
            id: EventId::new(),
            expires_at,
            tenant: caller.tenant.clone(),
            maker,
            user: caller.user.clone(),
        }
    }

    /// A fresh ticket, as clients carry it, that can be used once.
    pub async fn issue(
        caller: &Caller,
        expires_at: DateTime<Utc>,
        gateway: &Gateway,
    ) -> Result<String, ApiError> {
        let ticket = Self::of(caller, gateway.keys().maker(caller), expires_at);
        let signed = ticket.sign(&gateway.config().master_key)?;
        gateway.log().offer(ticket.id).await.map_err(ApiError::unavailable)?;
        Ok(signed)
    }

    /// The ticket as clients carry it: what it says, and the proof that this deployment said it.
    fn sign(&self, key: &MasterKey) -> Result<String, ApiError> {
        let said = serde_json::to_vec(self).map_err(ApiError::internal)?;
        let said = BASE64.encode(said);
        let proof = key.fingerprint(PURPOSE, said.as_bytes());
        Ok(format!("{said}.{proof}"))
    }

    fn read(text: &str, key: &MasterKey, now: DateTime<Utc>) -> Option<Self> {
        let (said, proof) = text.split_once('.')?;
        let right = key.fingerprint(PURPOSE, said.as_bytes());
        if !bool::from(proof.as_bytes().ct_eq(right.as_bytes())) {
            return None;
        }
        let ticket: Self = serde_json::from_slice(&BASE64.decode(said).ok()?).ok()?;
        (ticket.expires_at > now).then_some(ticket)
    }

    /// Takes the ticket that a request for a WebSocket offers, if it offers one, and says whether it stands for an operator.
    /// It is of no more use then, here or elsewhere. The key that bought it must be there still.
    pub async fn take(
        (method, route): (&Method, &str),
        headers: &HeaderMap,
        gateway: &Gateway,
    ) -> Result<Option<(Self, bool)>, ApiError> {
        if !is_for(method, route, headers) {
            return Ok(None);
        }
        let Some(offered) = offered(headers) else { return Ok(None) };
        let refused = || {
            ApiError::unauthorized_because("the ticket is not good: it is spent, expired, or none")
                .denied(Denial::Ticket, None)
        };
        let now = gateway.clock().now();
        let ticket = Self::read(offered, &gateway.config().master_key, now).ok_or_else(refused)?;
        match gateway.log().spend(ticket.id).await {
            Ok(true) => match gateway.keys().vouches(&ticket.maker, &ticket.tenant) {
                Some(operator) => Ok(Some((ticket, operator))),
                None => Err(refused().denied(Denial::Ticket, Some(&ticket.tenant))),
            },
            Ok(false) => Err(refused().denied(Denial::Ticket, Some(&ticket.tenant))),
            Err(error) => Err(ApiError::unavailable(error)),
        }
    }

    /// Who it lets in.
    pub fn into_parts(self) -> (Option<ApiKeyId>, TenantId, Option<String>) {
        (self.maker.into_key(), self.tenant, self.user)
    }
}

/// Whether a text is a ticket of this deployment.
pub(crate) fn reads(text: &str, key: &MasterKey) -> bool {
    Ticket::read(text, key, DateTime::UNIX_EPOCH).is_some()
}

/// Whether a request asks for one of the WebSockets that tickets are for.
fn is_for(method: &Method, route: &str, headers: &HeaderMap) -> bool {
    let upgrade =
        headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let listed = route.strip_prefix(crate::router::PREFIX).is_some_and(|route| ROUTES.contains(&route));
    method == Method::GET && upgrade && listed
}

/// The ticket among the subprotocols that a client offers.
fn offered(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(PREFIX))
        .filter(|ticket| ticket.len() <= MAX_LEN)
}

#[cfg(test)]
mod tests {
    use events::RequestId;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn ticket() -> Ticket {
        let caller = Caller {
            tenant: "red".parse().unwrap(),
            key: Some("k1".parse().unwrap()),
            user: Some("ada".to_owned()),
            operator: false,
            viewer: None,
            source: None,
            request_id: RequestId::new(),
        };
        Ticket::of(&caller, Maker::default(), at(0) + LIFETIME)
    }

    #[test]
    fn a_ticket_is_good_until_it_expires_and_at_its_own_deployment_only() {
        let key = MasterKey::from_bytes([1; 32]);
        let ticket = ticket();
        let text = ticket.sign(&key).unwrap();
        assert_eq!(Ticket::read(&text, &key, at(59)).unwrap(), ticket);
        assert_eq!(Ticket::read(&text, &key, at(60)), None);
        assert_eq!(Ticket::read(&text, &MasterKey::from_bytes([2; 32]), at(0)), None);
    }

    #[test]
    fn a_ticket_opens_websockets_and_nothing_else() {
        let mut headers = HeaderMap::new();
        assert!(!is_for(&Method::GET, "/api/v1/events/ws", &headers));
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        for route in ROUTES {
            assert!(is_for(&Method::GET, &format!("/api/v1{route}"), &headers), "{route}");
            assert!(!is_for(&Method::POST, &format!("/api/v1{route}"), &headers), "{route}");
        }
        let document = crate::router::document(&crate::config::GatewayConfig::default());
        for route in document.paths.paths.keys() {
            let listed = ROUTES.iter().any(|listed| *route == format!("/api/v1{listed}"));
            assert_eq!(is_for(&Method::GET, route, &headers), listed, "{route}");
        }
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let key = MasterKey::from_bytes([1; 32]);
        let text = ticket().sign(&key).unwrap();
        let (said, proof) = text.split_once('.').unwrap();
        let other = serde_json::to_string(&Ticket { tenant: "blue".parse().unwrap(), ..ticket() }).unwrap();
        for forged in
            [format!("{}.{proof}", BASE64.encode(other)), format!("{said}."), said.to_owned(), ".".to_owned()]
        {
            assert_eq!(Ticket::read(&forged, &key, at(0)), None, "{forged}");
        }
    }

    #[test]
    fn a_ticket_is_found_among_other_subprotocols() {
        let mut headers = HeaderMap::new();
        assert_eq!(offered(&headers), None);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "stacyvm.v1, ticket.abc.def".parse().unwrap());
        assert_eq!(offered(&headers), Some("abc.def"));
    }
}
