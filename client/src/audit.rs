//! The log, for auditors.

use api_types::{AuditList, CheckpointList};
use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::download::Download;
use crate::error::ClientError;

/// Which events of the log. What is `None` narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditQuery {
    /// Whose: for operators only, who get everybody's without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who did it, as events name it: `client:KEY/USER`, `executor:NODE`, `reaper`; `client:*` is all clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// On behalf of which user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// About sandboxes with this label: `NAME=VALUE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Types of events (`exec.exited`) and categories (`sandbox.*`), separated by commas.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub of_type: Option<String>,
    /// About which sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// About which exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// From when on, and up to when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Up to when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// That follow from this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `desc`: the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Where the page before ended: its `next_after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl Client {
    /// A page of the log. A page may be short or empty and not be the last: `next_after` tells.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::AuditQuery;
    ///
    /// let mut query = AuditQuery { of_type: Some("exec.exited".into()), ..AuditQuery::default() };
    /// loop {
    ///     let page = client.audit(&query).await?;
    ///     for entry in &page.events {
    ///         println!("{} {} {}", entry.time, entry.actor, entry.r#type);
    ///     }
    ///     query.after = page.next_after;
    ///     if query.after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditList, ClientError> {
        self.fetch(self.request(Method::GET, self.url(&["audit"])).query(query)).await
    }

    /// The log as a file: `ndjson`, which can be verified, `csv` or `cloudevents`. Without `bodies` the bytes of output and
    /// input are left out.
    pub async fn export(
        &self,
        format: &str,
        bodies: bool,
        query: &AuditQuery,
    ) -> Result<Download, ClientError> {
        let request = self.request(Method::GET, self.url(&["audit", "export"])).query(query);
        self.download(request.query(&[("format", format), ("bodies", if bodies { "true" } else { "false" })]))
            .await
    }

    /// Has the server check the log: that nothing is missing and nothing was changed. Takes as long as it takes. With
    /// `quick`, whether lists show what the events say is left out. The report is JSON: `ok`, `finding`, counts.
    pub async fn verify<T: DeserializeOwned>(
        &self,
        tenant: Option<&str>,
        quick: bool,
    ) -> Result<T, ClientError> {
        let mut request = self.request(Method::GET, self.url(&["audit", "verify"]));
        if let Some(tenant) = tenant {
            request = request.query(&[("tenant", tenant)]);
        }
        if quick {
            request = request.query(&[("quick", "true")]);
        }
        self.fetch(request).await
    }

    /// A page of signed checkpoints of the hash chains.
    pub async fn checkpoints(&self, after: Option<u64>) -> Result<CheckpointList, ClientError> {
        let request = self.request(Method::GET, self.url(&["audit", "checkpoints"]));
        self.fetch(request.query(&[("after", after)])).await
    }

    /// An answer that is bytes.
    pub(crate) async fn download(&self, request: RequestBuilder) -> Result<Download, ClientError> {
        Ok(Download::new(self.clone(), self.send(request).await?))
    }
}
