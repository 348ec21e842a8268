//! Jobs: a sandbox, files in, a command, and the end of the sandbox, as one durable unit.

use api_types::{
    AttemptList, BatchAnswer, BatchRequest, CancelRequest, Job, JobAttempt, JobList, JobRequest, JobTimeline,
};
use reqwest::{Method, Response};
use serde::Serialize;

use crate::client::Client;
use crate::error::ClientError;
use crate::key::IdempotencyKey;

/// Which jobs are listed. What is set must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobsQuery {
    /// That stand there, or ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// With this label: `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// That need this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// That the schedule with this id submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// That were submitted after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<String>,
    /// That was submitted with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// After this job: the `next_after` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many: 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl Client {
    /// Submits a job. It is durable when this returns.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::JobRequest;
    ///
    /// let job = client.submit_job(&JobRequest::shell("alpine:latest", "make test")).await?;
    /// let job = client.job_ended(&job.id, "5m").await?;
    /// println!("{} is {}", job.id, job.state);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit_job(&self, request: &JobRequest) -> Result<Job, ClientError> {
        self.submit_job_as(&IdempotencyKey::new(), request).await
    }

    /// The same under a key: with the same request it is the same job, for ever.
    pub async fn submit_job_as(
        &self,
        key: &IdempotencyKey,
        request: &JobRequest,
    ) -> Result<Job, ClientError> {
        self.fetch(self.request_once(key, Method::POST, self.url(&["jobs"])).json(request)).await
    }

    /// Submits many jobs, and says what became of each.
    pub async fn submit_jobs(&self, request: &BatchRequest) -> Result<BatchAnswer, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["jobs", "batch"])).json(request)).await
    }

    /// A page of jobs, in the order of their ids.
    pub async fn jobs(&self, query: &JobsQuery) -> Result<JobList, ClientError> {
        self.fetch(self.request(Method::GET, self.url(&["jobs"])).query(query)).await
    }

    /// A job as it is.
    pub async fn job(&self, id: &str) -> Result<Job, ClientError> {
        self.get(&["jobs", id]).await
    }

    /// A job when it has ended, or after this Go duration of at most 5m.
    pub async fn job_ended(&self, id: &str, longest: &str) -> Result<Job, ClientError> {
        self.fetch(self.request(Method::GET, self.url(&["jobs", id])).query(&[("wait", longest)])).await
    }

    /// The attempts of a job, the first first.
    pub async fn job_attempts(&self, id: &str) -> Result<Vec<JobAttempt>, ClientError> {
        Ok(self.get::<AttemptList>(&["jobs", id, "attempts"]).await?.attempts)
    }

    /// What a job wrote, as bytes; `query` are the parameters of the route. With `follow` it goes on until that attempt has ended.
    pub async fn job_output(&self, id: &str, query: &[(&str, &str)]) -> Result<Response, ClientError> {
        self.send(self.request(Method::GET, self.url(&["jobs", id, "output"])).query(query)).await
    }

    /// What happened to a job, after a position.
    pub async fn job_timeline(&self, id: &str, after: u64) -> Result<JobTimeline, ClientError> {
        let url = self.url(&["jobs", id, "timeline"]);
        self.fetch(self.request(Method::GET, url).query(&[("after", after)])).await
    }

    /// Asks for the end of a job. `grace` is a Go duration; 10s when absent.
    pub async fn cancel_job(&self, id: &str, grace: Option<&str>) -> Result<Job, ClientError> {
        let request = CancelRequest { grace: grace.map(str::to_owned) };
        self.fetch(self.request(Method::POST, self.url(&["jobs", id, "cancel"])).json(&request)).await
    }

    /// Submits the same job once more.
    pub async fn retry_job(&self, id: &str) -> Result<Job, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["jobs", id, "retry"]))).await
    }
}
