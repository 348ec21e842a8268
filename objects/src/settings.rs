use std::path::PathBuf;

use secrecy::SecretString;

/// Where objects are kept, and how large they may be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What keeps them.
    pub backend: Backend,
    /// How much of them.
    pub limits: Limits,
}

/// What keeps objects.
#[derive(Debug, Clone)]
pub enum Backend {
    /// This directory, which is made when it is missing.
    Local(PathBuf),
    /// A bucket, which is there already.
    S3(S3),
}

/// A bucket of an S3-compatible service. The secret is not shown when it is printed.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Where the service is; none: Amazon's of the region.
    pub endpoint: Option<String>,
    /// What requests are signed for.
    pub region: String,
    /// What keys begin with, without slashes at the ends; may be empty.
    pub prefix: String,
    /// The public part of the credentials.
    pub access_key: String,
    /// The secret part of the credentials.
    pub secret_key: SecretString,
    /// Whether the endpoint may be `http://`.
    pub allow_http: bool,
}

/// How much may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest object, in bytes: at most [`Limits::LARGEST`].
    pub object_bytes: u64,
    /// All objects of one owner together, in bytes.
    pub owner_bytes: u64,
    /// How many objects one owner has.
    pub owner_count: u32,
}

impl Limits {
    /// No object is larger: S3 copies no more in one request.
    pub const LARGEST: u64 = 5 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self { object_bytes: 1 << 30, owner_bytes: 4 << 30, owner_count: 1000 }
    }
}
