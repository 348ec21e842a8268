use serde::{Deserialize, Serialize};

use crate::{
    Aggregate, Category, Event, EventData, Fields, Key, Template, TemplateEvent, TenantId, searchable,
};

/// What the log says about one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateState {
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// What it is.
    pub template: Template,
}

impl TemplateState {
    /// The key of a tenant's template.
    pub fn key_of(tenant: &TenantId, name: &str) -> Key {
        Key::of_name(tenant, &searchable(name))
    }
}

impl Aggregate for TemplateState {
    const KIND: &'static str = "template";
    const TAKES: &'static [Category] = &[Category::Template];

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::Template(said) = &event.data else { return None };
        let name = match said {
            TemplateEvent::Saved(saved) => &saved.template.name,
            TemplateEvent::Deleted(deleted) => &deleted.name,
        };
        Some(Self::key_of(&event.tenant, name))
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::Template(said) = &event.data else { return state };
        if state.is_some() && state.as_ref().map(Self::key) != Self::changed_by(event) {
            return state;
        }
        match said {
            TemplateEvent::Saved(saved) => {
                Some(Self { tenant: event.tenant.clone(), template: saved.template.clone() })
            }
            TemplateEvent::Deleted(_) => None,
        }
    }

    fn key(&self) -> Key {
        Self::key_of(&self.tenant, &self.template.name)
    }

    fn fields(&self) -> Fields {
        Fields::new(self.tenant.clone(), "saved")
    }
}
