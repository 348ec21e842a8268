//! From a spawn request to what a sandbox shall be: defaults, template, maxima. Pure, so that admission can ask too.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::SpawnRequest;
use events::{CapabilitySet, Network, PoolName, ProviderName, SandboxSpec, SecretMap, Template, TenantId};
use policy::ImageName;
use spelling::{format_go_duration, parse_go_duration};

use crate::auth::user_id;
use crate::config::SandboxLimits;
use crate::error::ApiError;
use crate::exec::request::check_message;
use crate::variables::Variables;

/// The most labels, and the longest name and value of one, in bytes.
pub(crate) const MAX_LABELS: usize = 64;
pub(crate) const MAX_LABEL_NAME: usize = 128;
pub(crate) const MAX_LABEL_VALUE: usize = 4096;
/// The longest image name, in bytes.
pub(crate) const MAX_IMAGE: usize = 512;
/// The longest name of a provider and of a runtime, in characters.
pub(crate) const MAX_PROVIDER: usize = 32;
pub(crate) const MAX_RUNTIME: usize = 64;
/// The fewest processes and threads that an agent and a command need.
pub(crate) const MIN_PIDS: u32 = 16;
/// Below this, a container cannot start its own agent.
pub(crate) const MIN_MEMORY_MIB: u32 = 8;

/// A spawn that can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it shall be.
    pub spec: SandboxSpec,
    /// With which secrets.
    pub env: SecretMap,
    /// How long it shall live. Not checked against the maximum.
    pub ttl: Duration,
}

/// Why a request cannot be planned.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A field is wrong.
    #[error("{0}")]
    Field(String),
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        Self::bad_request(error.to_string())
    }
}

fn wrong(message: impl Into<String>) -> PlanError {
    PlanError::Field(message.into())
}

/// What the request asks for, over what its template says, over what the server says.
pub fn plan(
    request: SpawnRequest,
    template: Option<(Template, Variables)>,
    user: Option<&str>,
    limits: &SandboxLimits,
) -> Result<Plan, ApiError> {
    let (template, under) = template.unwrap_or_default();
    let owner = match user {
        Some(user) => Some(user.to_owned()),
        None => user_id(request.owner_id.as_deref().unwrap_or_default(), "owner_id")?,
    };
    let mut metadata = template.metadata;
    metadata.extend(request.metadata.unwrap_or_default());
    let variables = Variables::read(request.env.map(|env| env.0), request.secrets.map(|secrets| secrets.0))?
        .over(under)?;
    check_message(&(&metadata, &variables.env))?;
    let ttl = match filled(request.ttl) {
        Some(text) => ttl(&text)?,
        None => template.ttl_seconds.map_or(limits.default_ttl, Duration::from_secs),
    };
    let spec = SandboxSpec {
        provider: provider(filled(request.provider).or(template.provider), limits)?,
        pool: pool(filled(request.pool))?,
        image: image(filled(Some(template.image)).or(filled(request.image)), limits)?,
        memory_mib: within(
            "memory_mb",
            request.memory_mb.filter(|mib| *mib > 0).or(template.memory_mib),
            limits.default_memory_mib,
            MIN_MEMORY_MIB..=limits.max_memory_mib,
        )?,
        cpu_millis: within(
            "vcpus (in thousandths)",
            cpu_millis(request.vcpus.or(request.cpu_cores))?
                .or(template.vcpus.map(|cpus| cpus.saturating_mul(1000))),
            limits.default_cpu_millis,
            10..=limits.max_cpu_millis,
        )?,
        pids_limit: within(
            "pids_limit",
            request.pids_limit.filter(|pids| *pids > 0),
            limits.default_pids,
            MIN_PIDS..=limits.max_pids,
        )?,
        network: chosen_network(
            request.network.as_deref(),
            template.network,
            &template.allowed_hosts,
            limits,
        )?,
        read_only_root: request.read_only_root.unwrap_or(false),
        capabilities: chosen_capabilities(
            request.capabilities.as_deref(),
            template.capabilities,
            limits.capabilities,
        )?,
        runtime: runtime(filled(request.runtime))?,
        owner,
        template: filled(Some(template.name)),
        metadata: labels(metadata)?,
        env_names: variables.env.names(),
        // With the tenant it is known what to fill in.
        env_hmac: BTreeMap::new(),
        secret_names: variables.secret_names,
        request_digest: None,
        job: None,
        setup: template.setup,
    };
    Ok(Plan { spec, env: variables.env, ttl })
}

/// Reads a time to live. It must be more than nothing; the maximum is the caller's business.
pub fn ttl(text: &str) -> Result<Duration, PlanError> {
    match parse_go_duration(text) {
        Ok(ttl) if ttl.is_zero() => Err(wrong("ttl must be more than 0s")),
        Ok(ttl) => Ok(ttl),
        Err(error) => Err(wrong(format!("ttl: {error}"))),
    }
}

