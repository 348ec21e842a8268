//! The layers in front of the endpoints: what is counted of a request, who calls, whether it may, whether there is room for it, and
//! whether what it changes can be recorded.

pub mod admit;
pub mod audited;
pub mod identify;
pub mod observe;
mod traceparent;
pub mod turned_away;
