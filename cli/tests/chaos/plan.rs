//! What happens in a round: drawn from a seed, and from nothing else, so that a seed replays it.

/// SplitMix64: small, and good enough to choose from a few things.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// How the processes are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One process a role, two gateways, Postgres.
    Split,
    /// All in one, SQLite, a nats-server of its own.
    Serve,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    GatewayA,
    GatewayB,
    Executor,
    Recorder,
    Reaper,
    Nats,
    Serve,
}

/// What is done to the processes in the middle of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new one after a while.
    Kill(Role),
    /// SIGSTOP, and SIGCONT after a while.
    Pause(Role),
    /// SIGKILL of all but NATS and the database, and new ones after a while.
    KillAll,
    /// SIGKILL of nats-server; what it stored is gone when it comes back.
    WipeNats,
    /// The database crashes and recovers.
    CrashDatabase,
}

/// What a client does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A short exec that leaves one line in the sandbox, repeated with the same key until it is answered.
    Note,
    /// An exec that prints numbered lines for a while, read as a stream.
    Print { lines: u64 },
    /// A file written and read back.
    File { bytes: u64 },
    /// A sandbox that ends by itself.
    Doomed { ttl_seconds: u64, busy: bool },
    /// Requests that make no sense.
    Garbage { which: u64 },
    /// The other tenant's key on all that this tenant has.
    Foreign,
    /// A stream of all events that is opened and not read.
    Stare,
    /// The sandbox is destroyed while the others are at work in it.
    Destroy { after_ms: u64 },
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub tenant: usize,
    /// Of those a tenant has at a time.
    pub sandbox: usize,
    pub deeds: Vec<Deed>,
    pub fault: Fault,
    /// When, after the deeds have begun.
    pub fault_after_ms: u64,
    /// How long the process is dead or stands still.
    pub outage_ms: u64,
    /// Whether the sandbox is given up after the round.
    pub retire: bool,
}

pub const TENANTS: [&str; 2] = ["red", "blue"];
/// Sandboxes that a tenant keeps at a time.
pub const KEPT: usize = 2;

impl Plan {
    /// The round of this number.
    pub fn draw(seed: u64, lane: u64, round: u64, shape: Shape) -> Self {
        let mut rng = Rng::new(seed);
        let mut rng = Rng::new(rng.next() ^ (lane << 48) ^ round);
        let fault = fault(&mut rng, shape);
        let mut deeds: Vec<Deed> = (0..2 + rng.below(3)).map(|_| deed(&mut rng)).collect();
        if rng.one_in(8) {
            deeds.push(Deed::Destroy { after_ms: rng.below(600) });
        }
        Self {
            tenant: rng.below(TENANTS.len() as u64) as usize,
            sandbox: rng.below(KEPT as u64) as usize,
            deeds,
            fault,
            fault_after_ms: rng.below(300),
            outage_ms: rng.pick(&[0, 20, 150, 400]),
            retire: rng.one_in(5),
        }
    }
}

fn fault(rng: &mut Rng, shape: Shape) -> Fault {
    use Role::{Executor, GatewayA, GatewayB, Nats, Reaper, Recorder, Serve};
    let draw = rng.below(100);
    match shape {
        Shape::Split => match draw {
            0..34 => {
                Fault::Kill(rng.pick(&[GatewayA, GatewayB, Executor, Executor, Recorder, Recorder, Reaper]))
            }
            34..60 => Fault::Pause(rng.pick(&[GatewayA, GatewayB, Executor, Recorder, Reaper, Nats])),
            60..72 => Fault::Kill(Nats),
            72..80 => Fault::KillAll,
            80..86 => Fault::WipeNats,
            _ => Fault::CrashDatabase,
        },
        Shape::Serve => match draw {
            0..40 => Fault::Kill(Serve),
            40..60 => Fault::Pause(Serve),
            60..72 => Fault::Pause(Nats),
            72..92 => Fault::Kill(Nats),
            _ => Fault::WipeNats,
        },
    }
}

fn deed(rng: &mut Rng) -> Deed {
    match rng.below(100) {
        0..40 => Deed::Note,
        40..62 => Deed::Print { lines: rng.pick(&[50, 1_000, 20_000]) },
        62..74 => Deed::File { bytes: rng.pick(&[0, 10, 5_000, 300_000]) },
        74..84 => Deed::Doomed { ttl_seconds: 1 + rng.below(3), busy: rng.one_in(2) },
        84..91 => Deed::Garbage { which: rng.next() },
        91..96 => Deed::Foreign,
        _ => Deed::Stare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_its_rounds_and_another_has_others() {
        let rounds = |seed| (0..50).map(|round| Plan::draw(seed, 1, round, Shape::Split)).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn every_fault_of_a_shape_comes_up_within_two_hundred_rounds() {
        let faults = |shape| -> Vec<Fault> {
            let all = (0..200).map(|round| Plan::draw(1, 0, round, shape).fault);
            all.fold(Vec::new(), |mut seen, fault| {
                if !seen.contains(&fault) {
                    seen.push(fault);
                }
                seen
            })
        };
        assert_eq!(faults(Shape::Split).len(), 15);
        assert_eq!(faults(Shape::Serve).len(), 5);
    }
}
