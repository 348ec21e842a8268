//! Names of images, and which of them may be used.
//!
//! An engine that is given a name connects to whatever the name leads to, from inside our own networks. So a name is read here
//! as engines read it, is judged, and reaches the engine in one written form that can mean nothing else.

mod name;
mod policy;

pub use name::{ImageName, ImageNameError};
pub use policy::{ImageEntry, ImageEntryError, ImagePolicy, ImageRefusal, ImageRule, OtherImages, Standing};
