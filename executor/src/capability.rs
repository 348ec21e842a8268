//! What providers can do: said once, asked of the registry's providers, and shown by the API.

use std::collections::BTreeSet;

/// What not every provider can do everywhere. A spec that asks for what its provider lacks is refused, and the refusal names it.
///
/// There is a word for what somebody can ask for, and no other: with the request for a new one comes its line here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Images are fetched when they are missing.
    ImagePull,
    /// A box may have a network.
    Network,
    /// The root file system can be read-only.
    ReadOnlyRoot,
    /// Memory, process and CPU limits take effect.
    Limits,
    /// What a box uses is counted.
    Stats,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ImagePull, Self::Network, Self::ReadOnlyRoot, Self::Limits, Self::Stats];

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ImagePull => "image_pull",
            Self::Network => "network",
            Self::ReadOnlyRoot => "read_only_root",
            Self::Limits => "limits",
            Self::Stats => "stats",
        }
    }
}

/// What a provider can do here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What keeps a box apart from the host: `container`, `namespaces`.
    pub isolation: &'static str,
    /// What it can do of what not all can.
    pub has: BTreeSet<Capability>,
    /// The runtimes that a spec may name, the default first.
    pub runtimes: Vec<String>,
}

impl Capabilities {
    /// Those of a provider that keeps boxes apart like this, and can do what is listed with `true`.
    pub fn new(isolation: &'static str, can: impl IntoIterator<Item = (Capability, bool)>) -> Self {
        let has = can.into_iter().filter(|(_, has)| *has).map(|(capability, _)| capability).collect();
        Self { isolation, has, runtimes: Vec::new() }
    }

    /// Whether it can do this.
    pub fn has(&self, capability: Capability) -> bool {
        self.has.contains(&capability)
    }

    /// The names of what it can do, as the API lists them.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![format!("isolation:{}", self.isolation), self.isolation.to_owned()];
        // What every provider of this server can do, by the names that older clients look for.
        let always = ["spawn", "exec", "exec_stream", "files", "console", "health", "runtime_inventory"];
        names.extend(always.map(str::to_owned));
        names.extend(self.has.iter().map(|capability| capability.name().to_owned()));
        names.extend(self.runtimes.iter().map(|runtime| format!("runtime:{runtime}")));
        names
    }
}
