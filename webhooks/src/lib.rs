//! Calls webhooks: readers of the log that live somewhere else and are told over HTTP.
//!
//! Each webhook is a reader with a cursor of its own: what is recorded after the cursor is read and sent, one event a request, in
//! order, the next one when the receiver has taken the one before. How far it is becomes an event in its turn, at most once a
//! second, so that a restart repeats about a second. A receiver that is slow or dead holds up nobody but itself.
//!
//! Any number of these processes may run; a lease lets one of them work. While a lease changes hands an event may be sent
//! twice: receivers tell by the event's id.

mod backoff;
mod config;
mod connector;
mod courier;
#[cfg(test)]
mod courier_tests;
mod desk;
mod errands;
mod message;
mod sender;
mod service;
#[cfg(test)]
mod spellings;

pub use config::WebhooksConfig;
pub use service::Webhooks;
