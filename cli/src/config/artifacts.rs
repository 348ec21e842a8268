//! The keys that say where files are kept that outlive their sandbox, and how much of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use objects::{Backend, Limits, S3, Settings};
use serde::{Deserialize, Serialize};

use super::values::Bytes;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactsConfig {
    /// `local` or `s3`.
    pub store: String,
    /// The directory of `local`; `artifacts` in the data directory when not given.
    pub dir: Option<PathBuf>,
    /// The bucket of `s3`.
    pub bucket: Option<String>,
    /// Where the service is; Amazon's of the region when not given.
    pub endpoint: Option<String>,
    pub region: String,
    /// What keys in the bucket begin with.
    pub prefix: String,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    /// The secret key is in this file.
    pub secret_key_file: Option<PathBuf>,
    /// Whether the endpoint may be `http://`.
    pub allow_http: bool,
    /// The largest artifact.
    pub max_artifact: Bytes,
    /// All artifacts of one job together.
    pub max_job: Bytes,
    /// How many artifacts one job has.
    pub max_count: u32,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            store: "local".to_owned(),
            dir: None,
            bucket: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            access_key: None,
            secret_key: None,
            secret_key_file: None,
            allow_http: false,
            max_artifact: Bytes(limits.object_bytes),
            max_job: Bytes(limits.owner_bytes),
            max_count: limits.owner_count,
        }
    }
}

impl std::fmt::Debug for ArtifactsConfig {
    /// A configuration that is printed does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactsConfig")
            .field("store", &self.store)
            .field("dir", &self.dir)
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("access_key", &self.access_key)
            .field("secret_key", &self.secret_key.as_ref().map(|_| "..."))
            .finish_non_exhaustive()
    }
}

impl ArtifactsConfig {
    /// What no type can say of a single key. A message begins with the key.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.max_artifact.0 == 0 || self.max_artifact.0 > Limits::LARGEST {
            bail!("artifacts.max_artifact: must be more than 0, and at most {} bytes", Limits::LARGEST);
        }
        if !(1..=MOST_COUNT).contains(&self.max_count) {
            bail!("artifacts.max_count: must be 1 to {MOST_COUNT}");
        }
        if !matches!(self.store.as_str(), "local" | "s3") {
            bail!("artifacts.store: {:?} is neither local nor s3", self.store);
        }
        let part = |part: &str| !matches!(part, "" | "." | "..");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
        let is_prefix = self.prefix.split('/').all(part) && self.prefix.bytes().all(plain);
        if !self.prefix.is_empty() && !is_prefix {
            bail!("artifacts.prefix: must be names of a-z, A-Z, 0-9, '_', '.' and '-' with '/' between them");
        }
        if self.region.is_empty() {
            bail!("artifacts.region: must not be empty");
        }
        Ok(())
    }

    /// What the store is opened with, and which keys mean nothing to it. A message begins with the key.
    pub fn settings(&self, data_dir: &Path) -> anyhow::Result<(Settings, Vec<&'static str>)> {
        let limits = Limits {
            object_bytes: self.max_artifact.0,
            owner_bytes: self.max_job.0,
            owner_count: self.max_count,
        };
        if self.store == "s3" {
            let idle = if self.dir.is_some() { vec!["artifacts.dir"] } else { Vec::new() };
            return Ok((Settings { backend: Backend::S3(self.bucket()?), limits }, idle));
        }
        let said = [
            ("artifacts.bucket", self.bucket.is_some()),
            ("artifacts.endpoint", self.endpoint.is_some()),
            ("artifacts.prefix", !self.prefix.is_empty()),
            ("artifacts.access_key", self.access_key.is_some()),
            ("artifacts.secret_key", self.secret_key.is_some()),
            ("artifacts.secret_key_file", self.secret_key_file.is_some()),
            ("artifacts.allow_http", self.allow_http),
        ];
        let idle = said.into_iter().filter_map(|(key, said)| said.then_some(key)).collect();
        let dir = self.dir.clone().unwrap_or_else(|| data_dir.join("artifacts"));
        Ok((Settings { backend: Backend::Local(dir), limits }, idle))
    }

    fn bucket(&self) -> anyhow::Result<S3> {
        let is_name = |name: &&str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
            (3..=63).contains(&name.len()) && name.bytes().all(allowed)
        };
        let bucket = self.bucket.as_deref().filter(is_name);
        let bucket =
            bucket.context("artifacts.bucket: must name a bucket: 3 to 63 of a-z, 0-9, '.' and '-'")?;
        match self.endpoint.as_deref() {
            Some(endpoint) if endpoint.starts_with("http://") && !self.allow_http => {
                bail!(
                    "artifacts.endpoint: is http://, where everybody on the way reads: set artifacts.allow_http"
                );
            }
            Some(endpoint) if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") => {
                bail!("artifacts.endpoint: must begin with https:// or http://");
            }
            Some(_) | None => {}
        }
        let access_key = self.access_key.clone().filter(|key| !key.is_empty());
        let secret_key = match (&self.secret_key, &self.secret_key_file) {
            (Some(_), Some(_)) => {
                bail!("artifacts.secret_key_file: artifacts.secret_key is there too: set one of the two")
            }
            (None, None) => bail!("artifacts.secret_key: neither it nor artifacts.secret_key_file is set"),
            (Some(key), None) => key.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("artifacts.secret_key_file: {} cannot be read", path.display())
                })?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        Ok(S3 {
            bucket: bucket.to_owned(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            access_key: access_key.context("artifacts.access_key: is not set")?,
            secret_key: secret_key.into(),
            allow_http: self.allow_http,
        })
    }
}

/// More than the state of a job lists.
const MOST_COUNT: u32 = 1_000;
