//! Whose turn it is: fair between owners, by weight between the queues of one, by priority within a queue. No I/O, no clock.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use events::{JobId, PoolName, TenantId};

/// Whose a job is, as far as turns go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// Its user.
    pub user: Option<String>,
}

/// What has to be free before a job may leave the queue. Jobs of one queue that need the same wait in one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gate {
    /// A slot of this pool.
    pub pool: Option<PoolName>,
    /// A place under this key, of so many.
    pub key: Option<(String, u32)>,
}

/// Where a job stands among those of its queue: the greatest priority first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Its priority.
    pub priority: Reverse<i16>,
    /// Since when it waits, in microseconds since 1970.
    pub since_us: i64,
    /// Which job it is.
    pub job: JobId,
}

/// Jobs that wait for their turn.
#[derive(Debug, Default)]
pub struct FairQueue {
    owners: HashMap<Owner, Lanes>,
    /// The owners that have somebody waiting, each once.
    rotation: VecDeque<Owner>,
    places: HashMap<JobId, (Owner, String, Gate, Rank)>,
}

/// The queues of one owner.
#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<String, Lane>,
    rotation: VecDeque<String>,
}

/// One owner's part of one queue.
#[derive(Debug, Default)]
struct Lane {
    /// How many turns it has left before it is that of the next queue.
    credit: u32,
    lines: HashMap<Gate, BTreeSet<Rank>>,
    /// The first of each line.
    fronts: BTreeSet<(Rank, Gate)>,
}

impl FairQueue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a job, unless it waits here already.
    pub fn push(&mut self, owner: Owner, queue: &str, gate: Gate, rank: Rank) {
        if self.places.contains_key(&rank.job) {
            return;
        }
        self.places.insert(rank.job, (owner.clone(), queue.to_owned(), gate.clone(), rank));
        if !self.owners.contains_key(&owner) {
            self.rotation.push_back(owner.clone());
        }
        let lanes = self.owners.entry(owner).or_default();
        if !lanes.lanes.contains_key(queue) {
            lanes.rotation.push_back(queue.to_owned());
        }
        lanes.lanes.entry(queue.to_owned()).or_default().push(gate, rank);
    }

    /// Takes a job out, wherever it stands.
    pub fn remove(&mut self, job: JobId) {
        let Some((owner, queue, gate, rank)) = self.places.remove(&job) else { return };
        let Some(lanes) = self.owners.get_mut(&owner) else { return };
        if let Some(lane) = lanes.lanes.get_mut(&queue) {
            lane.remove(&gate, rank);
            if lane.fronts.is_empty() {
                lanes.lanes.remove(&queue);
                lanes.rotation.retain(|name| *name != queue);
            }
        }
        if lanes.lanes.is_empty() {
            self.owners.remove(&owner);
            self.rotation.retain(|known| *known != owner);
        }
    }

    /// Whose turn it is among those whose gate is open. `weight` says how many turns a queue of an owner has in a row, beside his
    /// others.
    pub fn pop(
        &mut self,
        is_open: impl Fn(&Owner, &str, &Gate) -> bool,
        weight: impl Fn(&TenantId, &str) -> u32,
    ) -> Option<JobId> {
        for _ in 0..self.rotation.len() {
            let owner = self.rotation.front()?.clone();
            self.rotation.rotate_left(1);
            let Some(lanes) = self.owners.get_mut(&owner) else { continue };
            let open = |queue: &str, gate: &Gate| is_open(&owner, queue, gate);
            if let Some(job) = lanes.next(open, |queue| weight(&owner.tenant, queue)) {
                self.remove(job);
                return Some(job);
            }
        }
        None
    }
}

impl Lanes {
    fn next(&mut self, is_open: impl Fn(&str, &Gate) -> bool, weight: impl Fn(&str) -> u32) -> Option<JobId> {
        for _ in 0..self.rotation.len() {
            let queue = self.rotation.front()?.clone();
            let lane = self.lanes.get_mut(&queue)?;
            let first = lane.fronts.iter().find(|(_, gate)| is_open(&queue, gate)).map(|(rank, _)| rank.job);
            let Some(job) = first else {
                lane.credit = 0;
                self.rotation.rotate_left(1);
                continue;
            };
            if lane.credit == 0 {
                lane.credit = weight(&queue).max(1);
            }
            lane.credit -= 1;
            if lane.credit == 0 {
                self.rotation.rotate_left(1);
            }
            return Some(job);
        }
        None
    }
}

impl Lane {
    fn push(&mut self, gate: Gate, rank: Rank) {
        let line = self.lines.entry(gate.clone()).or_default();
        let before = line.first().copied();
        line.insert(rank);
        self.move_front(gate, before, Some(rank));
    }

    fn remove(&mut self, gate: &Gate, rank: Rank) {
        let Some(line) = self.lines.get_mut(gate) else { return };
        let before = line.first().copied();
        line.remove(&rank);
        let after = line.first().copied();
        if after.is_none() {
            self.lines.remove(gate);
        }
        if before != after
            && let Some(before) = before
        {
            self.fronts.remove(&(before, gate.clone()));
            self.fronts.extend(after.map(|after| (after, gate.clone())));
        }
    }

    fn move_front(&mut self, gate: Gate, before: Option<Rank>, added: Option<Rank>) {
        let first = before.into_iter().chain(added).min();
        if first != before {
            if let Some(before) = before {
                self.fronts.remove(&(before, gate.clone()));
            }
            self.fronts.extend(first.map(|first| (first, gate)));
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
