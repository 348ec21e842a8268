//! Who may do what: roles, as one table over actions.

use super::action::{Action, Effect, Scope};

/// What a credential makes of whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Watches one exec, by a link.
    Viewer,
    /// Looks at all that a tenant has, and changes nothing (`read_only: true`).
    Reader,
    /// Does what a tenant can do.
    Member,
    /// The same for the tenant of its key; and reads the log of all tenants and the numbers of the deployment (`admin: true`).
    /// Everybody where authentication is off.
    DeploymentAdmin,
}

impl Role {
    /// Whether the role has this action at all. On which things is for [`super::authorize`] to say.
    pub const fn has(self, action: Action) -> bool {
        match self {
            Self::Viewer => matches!(
                action,
                Action::ExecRead | Action::ExecOutput | Action::ExecRecording | Action::ExecAttach
            ),
            Self::Reader => {
                matches!(action.effect(), Effect::Reads) && !matches!(action.scope(), Scope::Host)
            }
            Self::Member => !matches!(action.scope(), Scope::Host),
            Self::DeploymentAdmin => true,
        }
    }

    /// What somebody of this role is told when it does not have an action.
    pub const fn refusal(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer link is for watching one exec, and for nothing else",
            Self::Reader => "this key may only read",
            Self::Member | Self::DeploymentAdmin => FOR_THE_OPERATOR,
        }
    }
}

/// What is said of things that are not a tenant's.
pub const FOR_THE_OPERATOR: &str = "this is for the operator: a key with admin: true, or auth.admin_api_key";
