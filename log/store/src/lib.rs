//! The record in SQL: an append-only log, and the read models that are kept in the same transactions.
//!
//! Two databases stand behind one trait, [`record::EventStore`], and one conformance suite (`tests/store_conformance.rs`).
//! Only the recorder appends; everybody else reads. This is the one crate that sees a database; it knows nothing of the
//! transport, and judges no event.

mod asking;
mod chain;
mod events;
mod keys;
mod migrations;
mod open;
mod output;
#[cfg(test)]
mod plans;
mod postgres;
mod reads;
mod retention;
mod rows;
mod sql;
mod sqlite;
mod statement;
pub mod upkeep;

pub use open::{OpenError, StoreOptions, open_store, open_store_with};
