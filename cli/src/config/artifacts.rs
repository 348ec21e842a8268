//! The keys that say where files are kept that outlive their sandbox, and how much of them.

use std::path::PathBuf;

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
    /// What no type can say. A message begins with the key.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.max_artifact.0 == 0 || self.max_artifact.0 > Limits::LARGEST {
            bail!("artifacts.max_artifact: must be more than 0, and at most {} bytes", Limits::LARGEST);
        }
        if self.max_job.0 < self.max_artifact.0 {
            bail!("artifacts.max_job: is less than artifacts.max_artifact");
        }
        if !(1..=MOST_COUNT).contains(&self.max_count) {
            bail!("artifacts.max_count: must be 1 to {MOST_COUNT}");
        }
        match self.store.as_str() {
            "local" => self.check_local(),
            "s3" => self.check_s3(),
            other => bail!("artifacts.store: {other:?} is neither local nor s3"),
        }
    }

    fn check_local(&self) -> anyhow::Result<()> {
        for (key, said) in [
            ("bucket", self.bucket.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("prefix", !self.prefix.is_empty()),
            ("access_key", self.access_key.is_some()),
            ("secret_key", self.secret_key.is_some()),
            ("secret_key_file", self.secret_key_file.is_some()),
            ("allow_http", self.allow_http),
        ] {
            if said {
                bail!("artifacts.{key}: means nothing unless artifacts.store is s3");
            }
        }
        Ok(())
    }

    fn check_s3(&self) -> anyhow::Result<()> {
        if self.dir.is_some() {
            bail!("artifacts.dir: means nothing unless artifacts.store is local");
        }
        let is_name = |name: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
            (3..=63).contains(&name.len()) && name.bytes().all(allowed)
        };
        if !self.bucket.as_deref().is_some_and(is_name) {
            bail!("artifacts.bucket: must name a bucket: 3 to 63 of a-z, 0-9, '.' and '-'");
        }
        if self.region.is_empty() {
            bail!("artifacts.region: must not be empty");
        }
        let part = |part: &str| !matches!(part, "" | "." | "..");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
        if !self.prefix.is_empty() && !(self.prefix.split('/').all(part) && self.prefix.bytes().all(plain)) {
            bail!("artifacts.prefix: must be names of a-z, A-Z, 0-9, '_', '.' and '-' with '/' between them");
        }
        match self.endpoint.as_deref() {
            Some(endpoint) if endpoint.starts_with("http://") => {
                if !self.allow_http {
                    bail!(
                        "artifacts.endpoint: is http://, where everybody on the way reads: set artifacts.allow_http"
                    );
                }
            }
            Some(endpoint) if !endpoint.starts_with("https://") => {
                bail!("artifacts.endpoint: must begin with https:// or http://");
            }
            Some(_) | None => {}
        }
        if self.access_key.as_deref().is_none_or(str::is_empty) {
            bail!("artifacts.access_key: is not set");
        }
        match (&self.secret_key, &self.secret_key_file) {
            (Some(_), Some(_)) => {
                bail!("artifacts.secret_key_file: artifacts.secret_key is there too: set one of the two")
            }
            (None, None) => bail!("artifacts.secret_key: neither it nor artifacts.secret_key_file is set"),
            (Some(_), None) | (None, Some(_)) => Ok(()),
        }
    }

    /// What the store is opened with.
    pub fn settings(&self, data_dir: &std::path::Path) -> anyhow::Result<Settings> {
        let limits = Limits {
            object_bytes: self.max_artifact.0,
            owner_bytes: self.max_job.0,
            owner_count: self.max_count,
        };
        if self.store == "local" {
            let dir = self.dir.clone().unwrap_or_else(|| data_dir.join("artifacts"));
            return Ok(Settings { backend: Backend::Local(dir), limits });
        }
        let secret_key = match (&self.secret_key, &self.secret_key_file) {
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("artifacts.secret_key_file: {} cannot be read", path.display())
                })?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (key, _) => key.clone().unwrap_or_default(),
        };
        let bucket = S3 {
            bucket: self.bucket.clone().unwrap_or_default(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            access_key: self.access_key.clone().unwrap_or_default(),
            secret_key: secret_key.into(),
            allow_http: self.allow_http,
        };
        Ok(Settings { backend: Backend::S3(bucket), limits })
    }
}

/// What one search in a sandbox finds at most.
const MOST_COUNT: u32 = 100_000;
