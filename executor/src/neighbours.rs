//! Who else works on this node. A tenant alone gets all that the node has; among others it leaves them their part.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use events::TenantId;

/// For how long somebody counts who did something.
const LATELY: Duration = Duration::from_secs(10);
/// Past this many those are forgotten who did nothing lately.
const MANY: usize = 256;

/// When each tenant last did something here.
#[derive(Debug, Default)]
pub struct Neighbours(DashMap<TenantId, Instant>);

impl Neighbours {
    /// Somebody does something.
    pub fn note(&self, tenant: &TenantId) {
        let now = Instant::now();
        match self.0.get_mut(tenant) {
            Some(mut last) => *last = now,
            None => {
                if self.0.len() >= MANY {
                    self.0.retain(|_, last| now.duration_since(*last) < LATELY);
                }
                self.0.insert(tenant.clone(), now);
            }
        }
    }

    /// Whether somebody else did something lately.
    pub fn has_others_than(&self, tenant: &TenantId) -> bool {
        self.0.iter().any(|known| known.key() != tenant && known.value().elapsed() < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_something_lately_is_a_neighbour() {
        let (red, blue): (TenantId, TenantId) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let neighbours = Neighbours::default();
        neighbours.note(&red);
        assert!(!neighbours.has_others_than(&red));
        assert!(neighbours.has_others_than(&blue));
        neighbours.note(&blue);
        assert!(neighbours.has_others_than(&red));
        *neighbours.0.get_mut(&blue).unwrap() -= LATELY;
        assert!(!neighbours.has_others_than(&red));
    }

    #[test]
    fn those_who_did_nothing_lately_are_forgotten() {
        let neighbours = Neighbours::default();
        for n in 0..MANY {
            neighbours.note(&format!("t{n}").parse().unwrap());
        }
        neighbours.0.iter_mut().for_each(|mut last| *last -= LATELY);
        neighbours.note(&"new".parse().unwrap());
        assert_eq!(neighbours.0.len(), 1);
    }
}