/// Refuses a time to live that is over the maximum.
pub fn check_ttl(ttl: Duration, limits: &SandboxLimits) -> Result<(), PlanError> {
    if ttl > limits.max_ttl {
        return Err(wrong(format!("ttl is over the maximum of {}", format_go_duration(limits.max_ttl))));
    }
    Ok(())
}

/// Empty means absent.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn provider(name: Option<String>, limits: &SandboxLimits) -> Result<ProviderName, ApiError> {
    match name {
        None => Ok(limits.default_provider.clone()),
        // What cannot be a provider's name is the name of none.
        Some(name) => name.parse().map_err(|_| no_provider(&name)),
    }
}

/// Nothing where it is the one that is called as the provider.
fn pool(name: Option<String>) -> Result<Option<PoolName>, PlanError> {
    name.map(|name| name.parse().map_err(|error| wrong(format!("pool: {error}")))).transpose()
}

/// There is no such provider.
pub fn no_provider(name: &str) -> ApiError {
    ApiError::absent("provider", name)
}

fn image(image: Option<String>, limits: &SandboxLimits) -> Result<String, PlanError> {
    let image = image.unwrap_or_else(|| limits.default_image.clone());
    match image.parse::<ImageName>() {
        Ok(_) => Ok(image),
        Err(error) => Err(wrong(format!("image {image:?} {error}"))),
    }
}

