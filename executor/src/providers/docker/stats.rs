use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use events::SandboxId;
use futures::StreamExt;

use super::DockerProvider;
use super::errors::{Meaning, meaning};
use crate::provider::{BoxStats, StatsError};

/// Between the two samples of a rate. The engine's own way to two samples takes one to two seconds.
const INTERVAL: Duration = Duration::from_millis(100);

impl DockerProvider {
    pub(super) async fn box_stats(&self, id: SandboxId) -> Result<BoxStats, StatsError> {
        let engine = self.engine().await.map_err(|error| StatsError::Failed(Box::new(error)))?;
        let name = self.container_name(id);
        let (first, began) = (sample(engine, &name).await?, Instant::now());
        tokio::time::sleep(INTERVAL).await;
        let (second, elapsed) = (sample(engine, &name).await?, began.elapsed());
        let used = cpu_time(&second).saturating_sub(cpu_time(&first));
        let memory = second.memory_stats.unwrap_or_default();
        Ok(BoxStats {
            cpu_pct: used as f64 / elapsed.as_nanos() as f64 * 100.0,
            mem_bytes: memory.usage.unwrap_or_default().saturating_sub(reclaimable(&memory)),
            mem_limit_bytes: memory.limit.unwrap_or_default(),
        })
    }
}

async fn sample(engine: &Docker, name: &str) -> Result<ContainerStatsResponse, StatsError> {
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let stats = match engine.stats(name, Some(options)).next().await {
        Some(Ok(stats)) => stats,
        Some(Err(error)) if meaning(&error) == Meaning::NoSuchContainer => {
            return Err(StatsError::NotRunning);
        }
        Some(Err(error)) => return Err(StatsError::Failed(Box::new(error))),
        None => return Err(StatsError::Failed("the engine sent no stats".into())),
    };
    // Of a container that does not run the engine sends a form without numbers.
    match stats.memory_stats.as_ref().and_then(|memory| memory.usage) {
        Some(_) => Ok(stats),
        None => Err(StatsError::NotRunning),
    }
}

/// In nanoseconds.
fn cpu_time(stats: &ContainerStatsResponse) -> u64 {
    let usage = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref());
    usage.and_then(|usage| usage.total_usage).unwrap_or_default()
}

/// Page cache that nobody used lately: cgroup v1 says `total_inactive_file`, v2 `inactive_file`.
fn reclaimable(memory: &ContainerMemoryStats) -> u64 {
    let stats = memory.stats.as_ref();
    let read = |name| stats.and_then(|stats| stats.get(name)).copied();
    read("total_inactive_file").or_else(|| read("inactive_file")).unwrap_or_default()
}
