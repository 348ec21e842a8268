//! What holds for all endpoints alike, put into the document once.

use axum::http::Method;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, Required, ResponseBuilder, Schema};

use super::limits::not_null;
use super::values;
use crate::auth::{Action, Role};
use crate::config::GatewayConfig;

/// Statuses that come from what stands in front of the endpoints, or from what each of them stands on.
const EVERYWHERE: [(&str, &str); 6] = [
    (
        "400",
        "An unknown field or query parameter, where `Prefer: handling=strict` is sent; or what is said for itself",
    ),
    ("401", "No key, a wrong key, or a ticket or link that is not good any more"),
    ("403", "A foreign origin; or a `Host` other than loopback on a server without keys"),
    (
        "429",
        "A limit is reached, which `X-Limit` names, or a queue is full; `Retry-After` says when to come again",
    ),
    ("500", "Our fault; the server's log has the detail under the request's id"),
    ("503", "Something that this needs does not answer: trying again can help"),
];

/// Adds them, where `action` says what a route does.
pub fn complete(
    document: &mut OpenApi,
    prefix: &str,
    config: &GatewayConfig,
    action: impl Fn(&Method, &str) -> Option<Action>,
) {
    for (path, item) in &mut document.paths.paths {
        let path = path.strip_prefix(prefix).unwrap_or(path);
        for (method, operation) in operations(item) {
            let open = operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == "health"));
            for (status, description) in EVERYWHERE {
                if !open || matches!(status, "400") {
                    respond(operation, status, description);
                }
            }
            if operation.request_body.is_some() {
                respond(operation, "413", "The body is over its limit");
            }
            if action(&method, path).is_some_and(|action| Role::Viewer.has(action)) {
                operation.parameters.get_or_insert_default().push(viewer().into());
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    limit(path, parameter);
                }
            }
        }
    }
    let schemas = document.components.iter_mut().flat_map(|components| &mut components.schemas);
    for (_, schema) in schemas {
        either_may_be_both(schema);
    }
    let schemas = document.components.iter_mut().flat_map(|components| &mut components.schemas);
    for (kind, schema) in schemas.filter(|(kind, _)| kind.ends_with("Request")) {
        let RefOr::T(Schema::Object(request)) = schema else { continue };
        for (name, schema) in &mut request.properties {
            let required = request.required.contains(name);
            match values::field(kind, name, config) {
                Some(limit) => limit.restrict(schema, required),
                None if required => not_null(schema),
                None => {}
            }
        }
    }
}

/// The document as others read it: a parameter that is the rest of a path is called as any other is.
pub fn published(mut document: OpenApi) -> OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// Each operation, with its method.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
        (Method::GET, &mut item.get),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn respond(operation: &mut Operation, status: &str, description: &str) {
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        RefOr::T(ResponseBuilder::new().description(description).content("application/json", body).build())
    });
}

fn viewer() -> Parameter {
    ParameterBuilder::new()
        .name("viewer")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("The token of a viewer link, instead of a key"))
        .schema(Some(Schema::default()))
        .build()
}

/// A choice without a tag is one of several forms, which may have a value in common.
fn either_may_be_both(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::OneOf(one)) = schema else { return };
    if one.discriminator.is_none() && one.items.iter().all(|item| matches!(item, RefOr::Ref(_))) {
        let any = AnyOfBuilder::new().description(one.description.take());
        let any = std::mem::take(&mut one.items).into_iter().fold(any, AnyOfBuilder::item);
        *schema = RefOr::T(any.build().into());
    }
}

/// Puts into a parameter what it may be. One that is there is not null.
fn limit(path: &str, parameter: &mut Parameter) {
    if let (Some(limit), Some(schema)) = (values::parameter(path, &parameter.name), &mut parameter.schema) {
        limit.restrict(schema, true);
    }
}
