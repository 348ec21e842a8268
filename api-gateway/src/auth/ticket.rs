//! What stands for a key in front of one WebSocket: signed, short-lived, spent by its use.

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use events::{ApiKeyId, EventId, TenantId};
use secrets::MasterKey;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::action::Action;
use super::caller::Caller;
use super::keys::Maker;
use crate::error::ApiError;

/// How long a ticket is good.
pub const LIFETIME: TimeDelta = TimeDelta::seconds(60);
/// What the subprotocol that carries one starts with.
const PREFIX: &str = "ticket.";
const PURPOSE: &str = "ticket";
/// No ticket is longer.
const MAX_LEN: usize = 2 << 10;

/// What a ticket says: who comes with it.
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
    /// A ticket with which somebody comes as this caller.
    pub fn of(caller: &Caller, maker: Maker, expires_at: DateTime<Utc>) -> Self {
        Self {
            id: EventId::new(),
            expires_at,
            tenant: caller.tenant.clone(),
            maker,
            user: caller.user.clone(),
        }
    }

    /// The ticket as clients carry it: what it says, and the proof that this deployment said it.
    pub fn sign(&self, key: &MasterKey) -> Result<String, ApiError> {
        let said = serde_json::to_vec(self).map_err(ApiError::internal)?;
        let said = BASE64.encode(said);
        let proof = key.fingerprint(PURPOSE, said.as_bytes());
        Ok(format!("{said}.{proof}"))
    }

    /// What a text says, if this deployment said it and it is good still.
    pub fn read(text: &str, key: &MasterKey, now: DateTime<Utc>) -> Option<Self> {
        let (said, proof) = text.split_once('.')?;
        let right = key.fingerprint(PURPOSE, said.as_bytes());
        if !bool::from(proof.as_bytes().ct_eq(right.as_bytes())) {
            return None;
        }
        let ticket: Self = serde_json::from_slice(&BASE64.decode(said).ok()?).ok()?;
        (ticket.expires_at > now).then_some(ticket)
    }

    /// Its name, under which it is spent.
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The tenant in whose name it is good.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What it is good by.
    pub const fn maker(&self) -> &Maker {
        &self.maker
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
pub fn is_for(method: &Method, action: Action, headers: &HeaderMap) -> bool {
    let upgrade =
        headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    method == Method::GET && upgrade && action.takes_tickets()
}

/// The ticket among the subprotocols that a client offers.
pub fn offered(headers: &HeaderMap) -> Option<&str> {
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
    use super::*;
    use crate::auth::Role;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn ticket() -> Ticket {
        let caller = Caller {
            user: Some("ada".to_owned()),
            ..Caller::new("red".parse().unwrap(), Role::Member, Action::TicketIssue)
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
        assert!(!is_for(&Method::GET, Action::EventStream, &headers));
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        let open = |action: &&Action| is_for(&Method::GET, **action, &headers);
        let open: Vec<&str> = Action::ALL.iter().filter(open).map(|action| action.as_str()).collect();
        assert_eq!(open, ["sandbox.replay", "exec.converse", "exec.attach", "event.stream"]);
        for action in Action::ALL {
            assert!(!is_for(&Method::POST, *action, &headers), "{action}");
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
