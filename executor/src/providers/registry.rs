//! The kinds of providers that there are. A new one is a module beside the others and one line at [`kinds!`].

use std::path::PathBuf;
use std::sync::Arc;

use events::{NodeId, PoolName};
use policy::ImagePolicy;
use serde::{Deserialize, Serialize};

use super::{bubblewrap, docker};
use crate::provider::{Provider, Source};

/// What a provider is given, whatever kind it is of: the rest is in settings of its own.
#[derive(Debug, Clone)]
pub struct Site {
    /// This node: boxes of other nodes on the same engine are left alone.
    pub node: NodeId,
    /// Keeps several installations on one machine apart.
    pub deployment: String,
    /// A directory of the provider's own.
    pub data_dir: PathBuf,
    /// The agent, a static executable.
    pub agent_path: PathBuf,
    /// Which images may be used, by whom.
    pub images: ImagePolicy,
}

/// One kind of provider as it is configured: the section `providers.NAME`.
///
/// # Obligations
///
/// The default is what holds where the configuration says nothing, and every key is in it: what is not there is refused as unknown.
pub trait Settings: std::fmt::Debug + Send + Sync {
    /// Whether it is on; nothing where that is found out by [`is_here`](Self::is_here).
    fn enabled(&self) -> Option<bool>;

    /// The pool that it serves on this node; nothing where that is called as the kind.
    fn pool(&self) -> Option<&PoolName>;

    /// Whether this machine has what it takes. Quick, and asks nobody.
    fn is_here(&self) -> bool;

    /// Makes one. Its runtime need not be up yet.
    fn make(&self, site: Site) -> Result<Arc<dyn Provider>, SetupError>;

    /// What is wrong with the values, whether it is on or not.
    fn check(&self) -> Result<(), SetupError> {
        Ok(())
    }
}

/// Why a provider cannot be made as configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A key has a value that makes no sense.
    #[error("{key}: {reason}")]
    Setting {
        /// The key, below the section of its kind.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else does not work.
    #[error("it cannot be used")]
    Failed(#[source] Source),
}

impl SetupError {
    /// A value of this key makes no sense.
    pub fn of(key: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Setting { key, reason: reason.to_string() }
    }
}

macro_rules! kinds {
    ($dollar:tt $($name:ident: $settings:ty),+ $(,)?) => {
        /// Gives the names of all kinds to a macro. Whoever must have something for each kind cannot forget one: the suite of what
        /// every provider owes is made with it.
        #[macro_export]
        macro_rules! each_provider_kind {
            ($dollar with:ident) => {
                $dollar with! { $($name)+ }
            };
        }

        /// The section `providers` of the configuration.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Configured {
            /// The provider of sandboxes that name none; the first that works when not given.
            pub default: Option<String>,
            $(
                #[doc = concat!("The section `", stringify!($name), "`.")]
                pub $name: $settings,
            )+
        }

        /// The names of all kinds, the preferred first.
        pub const KINDS: &[&str] = &[$(stringify!($name)),+];

        impl Configured {
            /// The settings of each kind with its name, the preferred first.
            pub fn all(&self) -> Vec<(&'static str, &dyn Settings)> {
                vec![$((stringify!($name), &self.$name as &dyn Settings)),+]
            }
        }
    };
}

kinds! {
    $
    docker: docker::Settings,
    bubblewrap: bubblewrap::Settings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_a_section_of_its_name_and_a_name_of_a_provider() {
        let configured = Configured::default();
        let sections = serde_json::to_value(&configured).unwrap();
        let named: Vec<_> = configured.all().iter().map(|(name, _)| *name).collect();
        assert_eq!(named, KINDS);
        for (name, settings) in configured.all() {
            name.parse::<events::ProviderName>().unwrap();
            assert!(sections[name].is_object(), "{name}");
            settings.check().unwrap();
        }
        macro_rules! names {
            ($($name:ident)+) => { [$(stringify!($name)),+] };
        }
        assert_eq!(each_provider_kind!(names), *KINDS);
        // And nothing else is.
        assert_eq!(sections.as_object().unwrap().len(), KINDS.len() + 1);
    }
}