/// Refuses an image that the tenant may not use, as far as its name tells.
pub fn check_image(tenant: &TenantId, image: &str, limits: &SandboxLimits) -> Result<(), PlanError> {
    let judged = match image.parse::<ImageName>() {
        Ok(name) => limits.images.judge(tenant, &name).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    judged.map(drop).map_err(|why| wrong(format!("image {image:?} {why}")))
}

fn cpu_millis(cpus: Option<f64>) -> Result<Option<u32>, PlanError> {
    match cpus {
        None => Ok(None),
        Some(0.0) => Ok(None),
        // Cast after the check: at most a million CPUs.
        Some(cpus) if cpus > 0.0 && cpus <= 1e6 => Ok(Some((cpus * 1000.0).round() as u32)),
        Some(_) => Err(wrong("vcpus must be a number above 0")),
    }
}

fn within(
    name: &str,
    value: Option<u32>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, PlanError> {
    match value {
        None => Ok(default),
        Some(value) if range.contains(&value) => Ok(value),
        Some(_) => Err(wrong(format!("{name} must be {} to {}", range.start(), range.end()))),
    }
}

/// The network that a text names; `None` for none.
pub fn network(name: Option<&str>) -> Result<Option<Network>, PlanError> {
    match name {
        None | Some("") => Ok(None),
        Some("none") => Ok(Some(Network::None)),
        Some("bridge") => Ok(Some(Network::Bridge)),
        Some(_) => Err(wrong("network must be none or bridge")),
    }
}

/// The set that a text names; `None` for none.
pub fn capabilities(name: Option<&str>) -> Result<Option<CapabilitySet>, PlanError> {
    match name {
        None | Some("") => Ok(None),
        Some("standard") => Ok(Some(CapabilitySet::Standard)),
        Some("minimal") => Ok(Some(CapabilitySet::Minimal)),
        Some(_) => Err(wrong("capabilities must be standard or minimal")),
    }
}

/// The usual set is not written down.
fn chosen_capabilities(
    asked: Option<&str>,
    template: Option<CapabilitySet>,
    most: CapabilitySet,
) -> Result<Option<CapabilitySet>, PlanError> {
    match (capabilities(asked)?.or(template), most) {
        (None | Some(CapabilitySet::Standard), CapabilitySet::Standard) => Ok(None),
        (None | Some(CapabilitySet::Minimal), CapabilitySet::Minimal)
        | (Some(CapabilitySet::Minimal), CapabilitySet::Standard) => Ok(Some(CapabilitySet::Minimal)),
        (Some(CapabilitySet::Standard), CapabilitySet::Minimal) => {
            Err(wrong("capabilities standard are not allowed on this server"))
        }
    }
}

fn chosen_network(
    asked: Option<&str>,
    template: Option<Network>,
    allowed_hosts: &[String],
    limits: &SandboxLimits,
) -> Result<Network, PlanError> {
    // Who names hosts means no others, and nothing here could hold a bridge to that.
    let default = if allowed_hosts.is_empty() { limits.default_network } else { Network::None };
    match network(asked)?.or(template).unwrap_or(default) {
        Network::None => Ok(Network::None),
        Network::Bridge if !allowed_hosts.is_empty() => Err(wrong(
            "allowed_hosts cannot be enforced on network bridge: leave it out, or take network none",
        )),
        Network::Bridge if limits.allow_bridge_network => Ok(Network::Bridge),
        Network::Bridge => Err(wrong("network bridge is not allowed on this server")),
    }
}

fn runtime(name: Option<String>) -> Result<Option<String>, PlanError> {
    let good = |name: &String| {
        name.len() <= MAX_RUNTIME
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match name {
        Some(name) if !good(&name) => {
            Err(wrong("runtime must be at most 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'"))
        }
        other => Ok(other),
    }
}

/// Checks labels.
pub fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, PlanError> {
    let good = |(name, value): (&String, &String)| {
        !name.is_empty()
            && name.len() <= MAX_LABEL_NAME
            && value.len() <= MAX_LABEL_VALUE
            && !name.contains('\0')
            && !value.contains('\0')
    };
    if labels.len() > MAX_LABELS || !labels.iter().all(good) {
        return Err(wrong(format!(
            "metadata must be at most {MAX_LABELS} entries, with names of 1 to {MAX_LABEL_NAME} bytes and values of at most {MAX_LABEL_VALUE} bytes, without NUL"
        )));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn planned(json: &str) -> Result<Plan, ApiError> {
        plan(crate::extract::parse_object(json.as_bytes())?, None, None, &SandboxLimits::default())
    }

    fn template() -> (Template, Variables) {
        let template = Template {
            name: "py".to_owned(),
            image: "python:3.12".to_owned(),
            provider: Some("bubblewrap".to_owned()),
            memory_mib: Some(300),
            vcpus: Some(2),
            ttl_seconds: Some(1200),
            metadata: BTreeMap::from([("a".to_owned(), "t".to_owned()), ("b".to_owned(), "t".to_owned())]),
            ..Template::default()
        };
        let env = BTreeMap::from([("A".to_owned(), "t".to_owned()), ("B".to_owned(), "t".to_owned())]);
        (template, Variables::read(Some(env), None).unwrap())
    }

    #[test]
    fn nothing_asked_for_is_the_defaults() {
        for json in [
            "{}",
            r#"{"image":"","provider":"","memory_mb":0,"vcpus":0,"ttl":"","owner_id":"","metadata":{}}"#,
            r#"{"image":null,"metadata":null,"ttl":null,"env":null}"#,
        ] {
            let plan = planned(json).unwrap();
            assert_eq!((plan.spec.image.as_str(), plan.spec.provider.as_str()), ("alpine:latest", "docker"));
            assert_eq!((plan.spec.memory_mib, plan.spec.cpu_millis, plan.spec.pids_limit), (512, 1000, 256));
            assert_eq!(plan.ttl, Duration::from_secs(1800));
        }
    }

    #[test]
    fn the_request_wins_over_the_template_but_for_the_image() {
        let request = crate::extract::parse_object(
            br#"{"image":"alpine:latest","memory_mb":280,"metadata":{"a":"r"},"env":{"A":"r"},"ttl":"5m"}"#,
        )
        .unwrap();
        let plan = plan(request, Some(template()), None, &SandboxLimits::default()).unwrap();
        assert_eq!((plan.spec.image.as_str(), plan.spec.provider.as_str()), ("python:3.12", "bubblewrap"));
        assert_eq!((plan.spec.memory_mib, plan.spec.cpu_millis), (280, 2000));
        assert_eq!((&plan.spec.metadata["a"][..], &plan.spec.metadata["b"][..]), ("r", "t"));
        assert_eq!((&plan.env.0["A"][..], &plan.env.0["B"][..]), ("r", "t"));
        assert_eq!((plan.ttl, plan.spec.template.as_deref()), (Duration::from_secs(300), Some("py")));
    }

    #[test]
    fn the_header_wins_over_the_body_as_owner() {
        let request = || crate::extract::parse_object(br#"{"owner_id":"bob"}"#).unwrap();
        let owner = |user| plan(request(), None, user, &SandboxLimits::default()).unwrap().spec.owner;
        assert_eq!(owner(Some("alice")).as_deref(), Some("alice"));
        assert_eq!(owner(None).as_deref(), Some("bob"));
    }

    #[test]
    fn names_of_variables_are_kept_and_values_are_not_shown() {
        let plan = planned(r#"{"env":{"TOKEN":"hunter2"}}"#).unwrap();
        assert_eq!(plan.spec.env_names, ["TOKEN"]);
        assert!(!format!("{plan:?}").contains("hunter2"));
    }

    #[test]
    fn wrong_fields_are_bad_requests() {
        for json in [
            r#"{"image":5}"#,
            r#"{"image":"a b"}"#,
            r#"{"image":"-v"}"#,
            r#"{"memory_mb":"512"}"#,
            r#"{"memory_mb":-1}"#,
            r#"{"memory_mb":1.5}"#,
            r#"{"memory_mb":1000000000000000000000000000000}"#,
            r#"{"memory_mb":100000}"#,
            r#"{"memory_mb":1}"#,
            r#"{"vcpus":"two"}"#,
            r#"{"vcpus":-2}"#,
            r#"{"vcpus":1e300}"#,
            r#"{"ttl":5}"#,
            r#"{"ttl":"soon"}"#,
            r#"{"ttl":"1d"}"#,
            r#"{"ttl":"-5m"}"#,
            r#"{"ttl":"0s"}"#,
            r#"{"metadata":[]}"#,
            r#"{"metadata":{"a":1}}"#,
            r#"{"metadata":{"":"x"}}"#,
            r#"{"owner_id":5}"#,
            r#"{"owner_id":"a/b"}"#,
            r#"{"template":true}"#,
            r#"{"provider":{}}"#,
            r#"{"network":"host"}"#,
            r#"{"capabilities":"all"}"#,
            r#"{"runtime":"a b"}"#,
            r#"{"pids_limit":1}"#,
            r#"{"pool":"a b"}"#,
            r#"{"pool":5}"#,
            r#"{"env":{"A=B":"c"}}"#,
        ] {
            assert_eq!(planned(json).unwrap_err().code(), ErrorCode::BadRequest, "{json}");
        }
        let spec = |json| planned(json).unwrap().spec;
        assert_eq!(spec(r#"{"pool":""}"#).pool().as_str(), "docker");
        let fast = spec(r#"{"pool":"fast","provider":"bubblewrap"}"#);
        assert_eq!((fast.provider.as_str(), fast.pool().as_str()), ("bubblewrap", "fast"));
        assert_eq!(planned(r#"{"provider":"no such"}"#).unwrap_err().code(), ErrorCode::NotFound);
    }

    #[test]
    fn capabilities_can_be_given_up_and_not_gained() {
        let (standard, minimal) = (CapabilitySet::Standard, CapabilitySet::Minimal);
        for (asked, template, most, chosen) in [
            (None, None, standard, Some(None)),
            (Some("standard"), Some(minimal), standard, Some(None)),
            (Some("minimal"), None, standard, Some(Some(minimal))),
            (Some(""), Some(minimal), standard, Some(Some(minimal))),
            (None, None, minimal, Some(Some(minimal))),
            (Some("minimal"), None, minimal, Some(Some(minimal))),
            (Some("standard"), None, minimal, None),
            (None, Some(standard), minimal, None),
        ] {
            let outcome = chosen_capabilities(asked, template, most);
            assert_eq!(outcome.ok(), chosen, "{asked:?} {template:?} {most:?}");
        }
    }

    #[test]
    fn the_network_is_that_of_the_request_then_the_templates_then_the_servers() {
        let chosen = |asked, template, default| {
            let limits = SandboxLimits { default_network: default, ..SandboxLimits::default() };
            chosen_network(asked, template, &[], &limits).unwrap()
        };
        let (none, bridge) = (Network::None, Network::Bridge);
        assert_eq!(chosen(None, None, none), none);
        assert_eq!(chosen(None, None, bridge), bridge);
        assert_eq!(chosen(Some(""), Some(none), bridge), none);
        assert_eq!(chosen(Some("bridge"), Some(none), none), bridge);
        assert_eq!(chosen(Some("none"), Some(bridge), bridge), none);
        let closed = SandboxLimits { allow_bridge_network: false, ..SandboxLimits::default() };
        assert!(chosen_network(None, Some(bridge), &[], &closed).is_err());
    }

    #[test]
    fn hosts_that_nothing_could_hold_a_bridge_to_get_no_bridge() {
        let limits = SandboxLimits { default_network: Network::Bridge, ..SandboxLimits::default() };
        let hosts = ["mirror.example".to_owned()];
        assert_eq!(chosen_network(None, None, &hosts, &limits).unwrap(), Network::None);
        assert!(chosen_network(Some("bridge"), None, &hosts, &limits).is_err());
        assert!(chosen_network(None, Some(Network::Bridge), &hosts, &limits).is_err());
    }

    #[test]
    fn a_ttl_over_the_maximum_is_refused() {
        let limits = SandboxLimits::default();
        assert!(check_ttl(limits.max_ttl, &limits).is_ok());
        let error = check_ttl(limits.max_ttl + Duration::from_nanos(1), &limits).unwrap_err();
        assert!(error.to_string().contains("24h0m0s"), "{error}");
    }
}
