use std::fs;
use std::time::Duration;

use agent::protocol::{Stats, StatsSource};

use super::{Agent, clock, processes};

pub fn collect(agent: &Agent) -> Stats {
    let processes = processes::all();
    let pages = |count: u64| count.saturating_mul(configuration(libc::_SC_PAGESIZE));
    let agent_pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    let usage = cgroup().unwrap_or_else(|| {
        let ticks: u64 = processes.iter().map(|process| process.cpu_ticks).sum();
        let resident = processes.iter().map(|process| process.rss_pages).sum();
        Usage {
            source: StatsSource::Proc,
            cpu_time: Duration::from_millis(ticks.saturating_mul(1000) / configuration(libc::_SC_CLK_TCK)),
            memory_bytes: pages(resident),
            memory_limit_bytes: None,
        }
    });
    Stats {
        source: usage.source,
        cpu_time: usage.cpu_time,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        processes: u32::try_from(processes.iter().filter(|process| !process.zombie).count())
            .unwrap_or(u32::MAX),
        agent_rss_bytes: pages(agent_pages),
        uptime: clock::since(agent.began),
        deadline_in: agent.deadline.remaining(),
    }
}

#[allow(unsafe_code)]
fn configuration(name: libc::c_int) -> u64 {
    // SAFETY: sysconf has no preconditions.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(1).max(1)
}

struct Usage {
    source: StatsSource,
    cpu_time: Duration,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
}

/// The sandbox's own cgroup, which a container engine shows at the usual place. Where the agent is not
/// PID 1 that place may show the whole machine's.
fn cgroup() -> Option<Usage> {
    if !rustix::process::getpid().is_init() {
        return None;
    }
    cgroup_v2().or_else(cgroup_v1)
}

fn cgroup_v2() -> Option<Usage> {
    let stat = fs::read_to_string("/sys/fs/cgroup/cpu.stat").ok()?;
    let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())?;
    Some(Usage {
        source: StatsSource::CgroupV2,
        cpu_time: Duration::from_micros(micros),
        memory_bytes: number("/sys/fs/cgroup/memory.current")?,
        memory_limit_bytes: number("/sys/fs/cgroup/memory.max"),
    })
}

fn cgroup_v1() -> Option<Usage> {
    // "No limit" is the largest number of whole pages.
    const NO_LIMIT: u64 = 1 << 60;
    Some(Usage {
        source: StatsSource::CgroupV1,
        cpu_time: Duration::from_nanos(number("/sys/fs/cgroup/cpuacct/cpuacct.usage")?),
        memory_bytes: number("/sys/fs/cgroup/memory/memory.usage_in_bytes")?,
        memory_limit_bytes: number("/sys/fs/cgroup/memory/memory.limit_in_bytes")
            .filter(|limit| *limit < NO_LIMIT),
    })
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
