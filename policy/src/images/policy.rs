use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use events::TenantId;

use super::ImageName;
use crate::AddressPolicy;

/// Which images may be used, by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    /// The rule of tenants that have none of their own.
    pub deployment: ImageRule,
    /// The rules of tenants, each in place of that of the deployment. Private images are listed for those whom they are for.
    pub tenants: BTreeMap<TenantId, ImageRule>,
}

/// Images that may be used, wherever their registry is, and what becomes of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRule {
    /// What may be used.
    pub allow: Vec<ImageEntry>,
    /// What of the rest.
    pub others: OtherImages,
}

/// What becomes of images that no entry allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherImages {
    /// They may be used if their registry is at addresses of the public internet.
    #[default]
    Public,
    /// They may not be used.
    Refused,
}

/// An entry of a list: a registry or a folder of one (`registry.example:5000/`, `registry.example/team/`), a repository
/// (`registry.example/team/tool`, `python`), or one image of it (`python:3.12`, `python@sha256:...`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageEntry {
    /// All below this.
    Folder {
        /// The registry, with its port.
        registry: String,
        /// The path, with a slash at its end; empty for all of the registry.
        path: String,
    },
    /// A repository, whole or one image of it.
    Image(Box<ImageName>),
}

/// A text that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no image: write REGISTRY/, REGISTRY/FOLDER/, REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST"
)]
pub struct ImageEntryError(String);

/// How an image that may be used stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is listed: wherever its registry is.
    Listed,
    /// Its registry must be at addresses of the public internet, which whoever pulls it has to look at.
    Public {
        /// Whether to look also where the image is there already: others than this tenant have it on their list, so that it
        /// may be there for them.
        always: bool,
    },
}

/// Why an image may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefusal {
    /// No entry allows it.
    #[error("is not one of the images that may be used here")]
    NotListed,
    /// Its registry is inside.
    #[error("is in a registry at an address that may not be called")]
    Inside,
}

impl FromStr for ImageEntry {
    type Err = ImageEntryError;

    fn from_str(text: &str) -> Result<Self, ImageEntryError> {
        let bad = || ImageEntryError(text.to_owned());
        let text = text.trim();
        let Some(folder) = text.strip_suffix('/') else {
            return Ok(Self::Image(Box::new(text.parse().map_err(|_| bad())?)));
        };
        // Read as the name of something in it. A folder is one of a registry that is named: `team/` could be both.
        let inside: ImageName = format!("{folder}/x").parse().map_err(|_| bad())?;
        let registry = folder.split('/').next().unwrap_or_default();
        if !registry.contains(['.', ':']) && !registry.eq_ignore_ascii_case("localhost") {
            return Err(bad());
        }
        let path = inside.path().strip_suffix('x').unwrap_or_default();
        // All of the usual registry: the folder that a name without one is in was filled in.
        let path = if folder.contains('/') { path.to_owned() } else { String::new() };
        Ok(Self::Folder { registry: inside.registry(), path })
    }
}

impl ImageEntry {
    fn holds(&self, name: &ImageName) -> bool {
        match self {
            Self::Folder { registry, path } => {
                name.registry() == *registry && name.path().starts_with(path.as_str())
            }
            Self::Image(entry) => {
                let one = match (entry.digest(), entry.tag()) {
                    (Some(digest), _) => name.digest() == Some(digest),
                    // What a digest names need not be what the tag beside it names.
                    (None, Some(tag)) => name.digest().is_none() && name.tag().unwrap_or("latest") == tag,
                    (None, None) => true,
                };
                one && name.registry() == entry.registry() && name.path() == entry.path()
            }
        }
    }
}

impl ImageRule {
    fn lists(&self, name: &ImageName) -> bool {
        self.allow.iter().any(|entry| entry.holds(name))
    }
}

impl ImagePolicy {
    /// Whether the tenant may use the image, as far as its name tells.
    pub fn judge(&self, tenant: &TenantId, name: &ImageName) -> Result<Standing, ImageRefusal> {
        let rule = self.tenants.get(tenant).unwrap_or(&self.deployment);
        if rule.lists(name) {
            return Ok(Standing::Listed);
        }
        let others_list = self
            .tenants
            .values()
            .chain([&self.deployment])
            .any(|other| !std::ptr::eq(other, rule) && other.lists(name));
        match rule.others {
            OtherImages::Refused => Err(ImageRefusal::NotListed),
            OtherImages::Public if is_inside(name) => Err(ImageRefusal::Inside),
            OtherImages::Public => Ok(Standing::Public { always: others_list }),
        }
    }
}

