//! `POST /templates`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{After, EventId, TemplateSaved, Topic};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Template, recorded, sealed};
use crate::auth::Caller;
use crate::config::SandboxLimits;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JsonBody;
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::{SpawnRequest, capabilities, check_ttl, plan, ttl};
use crate::variables::Variables;

/// The longest name, in characters, and the longest description, in bytes.
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 1024;

/// A template. Zero and empty mean the server's default.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SaveRequest {
    /// 1 to 64 characters of a-z, A-Z, 0-9, `.`, `_` and `-`, not beginning with a dot.
    #[schema(required)]
    pub name: Option<String>,
    /// The image.
    #[schema(required)]
    pub image: Option<String>,
    /// The box-maker.
    pub provider: Option<String>,
    /// The memory limit, in MiB.
    pub memory_mb: Option<u32>,
    /// The CPU limit, in whole CPUs.
    pub vcpus: Option<u32>,
    /// The same, as the Go server called it.
    pub cpu_cores: Option<u32>,
    /// The time to live, as a Go duration of whole seconds.
    pub ttl: Option<String>,
    /// The same in seconds, as the Go server called it.
    pub ttl_seconds: Option<u64>,
    /// What root in its sandboxes may do: `standard` or `minimal`; the server's default where it is left out.
    #[schema(pattern = "^(standard|minimal)?$")]
    pub capabilities: Option<String>,
    /// Labels for every sandbox made from it.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment variables of every exec.
    pub env: Option<BTreeMap<String, String>>,
    /// More of them, whose values are in no answer and are masked with `*` in whatever a sandbox writes.
    pub secrets: Option<BTreeMap<String, String>>,
    /// One line for people.
    pub description: Option<String>,
}

/// Makes a template, or replaces the one with this name.
#[utoipa::path(
    post,
    path = "/templates",
    tag = "templates",
    request_body = SaveRequest,
    responses(
        (status = 201, description = "The template", body = Template),
        (status = 400, description = "A field is wrong", body = ErrorBody),
    )
)]
pub(crate) async fn save(
    State(gateway): State<Gateway>,
    caller: Caller,
    JsonBody(request): JsonBody<SaveRequest>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    let (mut template, variables) = checked(request, &gateway.config().sandboxes)?;
    template.variables =
        sealed::seal(&gateway.config().master_key, &caller.tenant, &template.name, &variables)
            .map_err(ApiError::internal)?;
    let redaction = gateway.redaction().with_secrets(variables.secrets());
    template.metadata.values_mut().for_each(|value| redaction.text(value));
    redaction.text(&mut template.description);
    let id = EventId::new();
    let reader = gateway.feed().subscribe(Topic::All, After::Now);
    gateway
        .publish(&caller, None, id, gateway.clock().now(), TemplateSaved { template: template.clone() })
        .await?;
    recorded(reader, id).await?;
    Ok((StatusCode::CREATED, Json(Template::of(template, &gateway, &caller.tenant))))
}

fn checked(request: SaveRequest, limits: &SandboxLimits) -> Result<(events::Template, Variables), ApiError> {
    let variables = Variables::read(request.env, request.secrets)?;
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
    };
    // A template that nothing could be spawned from is refused now, not later.
    let plan = plan(SpawnRequest::default(), Some((template.clone(), variables.clone())), None, limits)?;
    check_ttl(plan.ttl, limits)?;
    Ok((template, variables))
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
        Ok(Template::with(template, variables.env.0))
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
        assert_eq!(json, serde_json::json!({"name": "t", "image": "i"}));
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
        ] {
            assert_eq!(read(json).unwrap_err().code(), ErrorCode::BadRequest, "{json}");
        }
    }
}
