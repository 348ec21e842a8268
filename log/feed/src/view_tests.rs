//! The view is what the log says, whatever was not heard on the way, and holds no more than it is for.

use std::time::Duration;

use events::{Event, SandboxErased};
use tokio::time::sleep;

use super::*;
use crate::feed::tests::{record, simulate};
use crate::simulated::{Author, Said, World, event};

fn live(events: impl IntoIterator<Item = Event>) -> Vec<SandboxState> {
    let mut states: HashMap<SandboxId, Option<SandboxState>> = HashMap::new();
    for event in events {
        let Some(id) = event.sandbox else { continue };
        let state = states.entry(id).or_default();
        *state = SandboxState::apply(state.take(), &event);
    }
    let mut live: Vec<_> = states.into_values().flatten().filter(|state| !state.is_terminal()).collect();
    live.sort_by_key(|state| state.id);
    live
}

async fn load(world: &World, feed: &Feed) -> View {
    loop {
        match View::load(feed, &Registry::default()).await {
            Ok(view) => return view,
            Err(error) => assert!(matches!(error, FeedError::Store(_)) && world.is_faulty(), "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_view_is_what_the_log_says_and_forgets_what_has_ended() {
    simulate(async |seed| {
        let world = World::new(seed, Duration::from_secs(20));
        let mut author = Author::new(seed);
        record(&world, &mut author, 20).await;
        let feed = Feed::follow(Said(world.clone()), world.as_record()).await.unwrap();
        let recording = {
            let world = world.clone();
            // It is loaded while more comes.
            tokio::spawn(async move {
                record(&world, &mut author, 80).await;
            })
        };
        sleep(Duration::from_millis(world.random(3_000))).await;
        let view = load(&world, &feed).await;
        recording.await.unwrap();
        sleep(Duration::from_secs(30)).await;
        let events = || world.events().into_iter().map(|(_, event)| event);
        let mut shown: Vec<SandboxState> =
            view.live_sandboxes().iter().map(|state| SandboxState::clone(state)).collect();
        shown.sort_by_key(|state| state.id);
        assert_eq!(shown, live(events()));
        let open = |usage: &Usage| {
            let tenant = TenantId::default_tenant();
            usage.open_execs(&tenant, SandboxId::from_bytes([0; 16])).0
        };
        let mut counted = Usage::default();
        events().for_each(|event| counted.apply(&event));
        assert_eq!(view.usage(open), open(&counted));
        // Long after their end something is still said of those that have gone.
        sleep(KEEP_ENDED * 2).await;
        let ended: Vec<SandboxId> =
            events().filter(|event| event.data.ends_sandbox()).filter_map(|event| event.sandbox).collect();
        world.record(ended.iter().map(|id| event(*id, SandboxErased {})).collect());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(view.inner.sandboxes.len(), live(events()).len(), "what has ended is forgotten");
    });
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_sandbox_that_nobody_asks_for_leaves_nothing_behind() {
    let world = World::new(1, Duration::ZERO);
    let feed = Feed::follow(Said(world.clone()), world.as_record()).await.unwrap();
    let view = View::load(&feed, &Registry::default()).await.unwrap();
    let id = SandboxId::new();
    assert!(view.wait(id, |_| true, Duration::from_secs(3)).await.is_none());
    assert!(view.inner.sandboxes.is_empty());
    // What is said of one that has been forgotten wakes nobody and is kept for nobody, but does not take the place of whoever waits.
    let waiting = view.clone();
    let waits = tokio::spawn(async move { waiting.wait(id, |_| true, Duration::from_secs(3)).await });
    sleep(Duration::from_millis(10)).await;
    world.record(vec![event(id, SandboxErased {})]);
    sleep(Duration::from_millis(10)).await;
    let mut author = Author::new(1);
    let mut requested = author.batch().swap_remove(0);
    requested.sandbox = Some(id);
    world.record(vec![requested]);
    assert!(waits.await.unwrap().is_some_and(|state| state.id == id));
}