/// Whether the name itself says so; of most only their resolution does.
fn is_inside(name: &ImageName) -> bool {
    let public = |address: IpAddr| AddressPolicy::default().permits(address);
    let host = name.host();
    host == "localhost"
        || host.ends_with(".localhost")
        || name.address().is_some_and(|address| !public(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&str]) -> Vec<ImageEntry> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judge(policy: &ImagePolicy, tenant: &str, image: &str) -> Result<Standing, ImageRefusal> {
        policy.judge(&tenant.parse().unwrap(), &image.parse().unwrap())
    }

    #[test]
    fn without_a_list_public_registries_may_be_asked_and_no_others() {
        let policy = ImagePolicy::default();
        for image in ["alpine", "ghcr.io/a/b:1", "8.8.8.8/x", "registry.internal/x"] {
            assert_eq!(judge(&policy, "a", image), Ok(Standing::Public { always: false }), "{image}");
        }
        for image in [
            "localhost/x",
            "LOCALHOST:5000/x",
            "a.localhost/x",
            "127.0.0.1/x",
            "127.0.0.1:5000/x",
            "10.0.0.1/x",
            "169.254.169.254/x",
            "0.0.0.0:80/x",
            "[::1]:5000/x",
            "[::ffff:127.0.0.1]:5000/x",
            "[fd00::1]/x",
        ] {
            assert_eq!(judge(&policy, "a", image), Err(ImageRefusal::Inside), "{image}");
        }
    }

    #[test]
    fn an_entry_allows_what_it_names_and_nothing_beside_it() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("alpine@{digest}");
        let rule = |entry: &str| ImageRule { allow: entries(&[entry]), others: OtherImages::Refused };
        for (entry, yes, no) in [
            ("r.example:5000/", "r.example:5000/a/b:1", "r.example/a/b:1"),
            ("r.example/team/", "r.example/team/x", "r.example/team-b/x"),
            ("r.example/team/", "r.example/team/x/y:2", "r.example/team"),
            ("docker.io/", "team/x", "ghcr.io/x"),
            ("docker.io/library/", "python:3.12", "team/python"),
            ("python", "python:3.12", "python3"),
            ("python", "docker.io/library/python", "r.example/library/python"),
            ("python:3.12", "python:3.12", "python:3.13"),
            ("python:latest", "python", "python:3.12"),
            (&pinned, &pinned, "alpine"),
        ] {
            let policy = ImagePolicy { deployment: rule(entry), ..ImagePolicy::default() };
            assert_eq!(judge(&policy, "a", yes), Ok(Standing::Listed), "{entry}: {yes}");
            assert_eq!(judge(&policy, "a", no), Err(ImageRefusal::NotListed), "{entry}: {no}");
        }
        // Another image under the tag that is listed.
        let policy = ImagePolicy { deployment: rule("python:3.12"), ..ImagePolicy::default() };
        let beside = format!("python:3.12@{digest}");
        assert_eq!(judge(&policy, "a", &beside), Err(ImageRefusal::NotListed));
        for text in ["", "/", "team/", "a b", "http://r.example/", "r.example//", "*"] {
            assert!(text.parse::<ImageEntry>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_listed_for_a_tenant_is_for_that_tenant() {
        let red = ImageRule { allow: entries(&["10.0.0.5:5000/red/"]), others: OtherImages::Public };
        let blue = ImageRule { allow: entries(&["python"]), others: OtherImages::Refused };
        let policy = ImagePolicy {
            deployment: ImageRule { allow: entries(&["r.internal/"]), others: OtherImages::Public },
            tenants: [("red".parse().unwrap(), red), ("blue".parse().unwrap(), blue)].into(),
        };
        assert_eq!(judge(&policy, "red", "10.0.0.5:5000/red/x"), Ok(Standing::Listed));
        assert_eq!(judge(&policy, "red", "alpine"), Ok(Standing::Public { always: false }));
        // The deployment's list is not that of a tenant who has one.
        assert_eq!(judge(&policy, "red", "r.internal/x"), Ok(Standing::Public { always: true }));
        assert_eq!(judge(&policy, "blue", "python:3.12"), Ok(Standing::Listed));
        assert_eq!(judge(&policy, "blue", "alpine"), Err(ImageRefusal::NotListed));
        assert_eq!(judge(&policy, "green", "r.internal/x"), Ok(Standing::Listed));
        assert_eq!(judge(&policy, "green", "10.0.0.5:5000/red/x"), Err(ImageRefusal::Inside));
        // It may be on a node for whoever lists it, or be a public one: its address tells.
        assert_eq!(judge(&policy, "green", "python"), Ok(Standing::Public { always: true }));
    }
}
