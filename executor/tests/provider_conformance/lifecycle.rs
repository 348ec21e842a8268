use std::collections::BTreeSet;
use std::time::Duration;

use agent::client::Client;
use events::{FailureCode, Network, SandboxId};
use executor::provider::{Capability, CreateError, NoProgress, PullCause, StatsError};
use tokio::time::{Instant, sleep};

use crate::rig::{Rig, leave_running, shell, socket};

pub async fn creating_twice_makes_one_box(rig: &Rig) {
    let order = rig.order(rig.spec());
    let first = rig.create(&order).await;
    shell(&first, "echo kept >/workspace/kept").await;
    let second = rig.create(&order).await;
    assert_eq!(first, second);
    assert_eq!(shell(&second, "cat /workspace/kept").await.stdout, "kept\n");
    assert_eq!(rig.provider.list().await.expect("list"), [first]);
}

pub async fn creating_twice_at_once_makes_one_box(rig: &Rig) {
    let order = rig.order(rig.spec());
    let other = rig.provider_again();
    let (first, second) = tokio::join!(rig.create(&order), other.create(&order, &NoProgress));
    assert_eq!(first, second.expect("the second create succeeds"));
    assert_eq!(rig.provider.list().await.expect("list"), std::slice::from_ref(&first));
    assert_eq!(shell(&first, "echo one").await.stdout, "one\n");
}

pub async fn a_new_provider_finds_the_boxes_of_the_old_one(rig: &Rig) {
    let order = rig.order(rig.spec());
    let made = rig.create(&order).await;
    leave_running(&made, "exec sleep 1000").await;
    let provider = rig.provider_again();
    let found = provider.list().await.expect("list");
    assert_eq!(found, std::slice::from_ref(&made));
    assert_eq!(Client::with(found[0].agent.clone()).list_execs().await.expect("list execs").len(), 1);
    assert_eq!(provider.create(&order, &NoProgress).await.expect("create again"), made);
    provider.stats(made.id).await.expect("read stats");
    provider.destroy(made.id).await.expect("destroy");
    assert_eq!(rig.provider.list().await.expect("list"), []);
}

pub async fn ten_at_once(rig: &Rig) {
    let orders: Vec<_> = (0..10).map(|_| rig.order(rig.spec())).collect();
    let made = futures::future::join_all(orders.iter().map(|order| rig.create(order))).await;
    let ran = futures::future::join_all(made.iter().map(|handle| shell(handle, "hostname"))).await;
    for (handle, ran) in made.iter().zip(&ran) {
        assert_eq!(ran.stdout.trim(), handle.id.to_string());
    }
    let listed: BTreeSet<_> =
        rig.provider.list().await.expect("list").into_iter().map(|found| found.id).collect();
    assert_eq!(listed, made.iter().map(|handle| handle.id).collect());
    let gone = futures::future::join_all(made.iter().map(|handle| rig.provider.destroy(handle.id))).await;
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
}

pub async fn boxes_end_at_their_deadline_by_themselves(rig: &Rig) {
    let mut order = rig.order(rig.spec());
    order.time_left = Duration::from_secs(4);
    let began = Instant::now();
    let handle = rig.create(&order).await;
    leave_running(&handle, "trap '' TERM; while :; do sleep 1; done").await;
    while rig.listed(handle.id).await.is_some_and(|found| found.running) {
        assert!(began.elapsed() < order.time_left + Duration::from_secs(5), "the box outlives its deadline");
        sleep(Duration::from_millis(50)).await;
    }
    let dead = rig.listed(handle.id).await.expect("its remains are listed");
    assert!(!dead.running);
    rig.provider.destroy(handle.id).await.expect("remove the remains");
    assert_eq!(rig.listed(handle.id).await, None);
}

