//! A control group for each tenant, beside each other and beside the host's own processes. The kernel deals out CPU time by group:
//! in the one group that engines put all containers into, a box waits while other tenants' work keeps that group busy.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bollard::Docker;
use bollard::models::SystemInfoCgroupDriverEnum;
use events::TenantId;
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};
use uuid::Uuid;

use super::DockerConfig;

const SHOWN: &str = "/sys/fs/cgroup";

/// Which control groups the boxes of one provider are in.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Whether the engine makes groups itself; where systemd does, they stay where systemd puts them.
    engine_makes_them: OnceCell<bool>,
    /// Read while a box starts: what it is about to be in is not removed for being empty.
    starting: Arc<RwLock<()>>,
    /// Whether what an earlier process left has been looked for.
    looked: OnceLock<()>,
}

impl Groups {
    /// The group that the engine is to put a box of this tenant below. `None`: where it puts all.
    pub(super) async fn parent(
        &self,
        engine: &Docker,
        config: &DockerConfig,
        tenant: &TenantId,
    ) -> Result<Option<String>, bollard::errors::Error> {
        if !config.group_by_tenant {
            return Ok(None);
        }
        let ask = async || {
            let driver = engine.info().await?.cgroup_driver;
            Ok::<_, bollard::errors::Error>(driver == Some(SystemInfoCgroupDriverEnum::CGROUPFS))
        };
        let named = *self.engine_makes_them.get_or_try_init(ask).await?;
        Ok(named.then(|| format!("/{}.{}", own(config), short(&[tenant.as_str()]))))
    }

    /// Nothing is tidied up until this is dropped.
    pub(super) async fn starting(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.starting).read_owned().await
    }

    /// Removes those of tenants who have no box any more: the engine leaves them. Not while a box starts; the next time will do.
    pub(super) fn tidy_up(&self, config: &DockerConfig) {
        let Ok(alone) = Arc::clone(&self.starting).try_write_owned() else { return };
        let _ = self.looked.set(());
        let own = own(config);
        tokio::task::spawn_blocking(move || {
            remove_empty(Path::new(SHOWN), &own);
            drop(alone);
        });
    }

    /// The same once: a process that was killed left those of the boxes that have ended since.
    pub(super) fn tidy_up_at_start(&self, config: &DockerConfig) {
        if self.looked.get().is_none() {
            self.tidy_up(config);
        }
    }
}

/// How the names of the groups of one provider begin. A box can read them: they say nothing of nodes and tenants.
fn own(config: &DockerConfig) -> String {
    format!("stacyvm-{}", short(&[&config.deployment, config.node.as_str(), config.name.as_str()]))
}

fn short(of: &[&str]) -> String {
    let mut digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, of.join("\0").as_bytes()).simple().to_string();
    digest.truncate(12);
    digest
}

/// In the one tree of cgroup v2, or in each of v1. What is not empty stays: the kernel sees to that.
fn remove_empty(root: &Path, own: &str) {
    let trees = std::fs::read_dir(root).into_iter().flatten().flatten().map(|tree| tree.path());
    for tree in trees.chain([root.to_owned()]) {
        // `cpu` and `cpuacct` are names of one tree, which has another name.
        if tree.is_symlink() {
            continue;
        }
        let groups = std::fs::read_dir(&tree).into_iter().flatten().flatten();
        for group in groups.filter(|group| is_ours(&group.file_name().to_string_lossy(), own)) {
            let _ = std::fs::remove_dir(group.path());
        }
    }
}

fn is_ours(name: &str, own: &str) -> bool {
    name.strip_prefix(own).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_groups_of_this_provider_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        for path in [
            "a.0",
            "a.1/box",
            "memory/a.0",
            "memory/a.1/box",
            "memory/ab.0",
            "memory/a",
            "memory/b.0",
            "docker",
        ] {
            make(path);
        }
        std::os::unix::fs::symlink("memory", root.path().join("mem")).unwrap();
        remove_empty(root.path(), "a");
        let mut left: Vec<_> = ["", "memory"]
            .iter()
            .flat_map(|tree| std::fs::read_dir(root.path().join(tree)).unwrap())
            .map(|entry| entry.unwrap().path().strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["a.1", "docker", "mem", "memory", "memory/a", "memory/a.1", "memory/ab.0", "memory/b.0"]
        );
    }

    #[test]
    fn names_tell_installations_nodes_and_tenants_apart_and_say_nothing_of_them() {
        let mut config = DockerConfig::new("/d", "/a", "node-1".parse().unwrap()).unwrap();
        let first = own(&config);
        config.deployment = "other".to_owned();
        let second = own(&config);
        assert_ne!(first, second);
        assert_ne!(short(&["red"]), short(&["blue"]));
        assert!(!first.contains("node"), "{first}");
        assert_eq!(first.len(), "stacyvm-".len() + 12);
    }
}
