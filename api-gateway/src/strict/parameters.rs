use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Method;
use serde_json::Value;
use url::form_urlencoded;

use super::unread::{Place, Unknown, shown};

/// What each operation reads of its query, and whether it reads a body, as the OpenAPI document promises it.
#[derive(Debug, Clone)]
pub struct Parameters(Arc<HashMap<(Method, String), Operation>>);

#[derive(Debug, Default)]
struct Operation {
    names: Vec<String>,
    has_body: bool,
}

impl Parameters {
    /// Reads them from the document.
    pub fn of(document: &Value) -> Self {
        let mut operations = HashMap::new();
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else { continue };
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let names = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                    .collect();
                let has_body = operation.get("requestBody").is_some();
                operations.insert((method, path.clone()), Operation { names, has_body });
            }
        }
        Self(Arc::new(operations))
    }

    /// What of a query nothing reads. What the document does not have is not judged.
    pub(super) fn unknown(&self, method: &Method, route: &str, query: &str) -> Vec<Unknown> {
        let Some(operation) = self.operation(method, route) else { return Vec::new() };
        form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| !operation.names.iter().any(|known| *known == *name))
            .take(64)
            .map(|(name, _)| Unknown {
                place: Place::Query,
                name: shown(&name),
                meant: spelling::nearest(&name, operation.names.iter().map(String::as_str))
                    .map(str::to_owned),
            })
            .collect()
    }

    /// Whether a body is sent to where none is read.
    pub(super) fn reads_no_body(&self, method: &Method, route: &str) -> bool {
        self.operation(method, route).is_some_and(|operation| !operation.has_body)
    }

    fn operation(&self, method: &Method, route: &str) -> Option<&Operation> {
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(method, route.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(method: Method, route: &str, query: &str) -> Vec<(String, Option<String>)> {
        let document =
            serde_json::to_value(crate::router::document(&crate::config::GatewayConfig::default())).unwrap();
        let found = Parameters::of(&document).unknown(&method, &format!("/api/v1{route}"), query);
        found.into_iter().map(|unknown| (unknown.name, unknown.meant)).collect()
    }

    #[test]
    fn parameters_that_no_route_reads_are_found() {
        let files = "/sandboxes/{id}/files";
        assert_eq!(
            unknown(Method::DELETE, files, "path=/a&recursiv=true"),
            [("recursiv".to_owned(), Some("recursive".to_owned()))]
        );
        assert_eq!(unknown(Method::GET, "/health", "x"), [("x".to_owned(), None)]);
        assert_eq!(unknown(Method::HEAD, "/execs/{id}/output", "offset=1&viewer=x&follow=1"), []);
        assert_eq!(unknown(Method::GET, "/made/up", "x=1"), []);
    }
}
