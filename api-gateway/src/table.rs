//! The table of routes: each with what it does, beside it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::PathItem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::auth::{Action, Scope};
use crate::gateway::Gateway;

/// Routes, of which each names its action.
#[derive(Default)]
pub(crate) struct Table {
    /// What anybody may ask.
    pub open: OpenApiRouter<Gateway>,
    /// What needs a key.
    pub keyed: OpenApiRouter<Gateway>,
    /// What each of them does.
    pub actions: Actions,
}

impl Table {
    /// The same with one more route.
    pub fn on(mut self, action: Action, route: UtoipaMethodRouter<Gateway>) -> Self {
        for (path, item) in &route.1.paths {
            for method in methods(item) {
                self.actions.0.insert((method, path.clone()), action);
            }
        }
        match action.scope() {
            Scope::Server => self.open = self.open.routes(route),
            Scope::Tenant | Scope::Deployment | Scope::Host => self.keyed = self.keyed.routes(route),
        }
        self
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = Method> {
    let all = [
        (&item.get, Method::GET),
        (&item.post, Method::POST),
        (&item.put, Method::PUT),
        (&item.delete, Method::DELETE),
        (&item.patch, Method::PATCH),
    ];
    all.into_iter().filter(|(operation, _)| operation.is_some()).map(|(_, method)| method)
}

/// What each route does, by its method and its path below the prefix of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Actions(HashMap<(Method, String), Action>);

impl Actions {
    /// What a route does. Asked with HEAD, it does what it does for GET.
    pub fn of(&self, method: &Method, path: &str) -> Option<Action> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.0.get(&(method.clone(), path.to_owned())).copied()
    }
}

/// The layer that puts its action on a request.
pub(crate) async fn name(
    State((prefix, actions)): State<(&'static str, Arc<Actions>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if let Some(action) = actions.of(request.method(), path.strip_prefix(prefix).unwrap_or(path)) {
        request.extensions_mut().insert(action);
    }
    next.run(request).await
}
