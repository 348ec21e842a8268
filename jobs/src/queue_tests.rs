use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use events::{JobId, TenantId};
use proptest::prelude::*;

use super::{FairQueue, Gate, Owner, Rank};

fn owner(name: u8) -> Owner {
    Owner { tenant: TenantId::default_tenant(), user: Some(format!("user-{name}")) }
}

fn free() -> Gate {
    Gate { pool: None, key: None }
}

fn rank(number: usize, priority: i16) -> Rank {
    let job = JobId::derived(&[&number.to_string()]);
    Rank { priority: Reverse(priority), since_us: i64::try_from(number).unwrap(), job }
}

#[test]
fn who_has_five_waits_no_longer_beside_one_who_has_five_thousand() {
    let mut queue = FairQueue::default();
    for number in 0..5_000 {
        queue.push(owner(1), "default", free(), rank(number, 100));
    }
    let few: Vec<Rank> = (5_000..5_005).map(|number| rank(number, -100)).collect();
    for rank in &few {
        queue.push(owner(2), "default", free(), *rank);
    }
    let turns: Vec<JobId> = (0..10).map(|_| queue.pop(|_, _, _| true, |_, _| 1).unwrap()).collect();
    assert!(few.iter().all(|rank| turns.contains(&rank.job)), "each of them within two turns");
    assert_eq!(queue.len(), 4_995);
}

#[test]
fn queues_of_one_owner_take_turns_by_weight_and_priority_counts_within_one() {
    let mut queue = FairQueue::default();
    for number in 0..30 {
        let name = if number % 2 == 0 { "heavy" } else { "light" };
        queue.push(owner(1), name, free(), rank(number, i16::try_from(number).unwrap()));
    }
    let weight = |_: &TenantId, name: &str| if name == "heavy" { 3 } else { 1 };
    let turns: Vec<JobId> = (0..8).map(|_| queue.pop(|_, _, _| true, weight).unwrap()).collect();
    let expected: Vec<JobId> = [28, 26, 24, 29, 22, 20, 18, 27].map(|number| rank(number, 0).job).to_vec();
    assert_eq!(turns, expected);
}

#[test]
fn a_closed_gate_keeps_back_those_behind_it_and_nobody_else() {
    let mut queue = FairQueue::default();
    let closed = Gate { pool: None, key: Some(("key".to_owned(), 1)) };
    queue.push(owner(1), "default", closed.clone(), rank(1, 100));
    queue.push(owner(1), "default", free(), rank(2, 0));
    let is_open = |_: &Owner, _: &str, gate: &Gate| *gate != closed;
    assert_eq!(queue.pop(is_open, |_, _| 1), Some(rank(2, 0).job));
    assert_eq!(queue.pop(is_open, |_, _| 1), None);
    assert_eq!(queue.pop(|_, _, _| true, |_, _| 1), Some(rank(1, 100).job));
    assert_eq!(queue.pop(|_, _, _| true, |_, _| 1), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever comes and goes: each has one turn, nobody waits longer than one round of all queues with their weights allows,
    /// and of one line the greatest priority goes first.
    #[test]
    fn nobody_starves(
        jobs in prop::collection::vec((0..4u8, 0..3u8, -3..3i16), 1..80),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        weights in [1..4u32, 1..4u32, 1..4u32],
    ) {
        let mut queue = FairQueue::default();
        let mut waiting: BTreeMap<(u8, u8), BTreeSet<Rank>> = BTreeMap::new();
        let mut whose = BTreeMap::new();
        for (number, (user, name, priority)) in jobs.iter().enumerate() {
            let rank = rank(number, *priority);
            queue.push(owner(*user), &name.to_string(), free(), rank);
            // A second time changes nothing.
            queue.push(owner(*user), "elsewhere", free(), rank);
            waiting.entry((*user, *name)).or_default().insert(rank);
            whose.insert(rank.job, ((*user, *name), rank));
        }
        for index in gone {
            let (user, name, priority) = jobs[index.index(jobs.len())];
            let rank = rank(index.index(jobs.len()), priority);
            queue.remove(rank.job);
            waiting.get_mut(&(user, name)).unwrap().remove(&rank);
        }
        waiting.retain(|_, line| !line.is_empty());
        let weight = |_: &TenantId, name: &str| weights[name.parse::<usize>().unwrap()];
        let mut since: BTreeMap<(u8, u8), usize> = BTreeMap::new();
        let mut left: usize = waiting.values().map(BTreeSet::len).sum();
        prop_assert_eq!(queue.len(), left);
        while left > 0 {
            let job = queue.pop(|_, _, _| true, weight).unwrap();
            let (line, rank) = whose[&job];
            let expected = waiting[&line].first().copied();
            prop_assert_eq!(Some(rank), expected);
            waiting.get_mut(&line).unwrap().remove(&rank);
            left -= 1;
            // So many turns others may have first: each owner's, in each of which one of his queues is served.
            let owners: BTreeSet<u8> = (0..4).collect();
            let most = owners.len() * usize::try_from(weights.iter().sum::<u32>()).unwrap();
            since.insert(line, 0);
            for (other, line) in waiting.iter().filter(|(_, line)| !line.is_empty()) {
                let waited = since.entry(*other).or_default();
                *waited += 1;
                prop_assert!(*waited <= most + 1, "{other:?} with {} waits for {waited} turns", line.len());
            }
        }
        prop_assert_eq!(queue.pop(|_, _, _| true, weight), None);
    }
}
