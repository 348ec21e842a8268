//! What the operator allows: which addresses may be called, which images may be used, and how much room a disk must have.
//!
//! It says yes or no, and why; who asks acts on it. It knows nothing of HTTP or of sandbox providers.

mod address;
mod disk;
mod images;

pub use address::{AddressPolicy, NotANetwork};
pub use disk::{DiskFloor, LowDisk};
pub use images::{
    ImageEntry, ImageEntryError, ImageName, ImageNameError, ImagePolicy, ImageRefusal, ImageRule,
    OtherImages, Standing,
};