pub async fn a_box_that_died_is_listed_as_dead_and_can_be_made_again(rig: &Rig) {
    let order = rig.order(rig.spec());
    let handle = rig.create(&order).await;
    shell(&handle, "echo old >/workspace/old").await;
    Client::with(handle.agent.clone()).shutdown(Duration::ZERO).await.expect("shut down");
    for _ in 0..500 {
        if !rig.listed(handle.id).await.expect("its remains are listed").running {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!rig.listed(handle.id).await.expect("its remains are listed").running);
    assert!(matches!(rig.provider.stats(handle.id).await, Err(StatsError::NotRunning)));
    let again = rig.create(&order).await;
    assert!(again.running && again.runtime_id != handle.runtime_id);
    assert_ne!(shell(&again, "cat /workspace/old").await.code(), 0);
}

pub async fn destroy_ends_everything_and_can_be_repeated(rig: &Rig) {
    let handle = rig.any_box().await;
    let kept = rig.any_box().await;
    leave_running(&handle, "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & exec sleep 1000")
        .await;
    rig.provider.destroy(handle.id).await.expect("destroy");
    assert_eq!(rig.provider.list().await.expect("list"), std::slice::from_ref(&kept));
    assert!(Client::with(handle.agent.clone()).ping().await.is_err());
    assert!(!socket(&handle).exists(), "the run directory stays");
    assert!(matches!(rig.provider.stats(handle.id).await, Err(StatsError::NotRunning)));
    rig.provider.destroy(handle.id).await.expect("destroy again");
    assert_eq!(shell(&kept, "echo alive").await.stdout, "alive\n");
}

pub async fn destroying_what_never_was_succeeds(rig: &Rig) {
    rig.provider.destroy(SandboxId::new()).await.expect("destroy nothing");
}

pub async fn unknown_images_are_refused(rig: &Rig) {
    let mut spec = rig.spec();
    spec.image = "no-such/image:at-all".to_owned();
    let error = rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("the image is unknown");
    assert_eq!(error.code(), FailureCode::ImageNotFound);
    assert!(!error.is_retryable());
    assert!(error.to_string().starts_with("image \"no-such/image:at-all\" was not found"), "{error}");
}

/// Of each capability: where it is said to be there, what asks for it works; where not, the answer says which one is missing.
pub async fn it_has_what_it_says_and_what_it_lacks_is_refused_by_name(rig: &Rig) {
    // As the executor does it, before any box is made.
    rig.provider.upkeep().await;
    let capabilities = rig.provider.capabilities();
    for capability in Capability::ALL {
        let mut spec = rig.spec();
        match capability {
            Capability::ImagePull => {
                spec.image = "nowhere.invalid/no/image:1".to_owned();
                let error = rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("no image");
                let not_here = error.to_string().contains(&PullCause::NotHere.to_string());
                assert_eq!(not_here, !capabilities.has(capability), "{error}");
                continue;
            }
            Capability::Network => spec.network = Network::Bridge,
            Capability::ReadOnlyRoot => spec.read_only_root = true,
            Capability::Limits | Capability::Stats => {}
        }
        let order = rig.order(spec);
        let made = rig.provider.create(&order, &NoProgress).await;
        let asked_for = matches!(capability, Capability::Network | Capability::ReadOnlyRoot);
        if asked_for && !capabilities.has(capability) {
            let error = made.expect_err("it is not there");
            assert_eq!(error.code(), FailureCode::Unsupported, "{error}");
            assert!(error.to_string().contains(capability.name()), "{error}");
            assert_eq!(rig.listed(order.id).await, None);
            continue;
        }
        let handle = made.unwrap_or_else(|error| panic!("{}: {error:?}", capability.name()));
        match capability {
            Capability::Network => {
                assert_eq!(shell(&handle, "ls /sys/class/net | grep -qv '^lo$'").await.code(), 0);
            }
            Capability::ReadOnlyRoot => {
                assert_ne!(shell(&handle, "touch /here").await.code(), 0);
            }
            Capability::Limits | Capability::Stats => {
                let stats = rig.provider.stats(order.id).await;
                if !capabilities.has(Capability::Stats) {
                    assert!(matches!(stats, Err(StatsError::Unsupported)), "{stats:?}");
                } else if capabilities.has(Capability::Limits) {
                    assert_eq!(stats.expect("stats").mem_limit_bytes, 256 << 20);
                }
            }
            Capability::ImagePull => {}
        }
        rig.provider.destroy(order.id).await.expect("destroy it");
    }
}

pub async fn unknown_runtimes_are_refused(rig: &Rig) {
    let mut spec = rig.spec();
    spec.runtime = Some("no-such-runtime".to_owned());
    let error = rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("the runtime is unknown");
    assert_eq!(error.code(), FailureCode::Unsupported);
    assert!(error.to_string().contains("no-such-runtime"), "{error}");
}

pub async fn nothing_is_made_when_no_time_is_left(rig: &Rig) {
    let mut order = rig.order(rig.spec());
    order.time_left = Duration::ZERO;
    let outcome = rig.provider.create(&order, &NoProgress).await;
    assert!(matches!(outcome, Err(CreateError::DeadlinePassed)), "{outcome:?}");
    assert_eq!(rig.listed(order.id).await, None);
}

pub async fn nothing_stays_of_a_create_that_failed(rig: &Rig) {
    let mut order = rig.order(rig.spec());
    order.spec.image = "no-such/image:at-all".to_owned();
    rig.provider.create(&order, &NoProgress).await.expect_err("the image is unknown");
    // Far too little time to make anything.
    let mut order = rig.order(rig.spec());
    order.make_within = Duration::from_millis(1);
    let outcome = rig.provider.create(&order, &NoProgress).await;
    assert!(matches!(outcome, Err(CreateError::DeadlinePassed)), "{outcome:?}");
    assert_eq!(rig.provider.list().await.expect("list"), []);
}

pub async fn health_answers(rig: &Rig) {
    let health = rig.provider.health().await.expect("be healthy");
    assert!(!health.version.is_empty());
    assert!(rig.provider.capabilities().has(Capability::Limits));
}
