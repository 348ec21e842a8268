//! The layers in front of all endpoints that need a key: who calls, whether it may, and whether there is room for it.

pub mod admit;
pub mod identify;
