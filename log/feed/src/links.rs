//! The links that are good for something, as the log says.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use events::{AccessEvent, Actor, ApiKeyId, Event, EventData, ExecId, Position, TenantId};
use record::{EventStore, StoreError};
use tokio_util::sync::CancellationToken;

/// How many events are read at once.
const PAGE: u32 = 500;
/// From how many links on those that have expired are taken out.
const PRUNED_FROM: usize = 1024;

/// A link with which others may watch an exec, until it expires or is revoked.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its public name.
    pub id: ApiKeyId,
    /// Whose exec it is.
    pub tenant: TenantId,
    /// The exec.
    pub exec: ExecId,
    /// Who made it.
    pub actor: Actor,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
    /// Cancelled when it is revoked: what it opened ends then.
    pub revoked: CancellationToken,
}

/// The links of all tenants. What is not here opens nothing: a link whose making or revoking is forgotten with old events is
/// not good either.
#[derive(Debug)]
pub struct Links {
    links: HashMap<ApiKeyId, Link>,
    up_to: Position,
    prune_at: usize,
}

impl Default for Links {
    fn default() -> Self {
        Self { links: HashMap::new(), up_to: Position::ZERO, prune_at: PRUNED_FROM }
    }
}

impl Links {
    /// What the log has made of them by now.
    pub async fn load(store: &dyn EventStore) -> Result<Self, StoreError> {
        let mut links = Self::default();
        let head = store.head().await?.position;
        loop {
            let frames = store.links_after(links.up_to, PAGE).await?;
            for frame in frames.iter().filter(|frame| frame.position <= head) {
                // An event of a newer build changes nothing here.
                if let Ok(event) = frame.decode() {
                    links.apply(frame.position, &event);
                }
                links.up_to = frame.position;
            }
            if frames.len() < PAGE as usize || frames.last().is_some_and(|last| last.position >= head) {
                links.up_to = links.up_to.max(head);
                return Ok(links);
            }
        }
    }

    /// Takes in an event. What was taken in before, and what is not about links, changes nothing.
    pub fn apply(&mut self, position: Position, event: &Event) {
        if position <= self.up_to {
            return;
        }
        if let EventData::Access(AccessEvent::Granted(granted)) = &event.data {
            let Some(id) = &granted.viewer else { return };
            let link = Link {
                id: id.clone(),
                tenant: event.tenant.clone(),
                exec: granted.exec,
                actor: event.actor.clone(),
                created_at: event.time,
                expires_at: granted.expires_at,
                revoked: CancellationToken::new(),
            };
            self.links.insert(id.clone(), link);
            if self.links.len() >= self.prune_at {
                self.links.retain(|_, link| link.expires_at > event.time);
                self.prune_at = PRUNED_FROM.max(2 * self.links.len());
            }
        } else if let EventData::Access(AccessEvent::Revoked(revoked)) = &event.data {
            let is_meant = |link: &Link| link.tenant == event.tenant && link.exec == revoked.exec;
            if self.links.get(&revoked.viewer).is_some_and(is_meant)
                && let Some(link) = self.links.remove(&revoked.viewer)
            {
                link.revoked.cancel();
            }
        }
    }

    /// One of them, which may have expired.
    pub fn get(&self, id: &ApiKeyId) -> Option<&Link> {
        self.links.get(id)
    }

    /// Those of a tenant, in no order. Some may have expired.
    pub fn of(&self, tenant: &TenantId) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.tenant == *tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{AccessGranted, AccessRevoked, EventId};

    fn event(tenant: &str, at: i64, data: impl Into<EventData>) -> Event {
        Event {
            id: EventId::new(),
            tenant: tenant.parse().unwrap(),
            sandbox: None,
            time: DateTime::from_timestamp(at, 0).unwrap(),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        }
    }

    fn granted(link: &str, until: i64) -> AccessGranted {
        let exec = ExecId::from_bytes([1; 16]);
        let expires_at = DateTime::from_timestamp(until, 0).unwrap();
        AccessGranted { exec, expires_at, viewer: Some(link.parse().unwrap()) }
    }

    fn revoked(link: &str, exec: u8) -> AccessRevoked {
        AccessRevoked { exec: ExecId::from_bytes([exec; 16]), viewer: link.parse().unwrap() }
    }

    #[test]
    fn a_link_is_there_until_its_own_tenant_revokes_it() {
        let (mut links, id) = (Links::default(), "vl-1".parse().unwrap());
        links.apply(Position(1), &event("red", 0, granted("vl-1", 100)));
        let token = links.get(&id).unwrap().revoked.clone();
        links.apply(Position(2), &event("blue", 1, revoked("vl-1", 1)));
        links.apply(Position(3), &event("red", 1, revoked("vl-1", 2)));
        assert!(links.get(&id).is_some() && !token.is_cancelled());
        links.apply(Position(4), &event("red", 1, revoked("vl-1", 1)));
        assert!(links.get(&id).is_none() && token.is_cancelled());
    }

    #[test]
    fn those_that_have_expired_do_not_pile_up() {
        let mut links = Links::default();
        for n in 0..20_000 {
            links.apply(Position(n + 1), &event("red", n as i64, granted(&format!("vl-{n}"), n as i64 + 10)));
        }
        assert!(links.links.len() <= PRUNED_FROM, "{}", links.links.len());
        assert!(links.get(&"vl-19999".parse().unwrap()).is_some());
    }
}
