use std::collections::{HashMap, HashSet};

use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use events::SandboxId;

use super::DockerProvider;
use super::address::address_on_bridge;
use super::body::{SANDBOX_LABEL, own_labels};
use crate::provider::{BoxHandle, ListError};

impl DockerProvider {
    pub(super) async fn list_boxes(&self) -> Result<Vec<BoxHandle>, ListError> {
        // What a former process left half removed.
        self.trash.go_on();
        // The directories first: a box that comes up meanwhile is then in the engine's list, not among the remains.
        let directories = self.run_dirs().map_err(|error| ListError(Box::new(error)))?;
        let mut boxes = self.containers().await.map_err(|error| ListError(Box::new(error)))?;
        boxes.retain(|found| !self.is_set_aside(found.id));
        let known: HashSet<_> = boxes.iter().map(|found| found.id).collect();
        let remains = directories.into_iter().filter(|id| !known.contains(id));
        boxes.extend(remains.map(|id| self.handle(id, self.container_name(id), false)));
        Ok(boxes)
    }

    async fn containers(&self) -> Result<Vec<BoxHandle>, bollard::errors::Error> {
        let labels: Vec<_> =
            own_labels(&self.config).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label".to_owned(), labels)]))
            .build();
        let found = self.engine().await?.list_containers(Some(options)).await?;
        Ok(found
            .into_iter()
            .filter_map(|container| {
                let id: SandboxId = container.labels?.get(SANDBOX_LABEL)?.parse().ok()?;
                let running = container.state == Some(ContainerSummaryStateEnum::RUNNING);
                let networks = container.network_settings.and_then(|settings| settings.networks);
                let address = networks.as_ref().and_then(address_on_bridge);
                Some(BoxHandle { address, ..self.handle(id, container.id?, running) })
            })
            .collect())
    }

    /// What boxes that ended by themselves leave behind: the engine removed the container, nobody the directory.
    fn run_dirs(&self) -> std::io::Result<Vec<SandboxId>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.config.data_dir)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<SandboxId>().ok()));
        }
        Ok(ids)
    }
}
