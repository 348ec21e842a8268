//! The box-makers.
