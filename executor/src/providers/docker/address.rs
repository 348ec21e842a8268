use std::collections::HashMap;
use std::net::IpAddr;

use bollard::Docker;
use bollard::models::EndpointSettings;
use bollard::query_parameters::InspectContainerOptions;
use events::{Network, SandboxId};

use super::DockerProvider;

impl DockerProvider {
    /// The address of a box that runs. One that cannot be asked for is not worth a sandbox that works.
    pub(super) async fn address(&self, engine: &Docker, id: SandboxId, network: Network) -> Option<IpAddr> {
        match network {
            Network::None => None,
            Network::Bridge => {
                let name = self.container_name(id);
                let found = engine.inspect_container(&name, None::<InspectContainerOptions>).await;
                let found = found
                    .inspect_err(
                        |error| tracing::warn!(sandbox.id = %id, error = %error, "its address is not known"),
                    )
                    .ok()?;
                address_on_bridge(found.network_settings?.networks.as_ref()?)
            }
        }
    }
}

/// The one address of a box; without a network the engine says an empty one.
pub(super) fn address_on_bridge(networks: &HashMap<String, EndpointSettings>) -> Option<IpAddr> {
    networks.values().find_map(|network| network.ip_address.as_deref()?.parse().ok())
}
