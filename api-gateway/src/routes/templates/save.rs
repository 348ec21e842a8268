//! `POST /templates`

use std::collections::BTreeMap;

use api_types::{SpawnRequest, Template, TemplateRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{EventId, TemplateSaved};
use feed::{After, Topic};

use super::{recorded, sealed, shown};
use crate::auth::Caller;
use crate::config::SandboxLimits;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JsonBody;
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::{capabilities, check_ttl, network, plan, ttl};
use crate::variables::Variables;

/// The longest name, in characters, and the longest description, in bytes.
pub(crate) const MAX_NAME: usize = 64;
pub(crate) const MAX_DESCRIPTION: usize = 1024;
/// The most commands of `setup`, and how long they may be together, in bytes.
pub(crate) const MAX_SETUP: usize = 64;
const MAX_SETUP_BYTES: usize = 64 << 10;
/// The most allowed hosts, and the longest, in bytes: that of a name in DNS, with a port.
pub(crate) const MAX_HOSTS: usize = 256;
pub(crate) const MAX_HOST_BYTES: usize = 260;

/// Makes a template, or replaces the one with this name.
#[utoipa::path(
    post,
    path = "/templates",
    tag = "templates",
    request_body = TemplateRequest,
    responses(
        (status = 201, description = "The template", body = Template),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "No such provider", body = ErrorBody),
    )
)]
pub(crate) async fn save(
    State(gateway): State<Gateway>,
    caller: Caller,
    JsonBody(request): JsonBody<TemplateRequest>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    let (template, _) = put(&gateway, &caller, request).await?;
    Ok((StatusCode::CREATED, Json(template)))
}

/// Saves a template. True: there was none with its name.
pub(super) async fn put(
    gateway: &Gateway,
    caller: &Caller,
    request: TemplateRequest,
) -> Result<(Template, bool), ApiError> {
    let (mut template, variables) = checked(request, &gateway.config().sandboxes)?;
    let before = gateway.store().templates(&caller.tenant).await.map_err(ApiError::store)?;
    let before = before.into_iter().find(|before| before.name == template.name);
    let now = gateway.clock().now();
    template.updated_at = Some(now);
    // Of one from before they were kept it is not known.
    template.created_at = before.as_ref().map_or(Some(now), |before| before.created_at);
    template.variables =
        sealed::seal(&gateway.config().master_key, &caller.tenant, &template.name, &variables)
            .map_err(ApiError::internal)?;
    let redaction = gateway.redaction().with_secrets(variables.secrets());
    let texts = template.metadata.values_mut().chain(&mut template.setup);
    texts.for_each(|text| redaction.text(text));
    redaction.text(&mut template.description);
    let id = EventId::new();
    let reader = gateway.feed().subscribe(Topic::All, After::Now);
    gateway.publish(caller, None, id, now, TemplateSaved { template: template.clone() }).await?;
    recorded(reader, id).await?;
    Ok((shown(template, gateway, &caller.tenant), before.is_none()))
}

pub(crate) fn checked(
    request: TemplateRequest,
    limits: &SandboxLimits,
) -> Result<(events::Template, Variables), ApiError> {
    let variables = Variables::read(request.env.map(|env| env.0), request.secrets.map(|secrets| secrets.0))?;
    let name = request.name.unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(good) {
        return Err(ApiError::bad_request(format!(
            "name must be 1 to {MAX_NAME} characters of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with a dot"
        )));
    }
    let image = request.image.filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| ApiError::bad_request("image is missing"))?;
    let description = request.description.unwrap_or_default();
    if description.len() > MAX_DESCRIPTION {
        return Err(ApiError::bad_request(format!("description must be at most {MAX_DESCRIPTION} bytes")));
    }
    let template = events::Template {
        name,
        image,
        provider: request.provider.filter(|provider| !provider.is_empty()),
        memory_mib: request.memory_mb.filter(|mib| *mib > 0),
        vcpus: request.vcpus.or(request.cpu_cores).filter(|cpus| *cpus > 0),
        ttl_seconds: ttl_seconds(request.ttl.as_deref(), request.ttl_seconds)?,
        capabilities: capabilities(request.capabilities.as_deref())?,
        metadata: request.metadata.unwrap_or_default(),
        env: BTreeMap::new(),
        variables: BTreeMap::new(),
        description,
        version: request.version.filter(|version| *version > 0),
        network: network(request.network.as_deref())?,
        setup: setup(request.setup.unwrap_or_default())?,
        allowed_hosts: allowed_hosts(request.allowed_hosts.unwrap_or_default())?,
        created_at: None,
        updated_at: None,
    };
    // A template that nothing could be spawned from is refused now, not later.
    let plan = plan(SpawnRequest::default(), Some((template.clone(), variables.clone())), None, limits)?;
    check_ttl(plan.ttl, limits)?;
    Ok((template, variables))
}

