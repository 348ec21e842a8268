//! Real servers for end-to-end tests: private ports and directories, ended by pid also when a test fails.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod api;
pub mod bare_nats;
pub mod dockerd;
pub mod keys;
pub mod leavings;
pub mod nats;
pub mod process;
pub mod quota;
pub mod receiver;
pub mod serve;
pub mod split;
pub mod tmpfs;
pub mod tmux;
pub mod verbs;
pub mod viewer;

#[path = "../../../log/store/tests/support/mod.rs"]
pub mod services;

use std::time::{Duration, Instant};

/// Asks again and again until the answer is there; panics with `what` when it does not come in time.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < patience, "{what}: not within {patience:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
