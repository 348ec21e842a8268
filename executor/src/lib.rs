//! Takes commands, drives box-makers, and turns what agents say into events.

pub mod provider;
pub mod providers;
