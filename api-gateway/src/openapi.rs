//! The OpenAPI document, generated from the endpoints.

mod complete;
mod limits;
mod values;

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub(crate) use complete::{complete, published};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "StacyVM",
        description = "Sandboxes for agents and developer tools: spawn, exec, stream, files, events. Errors are `{\"code\",\"message\"}`, or RFC 9457 problem+json when Accept asks for it. `X-User-ID` names the user on whose behalf a request is made; `X-Request-ID` comes back in the answer. Fields and query parameters that nothing reads are named in the answer's `X-Unknown-Fields`; with `Prefer: handling=strict` they are refused with 400.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("api_key" = []), ("admin_api_key" = []), ("bearer" = [])),
    modifiers(&Schemes),
    tags(
        (name = "sandboxes", description = "Isolated workspaces with a deadline"),
        (name = "execs", description = "Runs of commands, which outlive the connection that asked for them"),
        (name = "jobs", description = "Sandbox, files, command and end as one durable unit"),
        (name = "files", description = "Files in a sandbox"),
        (name = "jobs", description = "Commands in sandboxes of their own, each with an outcome"),
        (name = "templates", description = "Named sets of defaults"),
        (name = "webhooks", description = "Readers of the log that are called over HTTP"),
        (name = "schedules", description = "Jobs that are submitted when their time has come"),
        (name = "events", description = "The log"),
        (name = "audit", description = "The log for auditors: lists, exports, proofs"),
        (name = "providers", description = "Box-makers"),
        (name = "pool", description = "Shared machines"),
        (name = "quotas", description = "Limits of owners"),
        (name = "metrics", description = "Numbers about the server"),
        (name = "health", description = "Probes, which need no key"),
    ),
)]
pub(crate) struct Api;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, header) in [("api_key", "X-API-Key"), ("admin_api_key", "X-Admin-API-Key")] {
            let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(header)));
            components.add_security_scheme(name, scheme);
        }
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_document_is_frozen() {
        insta::assert_snapshot!(crate::router::openapi_document().unwrap());
    }

    #[test]
    fn it_is_3_1_and_every_reference_resolves() {
        let document: Value = serde_json::from_str(&crate::router::openapi_document().unwrap()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut stack = vec![&document];
        while let Some(node) = stack.pop() {
            if let Some(reference) = node.get("$ref").and_then(|it| it.as_str()) {
                let target = document.pointer(reference.strip_prefix('#').unwrap());
                assert!(target.is_some(), "{reference}");
            }
            stack.extend(node.as_object().into_iter().flat_map(|map| map.values()));
            stack.extend(node.as_array().into_iter().flatten());
        }
    }

    /// Whether a schema says more than its type: what is not in range is not in the document.
    fn is_limited(schema: &Value) -> bool {
        let says = |keyword: &str| schema.get(keyword).is_some();
        let kind = &schema["type"];
        let kinds = kind.as_array().map_or(std::slice::from_ref(kind), Vec::as_slice);
        let has = |kind: &str| kinds.iter().any(|one| one == kind);
        // Its own fields are looked at, too.
        let is_request = |of: &Value| of["$ref"].as_str().is_some_and(|name| name.ends_with("Request"));
        let either = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
        is_request(schema)
            || either.is_some_and(|either| {
                either.iter().all(|one| one["type"] == "null" || is_limited(one)) && !either.is_empty()
            })
            || says("enum")
            || has("boolean")
            || has("string") && says("pattern") && says("maxLength")
            || (has("integer") || has("number")) && says("minimum") && says("maximum")
            || has("array") && says("maxItems") && is_limited(&schema["items"])
            || has("object")
                && says("maxProperties")
                && is_limited(&schema["propertyNames"])
                && is_limited(&schema["additionalProperties"])
    }

    #[test]
    fn every_parameter_and_every_field_of_a_request_says_what_it_may_be() {
        let document: Value = serde_json::from_str(&crate::router::openapi_document().unwrap()).unwrap();
        let mut free = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                free.extend(
                    parameters
                        .filter(|parameter| !is_limited(&parameter["schema"]))
                        .map(|parameter| format!("{method} {path} {}", parameter["name"])),
                );
            }
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (kind, schema) in schemas.iter().filter(|(kind, _)| kind.ends_with("Request")) {
            let fields = schema["properties"].as_object().into_iter().flatten();
            free.extend(fields.filter(|(_, of)| !is_limited(of)).map(|(name, _)| format!("{kind}.{name}")));
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                let kind_of = &schema["properties"][name]["type"];
                assert!(!kind_of.is_array(), "{kind}.{name} must be there and may be null");
            }
        }
        assert!(free.is_empty(), "say in openapi/values.rs what these may be: {free:#?}");
    }
}
