//! Which events of the log are wanted, the same for all verbs that show some of it.

use crate::verbs::moment::Time;
use client::Url;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only by this actor: client:KEY/USER, executor:NODE, reaper; client:* is all clients.
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<String>,
    /// Only by clients that called themselves so (--user-id), whatever their key.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only of these types: exec.exited,sandbox.*
    #[arg(long = "type", value_name = "TYPES")]
    pub types: Option<String>,
    /// Only about this sandbox.
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// Only about sandboxes with this label.
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Option<String>,
    /// Only at this time (2026-01-02T03:04:05Z) or later; or so long ago at most (10m).
    #[arg(long, value_name = "TIME")]
    pub from: Option<Time>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Time>,
    /// Only what follows from this request.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Whose log, for operators; all by default.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

impl Filter {
    /// Adds what is asked for to a query.
    pub fn put(&self, url: &mut Url) {
        let (from, to) = (self.from.map(Time::wire), self.to.map(Time::wire));
        let mut pairs = url.query_pairs_mut();
        for (name, value) in [
            ("actor", &self.actor),
            ("user", &self.user),
            ("type", &self.types),
            ("sandbox", &self.sandbox),
            ("label", &self.label),
            ("from", &from),
            ("to", &to),
            ("request_id", &self.request_id),
            ("tenant", &self.tenant),
        ] {
            if let Some(value) = value {
                pairs.append_pair(name, value);
            }
        }
    }
}
