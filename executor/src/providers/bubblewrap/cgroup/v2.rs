use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::SandboxId;

use super::{CPU_PERIOD_US, Limits, Usage, make_directory, mount, read_field, read_number};

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The directory of all boxes.
#[derive(Debug)]
pub(crate) struct Tree {
    directory: PathBuf,
}

impl Tree {
    /// On a machine in hybrid mode there is a tree of version 2 too, but the controllers are elsewhere.
    pub(super) fn find(mounts: &str, parent: &str) -> Result<Self, String> {
        let root = mounts.lines().filter_map(mount).find(|(_, kind, _)| *kind == "cgroup2");
        let (root, _, _) = root.ok_or("not mounted")?;
        Self::within(&root, parent)
    }

    fn within(root: &Path, parent: &str) -> Result<Self, String> {
        let say = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| format!("{path}: {error}")
        };
        let available = root.join("cgroup.controllers");
        let available = std::fs::read_to_string(&available).map_err(say(&available))?;
        if let Some(missing) =
            CONTROLLERS.iter().find(|name| !available.split_whitespace().any(|have| have == **name))
        {
            return Err(format!("no controller {missing:?}"));
        }
        let directory = root.join(parent);
        std::fs::create_dir_all(&directory).map_err(say(&directory))?;
        // A group hands controllers on to its children only when told to, level by level.
        let levels: Vec<_> = directory.ancestors().take_while(|level| level.starts_with(root)).collect();
        for level in levels.into_iter().rev() {
            let control = level.join("cgroup.subtree_control");
            std::fs::write(&control, CONTROLLERS.map(|name| format!("+{name}")).join(" "))
                .map_err(say(&control))?;
        }
        Ok(Self { directory })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn create(&self, id: SandboxId, limits: Limits) -> io::Result<()> {
        let directory = self.directory.join(id.to_string());
        make_directory(&directory)?;
        if limits.memory_bytes > 0 {
            std::fs::write(directory.join("memory.max"), limits.memory_bytes.to_string())?;
            // Only there when the kernel counts swap.
            let swap = directory.join("memory.swap.max");
            if swap.exists() {
                std::fs::write(swap, "0")?;
            }
        }
        if limits.processes > 0 {
            std::fs::write(directory.join("pids.max"), limits.processes.to_string())?;
        }
        if limits.cpu_millis > 0 {
            std::fs::write(directory.join("cpu.max"), format!("{} {CPU_PERIOD_US}", limits.cpu_quota_us()))?;
        }
        Ok(())
    }

    pub(super) fn usage(&self, id: SandboxId) -> io::Result<Usage> {
        let directory = self.directory.join(id.to_string());
        let used = read_number(&directory.join("memory.current"))?;
        let reclaimable = read_field(&directory.join("memory.stat"), "inactive_file")?;
        let limit = std::fs::read_to_string(directory.join("memory.max"))?;
        Ok(Usage {
            cpu: Duration::from_micros(read_field(&directory.join("cpu.stat"), "usage_usec")?),
            memory_bytes: used.saturating_sub(reclaimable),
            // The text "max" is no limit.
            memory_limit_bytes: limit.trim().parse().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for a tree of the kernel's, which not every machine has with these controllers.
    fn tree(controllers: &str) -> (tempfile::TempDir, Result<Tree, String>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        let tree = Tree::within(root.path(), "stacyvm/test");
        (root, tree)
    }

    #[test]
    fn limits_are_written_in_the_form_of_version_2() {
        let (root, tree) = tree("cpuset cpu io memory pids\n");
        let (tree, id) = (tree.unwrap(), SandboxId::new());
        for level in ["", "stacyvm", "stacyvm/test"] {
            let control =
                std::fs::read_to_string(root.path().join(level).join("cgroup.subtree_control")).unwrap();
            assert_eq!(control, "+cpu +memory +pids");
        }
        tree.create(id, Limits { memory_bytes: 64 << 20, cpu_millis: 1500, processes: 33 }).unwrap();
        let group = root.path().join("stacyvm/test").join(id.to_string());
        for (file, content) in [("memory.max", "67108864"), ("cpu.max", "150000 100000"), ("pids.max", "33")]
        {
            assert_eq!(std::fs::read_to_string(group.join(file)).unwrap(), content);
        }
    }

    #[test]
    fn usage_is_read_in_the_form_of_version_2() {
        let (root, tree) = tree("cpu memory pids\n");
        let (tree, id) = (tree.unwrap(), SandboxId::new());
        let group = root.path().join("stacyvm/test").join(id.to_string());
        std::fs::create_dir(&group).unwrap();
        for (file, content) in [
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 10\ninactive_file 1000\nactive_file 2000\n"),
            ("memory.max", "max\n"),
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
        ] {
            std::fs::write(group.join(file), content).unwrap();
        }
        let usage = Usage { cpu: Duration::from_millis(1500), memory_bytes: 4000, memory_limit_bytes: 0 };
        assert_eq!(tree.usage(id).unwrap(), usage);
    }

    #[test]
    fn a_tree_without_the_controllers_is_not_used() {
        assert_eq!(tree("hugetlb\n").1.unwrap_err(), "no controller \"cpu\"");
    }
}
