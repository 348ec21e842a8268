//! What Linux says of the machine, as text; read apart, so that tests can say it too.

use std::io;
use std::time::Duration;

use api_types::HostStats;

/// Counters that only grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counters {
    busy: u64,
    total: u64,
    received: u64,
    sent: u64,
}

impl Counters {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path);
        Self::parse(&read("/proc/stat")?, &read("/proc/net/dev")?).ok_or_else(unreadable)
    }

    fn parse(stat: &str, net: &str) -> Option<Self> {
        let cpu = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = cpu.split_whitespace().map_while(|tick| tick.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
        let total: u64 = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        let (mut received, mut sent) = (0, 0);
        for (name, numbers) in net.lines().filter_map(|line| line.split_once(':')) {
            let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
            if name.trim() != "lo" {
                received += numbers.next().unwrap_or(0);
                sent += numbers.nth(7).unwrap_or(0);
            }
        }
        Some(Self { busy: total.saturating_sub(idle), total, received, sent })
    }
}

/// What lies between two looks, and what is now.
pub fn between(before: Counters, after: Counters, apart: Duration) -> io::Result<HostStats> {
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / apart.as_secs_f64().max(0.001);
    let disk = rustix::fs::statvfs("/")?;
    Ok(HostStats {
        cpu_pct: share(after.busy.saturating_sub(before.busy), after.total.saturating_sub(before.total)),
        mem_pct: memory(&std::fs::read_to_string("/proc/meminfo")?).ok_or_else(unreadable)?,
        // As `df` counts: what only root may use is neither used nor available.
        disk_pct: share(disk.f_blocks - disk.f_bfree, disk.f_blocks - disk.f_bfree + disk.f_bavail),
        net_rx_bps: rate(before.received, after.received),
        net_tx_bps: rate(before.sent, after.sent),
        load1: load(&std::fs::read_to_string("/proc/loadavg")?).ok_or_else(unreadable)?,
    })
}

fn memory(meminfo: &str) -> Option<f64> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (total, available) = (of("MemTotal:")?, of("MemAvailable:")?);
    (total > 0.0).then(|| (total - available) / total * 100.0)
}

fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().next()?.parse().ok()
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc is not as Linux writes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n\
        eth0: 100 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0\n";

    #[test]
    fn the_texts_of_linux_are_read() {
        let counters = Counters::parse("cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1 1 1 1\n", NET).unwrap();
        assert_eq!(counters, Counters { busy: 30, total: 100, received: 100, sent: 40 });
        assert_eq!(memory("MemTotal:  200 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\n"), Some(75.0));
        assert_eq!(load("0.52 0.58 0.59 1/467 12345\n"), Some(0.52));
        assert_eq!(Counters::parse("", NET), None);
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB"), None);
    }

    #[test]
    fn rates_are_of_what_lies_between() {
        let before = Counters { busy: 10, total: 100, received: 1000, sent: 0 };
        let after = Counters { busy: 60, total: 200, received: 2000, sent: 500 };
        let stats = between(before, after, Duration::from_millis(500)).unwrap();
        assert_eq!((stats.cpu_pct, stats.net_rx_bps, stats.net_tx_bps), (50.0, 2000.0, 1000.0));
        assert!(
            (0.0..=100.0).contains(&stats.disk_pct) && (0.0..=100.0).contains(&stats.mem_pct),
            "{stats:?}"
        );
    }
}
