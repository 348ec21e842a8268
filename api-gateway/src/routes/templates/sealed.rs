//! Environment variables of templates: in the log they are sealed, and opened where they are needed.

use std::collections::BTreeMap;

use events::{SealedVariable, SecretMap, Template, TenantId};
use secrets::MasterKey;

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::variables::{Variables, fingerprints};

const PURPOSE: &str = "template-env";

/// Seals variables for one template.
pub fn seal(
    key: &MasterKey,
    tenant: &TenantId,
    template: &str,
    variables: &Variables,
) -> std::io::Result<BTreeMap<String, SealedVariable>> {
    let mut hmacs = fingerprints(key, tenant, &variables.env);
    let seal = |(name, value): (&String, &String)| {
        let variable = SealedVariable {
            sealed: key.seal_text(PURPOSE, &context(tenant, template, name), value)?,
            hmac: hmacs.remove(name).unwrap_or_default(),
            secret: variables.secret_names.contains(name),
        };
        Ok((name.clone(), variable))
    };
    variables.env.0.iter().map(seal).collect()
}

/// All variables of a template.
pub fn open(gateway: &Gateway, tenant: &TenantId, template: &Template) -> Result<Variables, ApiError> {
    opened(&gateway.config().master_key, tenant, template).map_err(|name| {
        tracing::warn!(template.name, variable.name = name, "a variable was sealed under another master key");
        ApiError::conflict(format!(
            "the variable {name} of the template was sealed under another master key: save the template again"
        ))
    })
}

/// The variables that may be shown: those that are no secrets and that this gateway can open.
pub fn shown(gateway: &Gateway, tenant: &TenantId, template: &Template) -> BTreeMap<String, String> {
    let key = &gateway.config().master_key;
    let mut shown = template.env.clone();
    for (name, variable) in template.variables.iter().filter(|(_, variable)| !variable.secret) {
        match key.open_text(PURPOSE, &context(tenant, &template.name, name), &variable.sealed) {
            Ok(value) => {
                shown.insert(name.clone(), value);
            }
            Err(error) => {
                tracing::warn!(template.name, variable.name = name, error = %error, "a variable is not shown");
            }
        }
    }
    shown
}

/// The name of the variable that cannot be opened, otherwise.
fn opened(key: &MasterKey, tenant: &TenantId, template: &Template) -> Result<Variables, String> {
    let mut variables = Variables { env: SecretMap(template.env.clone()), secret_names: Vec::new() };
    for (name, variable) in &template.variables {
        let value = key
            .open_text(PURPOSE, &context(tenant, &template.name, name), &variable.sealed)
            .map_err(|_| name.clone())?;
        variables.env.0.insert(name.clone(), value);
        if variable.secret {
            variables.secret_names.push(name.clone());
        }
    }
    Ok(variables)
}

fn context(tenant: &TenantId, template: &str, name: &str) -> String {
    format!("{tenant}/{template}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(variables: BTreeMap<String, SealedVariable>) -> Template {
        let json = serde_json::json!({"name": "t", "image": "i", "env": {"OLD": "in clear"}});
        Template { variables, ..serde_json::from_value(json).unwrap() }
    }

    fn map(name: &str, value: &str) -> Option<BTreeMap<String, String>> {
        Some(BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn what_is_sealed_opens_for_its_own_template_only() {
        let key = MasterKey::from_bytes([1; 32]);
        let tenant: TenantId = "red".parse().unwrap();
        let variables = Variables::read(map("A", "plain"), map("B", "hunter2")).unwrap();
        let sealed = seal(&key, &tenant, "t", &variables).unwrap();
        let json = serde_json::to_string(&sealed).unwrap();
        assert!(!json.contains("plain") && !json.contains("hunter2"), "{json}");
        let mut all = opened(&key, &tenant, &template(sealed.clone())).unwrap();
        assert_eq!(all.env.0.remove("OLD").as_deref(), Some("in clear"));
        assert_eq!(all, variables);
        let mut other = template(sealed);
        assert!(opened(&key, &"blue".parse().unwrap(), &other).is_err());
        other.name = "u".to_owned();
        assert!(opened(&key, &tenant, &other).is_err());
    }
}
