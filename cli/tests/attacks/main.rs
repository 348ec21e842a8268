//! What a hostile workload, agent, client or tenant tries, each with the refusal that it must meet.
//!
//! A module is a surface; a test is an attack. Attacks from inside a sandbox run in both providers: write a function that
//! takes the provider's name and give it to [`in_both`]. docs/security.md lists them all beside what is promised.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod crowds;
mod descriptors;
mod hunger;
mod images;
mod kernel;
mod leavings;
mod leftovers;
mod name_server;
mod names;
mod nats;
mod network;
mod outside;
mod packets;
mod ranges;
mod rules;
mod siege;
mod tenants;
mod terminal;
mod wire;

/// Makes a test for each provider out of a function that takes a provider's name.
macro_rules! in_both {
    ($attack:ident) => {
        mod $attack {
            #[tokio::test]
            async fn in_docker() {
                super::$attack("docker").await;
            }
            #[tokio::test]
            async fn in_bubblewrap() {
                super::$attack("bubblewrap").await;
            }
        }
    };
}
pub(crate) use in_both;
