//! What can be told without services: paths.

use super::*;

fn path_of(path: &str) -> String {
    let request = Request::get(path).body(()).unwrap();
    normalise(request).uri().to_string()
}

#[test]
fn a_closing_slash_makes_no_difference() {
    assert_eq!(path_of("/api/v1/sandboxes/"), "/api/v1/sandboxes");
    assert_eq!(path_of("/api/v1/sandboxes//?a=b%2F"), "/api/v1/sandboxes?a=b%2F");
    assert_eq!(path_of("/api/v1/sandboxes?path=/"), "/api/v1/sandboxes?path=/");
    assert_eq!(path_of("/"), "/");
    assert_eq!(path_of("/api/v1/templates/%2F/"), "/api/v1/templates/%2F");
}

#[test]
fn what_the_original_has_below_admin_is_the_same_without() {
    assert_eq!(path_of("/api/v1/admin/providers/?a=b"), "/api/v1/providers?a=b");
    assert_eq!(path_of("/api/v1/admin/quotas/ada%2F/usage"), "/api/v1/quotas/ada%2F/usage");
    for other in
        ["/api/v1/admin", "/api/v1/admin/sandboxes", "/api/v1/admin/provider", "/api/v2/admin/quotas"]
    {
        assert_eq!(path_of(other), other);
    }
    // Once: what is twice below it is nowhere.
    assert_eq!(path_of("/api/v1/admin/admin/quotas"), "/api/v1/admin/admin/quotas");
}

#[test]
fn every_route_of_the_sdk_is_in_the_document() {
    let document = serde_json::to_value(document(&GatewayConfig::default())).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/sandboxes", &["get", "post", "delete"][..]),
        ("/sandboxes/admission", &["post"]),
        ("/sandboxes/{id}", &["get", "delete"]),
        ("/sandboxes/{id}/exec", &["post"]),
        ("/sandboxes/{id}/exec/ws", &["get"]),
        ("/sandboxes/{id}/files", &["get", "post", "put", "delete"]),
        ("/sandboxes/{id}/files/list", &["get"]),
        ("/sandboxes/{id}/files/move", &["post"]),
        ("/templates/{name}/spawn", &["post"]),
        ("/execs/{id}/output", &["get"]),
        ("/metrics/prometheus", &["get"]),
        ("/events", &["get"]),
        ("/health", &["get"]),
    ] {
        let operations = paths[&format!("/api/v1{path}")].as_object().unwrap();
        for method in methods {
            assert!(operations.contains_key(*method), "{method} {path}");
        }
    }
}
