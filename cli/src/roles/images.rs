//! Which images may be used: the same for gateways, which refuse at once, and executors, which have them pulled.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use events::TenantId;
use policy::{ImageEntry, ImagePolicy, ImageRule, OtherImages};

use crate::config::Config;

/// The rules as configured.
pub fn image_policy(config: &Config) -> anyhow::Result<ImagePolicy> {
    let images = &config.images;
    let mut tenants: BTreeMap<TenantId, ImageRule> = BTreeMap::new();
    for entry in &images.tenants {
        let key = format!("images.tenants: {:?}", entry.tenant);
        let tenant = entry.tenant.parse().with_context(|| key.clone())?;
        let rule = rule(&entry.allow, &entry.others).with_context(|| key.clone())?;
        if tenants.insert(tenant, rule).is_some() {
            bail!("{key} is there twice");
        }
    }
    let deployment = rule(&images.allow, &images.others).context("images.allow and images.others")?;
    Ok(ImagePolicy { deployment, tenants })
}

fn rule(allow: &[String], others: &str) -> anyhow::Result<ImageRule> {
    let allow = allow.iter().map(|entry| entry.parse::<ImageEntry>()).collect::<Result<_, _>>()?;
    let others = match others {
        "public" => OtherImages::Public,
        "refused" => OtherImages::Refused,
        other => bail!("others: {other:?} is neither public nor refused"),
    };
    Ok(ImageRule { allow, others })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TenantImagesConfig;

    fn config(tenants: &[&str], allow: &str, others: &str) -> Config {
        let mut config = Config::default();
        config.images.tenants = tenants
            .iter()
            .map(|tenant| TenantImagesConfig {
                tenant: (*tenant).to_owned(),
                allow: vec![allow.to_owned()],
                others: others.to_owned(),
            })
            .collect();
        config
    }

    #[test]
    fn rules_are_read_and_wrong_ones_name_their_key() {
        let policy = image_policy(&config(&["red"], "r.example:5000/red/", "refused")).unwrap();
        assert_eq!(policy.deployment, ImageRule::default());
        assert_eq!(policy.tenants[&"red".parse().unwrap()].others, OtherImages::Refused);
        for wrong in [
            config(&["red", "red"], "python", "public"),
            config(&["a b"], "python", "public"),
            config(&["red"], "*", "public"),
            config(&["red"], "python", "maybe"),
        ] {
            let error = format!("{:#}", image_policy(&wrong).unwrap_err());
            assert!(error.starts_with("images.tenants: "), "{error}");
        }
    }
}
