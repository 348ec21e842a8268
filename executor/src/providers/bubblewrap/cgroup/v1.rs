use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::SandboxId;

use super::{CPU_PERIOD_US, Limits, Usage, make_directory, mount, read_field, read_number};

/// The directory of all boxes under each controller. Two may be the same.
#[derive(Debug)]
pub(crate) struct Trees {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    cpuacct: PathBuf,
}

impl Trees {
    pub(super) fn find(mounts: &str, parent: &str) -> Result<Self, String> {
        let tree = |controller: &str| {
            let point = mounts.lines().filter_map(mount).find_map(|(point, kind, options)| {
                (kind == "cgroup" && options.split(',').any(|option| option == controller)).then_some(point)
            });
            let directory = point.ok_or_else(|| format!("no controller {controller:?}"))?.join(parent);
            std::fs::create_dir_all(&directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
            Ok::<_, String>(directory)
        };
        Ok(Self {
            memory: tree("memory")?,
            pids: tree("pids")?,
            cpu: tree("cpu")?,
            cpuacct: tree("cpuacct")?,
        })
    }

    pub(super) fn named(&self) -> [(&'static str, &Path); 4] {
        [("memory", &self.memory), ("pids", &self.pids), ("cpu", &self.cpu), ("cpuacct", &self.cpuacct)]
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        // Sorted out here and not at every use: the same directory twice would be entered twice.
        let mut all = vec![&*self.memory, &*self.pids, &*self.cpu];
        if self.cpuacct != self.cpu {
            all.push(&self.cpuacct);
        }
        all.into_iter()
    }

    pub(super) fn create(&self, id: SandboxId, limits: Limits) -> io::Result<()> {
        let id = id.to_string();
        for directory in self.directories() {
            make_directory(&directory.join(&id))?;
        }
        if limits.memory_bytes > 0 {
            let memory = self.memory.join(&id);
            let bytes = limits.memory_bytes.to_string();
            std::fs::write(memory.join("memory.limit_in_bytes"), &bytes)?;
            // Only there when the kernel counts swap.
            match std::fs::write(memory.join("memory.memsw.limit_in_bytes"), &bytes) {
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
                {
                    return Err(error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        if limits.processes > 0 {
            std::fs::write(self.pids.join(&id).join("pids.max"), limits.processes.to_string())?;
        }
        if limits.cpu_millis > 0 {
            let cpu = self.cpu.join(&id);
            std::fs::write(cpu.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            std::fs::write(cpu.join("cpu.cfs_quota_us"), limits.cpu_quota_us().to_string())?;
        }
        Ok(())
    }

    pub(super) fn usage(&self, id: SandboxId) -> io::Result<Usage> {
        let memory = self.memory.join(id.to_string());
        let used = read_number(&memory.join("memory.usage_in_bytes"))?;
        let reclaimable = read_field(&memory.join("memory.stat"), "total_inactive_file")?;
        let limit = read_number(&memory.join("memory.limit_in_bytes"))?;
        Ok(Usage {
            cpu: Duration::from_nanos(read_number(&self.cpuacct.join(id.to_string()).join("cpuacct.usage"))?),
            memory_bytes: used.saturating_sub(reclaimable),
            // No limit shows as the greatest number of whole pages.
            memory_limit_bytes: if limit > i64::MAX as u64 / 2 { 0 } else { limit },
        })
    }
}