fn setup(lines: Vec<String>) -> Result<Vec<String>, ApiError> {
    let good = |line: &String| !line.trim().is_empty() && !line.contains('\0');
    if lines.len() > MAX_SETUP || lines.iter().map(String::len).sum::<usize>() > MAX_SETUP_BYTES {
        return Err(ApiError::bad_request(format!(
            "setup must be at most {MAX_SETUP} commands of {MAX_SETUP_BYTES} bytes together"
        )));
    }
    if !lines.iter().all(good) {
        return Err(ApiError::bad_request("a command of setup must not be empty or contain NUL characters"));
    }
    Ok(lines)
}

fn allowed_hosts(hosts: Vec<String>) -> Result<Vec<String>, ApiError> {
    let good = |host: &String| {
        (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if hosts.len() > MAX_HOSTS || !hosts.iter().all(good) {
        return Err(ApiError::bad_request(format!(
            "allowed_hosts must be at most {MAX_HOSTS} names of 1 to {MAX_HOST_BYTES} printable ASCII characters"
        )));
    }
    Ok(hosts)
}

fn ttl_seconds(text: Option<&str>, seconds: Option<u64>) -> Result<Option<u64>, ApiError> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(seconds.filter(|seconds| *seconds > 0)),
        Some(text) => {
            let ttl = ttl(text)?;
            if ttl.subsec_nanos() != 0 {
                return Err(ApiError::bad_request("a template's ttl must be whole seconds"));
            }
            Ok(Some(ttl.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn read(json: &str) -> Result<Template, ApiError> {
        let request = crate::extract::parse_object(json.as_bytes())?;
        let (template, variables) = checked(request, &SandboxLimits::default())?;
        Ok(super::super::with(template, variables.env.0))
    }

    #[test]
    fn both_vocabularies_are_read_and_answered() {
        for json in [
            r#"{"name":"t","image":"i","vcpus":2,"ttl":"20m","memory_mb":300}"#,
            r#"{"name":"t","image":"i","cpu_cores":2,"ttl_seconds":1200,"memory_mb":300}"#,
        ] {
            let template = read(json).unwrap();
            assert_eq!((template.vcpus, template.cpu_cores), (Some(2), Some(2)));
            assert_eq!((template.ttl.as_deref(), template.ttl_seconds), (Some("20m0s"), Some(1200)));
        }
    }

    #[test]
    fn all_keys_of_the_sdk_empty_are_the_defaults() {
        let json = r#"{"name":"t","image":"i","memory_mb":0,"vcpus":0,"ttl":"","provider":"","metadata":{}}"#;
        let json = serde_json::to_value(read(json).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"name": "t", "image": "i", "version": 1}));
    }

    #[test]
    fn nothing_that_is_taken_is_dropped() {
        let json = serde_json::json!({
            "name": "t", "image": "i", "version": 3, "network": "none", "setup": ["echo a"], "allowed_hosts": ["mirror.example"],
            "metadata": {"a": "b"}, "description": "d"
        });
        let template = serde_json::to_value(read(&json.to_string()).unwrap()).unwrap();
        for (key, value) in json.as_object().unwrap() {
            assert_eq!(&template[key], value, "{key}");
        }
        assert!(template["warnings"][0].as_str().unwrap().contains("allowed_hosts"), "{template}");
        let bridge = read(r#"{"name":"t","image":"i","network":"bridge"}"#).unwrap();
        assert_eq!((bridge.network, bridge.warnings.len()), (Some(api_types::Network::Bridge.into()), 0));
    }

    #[test]
    fn wrong_fields_are_bad_requests() {
        for json in [
            "{}",
            r#"{"name":""}"#,
            r#"{"name":"a"}"#,
            r#"{"name":5,"image":"a"}"#,
            r#"{"name":"a/b","image":"a"}"#,
            r#"{"name":"..","image":"a"}"#,
            r#"{"image":"a"}"#,
            r#"{"name":"a","image":"b c"}"#,
            r#"{"name":"a","image":"b","memory_mb":"x"}"#,
            r#"{"name":"a","image":"b","ttl":"1d"}"#,
            r#"{"name":"a","image":"b","capabilities":"all"}"#,
            r#"{"name":"a","image":"b","ttl":"1500ms"}"#,
            r#"{"name":"a","image":"b","ttl":"48h"}"#,
            r#"{"name":"a","image":"b","env":{"A=B":"c"}}"#,
            r#"{"name":"a","image":"b","network":"host"}"#,
            r#"{"name":"a","image":"b","network":["bridge"]}"#,
            r#"{"name":"a","image":"b","network":"bridge","allowed_hosts":["mirror.example"]}"#,
            r#"{"name":"a","image":"b","allowed_hosts":"mirror.example"}"#,
            r#"{"name":"a","image":"b","allowed_hosts":["a b"]}"#,
            r#"{"name":"a","image":"b","allowed_hosts":[""]}"#,
            r#"{"name":"a","image":"b","setup":"pip install x"}"#,
            r#"{"name":"a","image":"b","setup":[" "]}"#,
            r#"{"name":"a","image":"b","setup":["a\u0000b"]}"#,
            r#"{"name":"a","image":"b","version":-1}"#,
        ] {
            assert_eq!(read(json).unwrap_err().code(), ErrorCode::BadRequest, "{json}");
        }
    }
}
