//! Jobs that are submitted when their time has come.

use api_types::{Schedule, ScheduleList, ScheduleRequest, TriggeredJob};
use reqwest::Method;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// All schedules of the tenant, the oldest first.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, ClientError> {
        Ok(self.get::<ScheduleList>(&["schedules"]).await?.schedules)
    }

    /// One schedule, by its id or its name, and where it stands.
    pub async fn schedule(&self, id: &str) -> Result<Schedule, ClientError> {
        self.get(&["schedules", id]).await
    }

    /// Makes a schedule.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// let request: client::ScheduleRequest = serde_json::from_value(serde_json::json!({
    ///     "name": "nightly",
    ///     "cron": "30 2 * * *",
    ///     "timezone": "Europe/Berlin",
    ///     "job": {"image": "alpine:latest", "command": "date"},
    /// }))
    /// .expect("a request");
    /// let schedule = client.create_schedule(&request).await?;
    /// println!("next at {}", schedule.next[0]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_schedule(&self, request: &ScheduleRequest) -> Result<Schedule, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["schedules"])).json(request)).await
    }

    /// Replaces what a schedule is.
    pub async fn update_schedule(
        &self,
        id: &str,
        request: &ScheduleRequest,
    ) -> Result<Schedule, ClientError> {
        self.fetch(self.request(Method::PUT, self.url(&["schedules", id])).json(request)).await
    }

    /// Deletes a schedule. Its jobs stay.
    pub async fn delete_schedule(&self, id: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["schedules", id]))).await.map(drop)
    }

    /// Has nothing be due until it is resumed.
    pub async fn pause_schedule(&self, id: &str) -> Result<Schedule, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["schedules", id, "pause"]))).await
    }

    /// Goes on with the next time that it is due.
    pub async fn resume_schedule(&self, id: &str) -> Result<Schedule, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["schedules", id, "resume"]))).await
    }

    /// Has its job submitted at once, or when the one before has ended.
    pub async fn trigger_schedule(&self, id: &str) -> Result<TriggeredJob, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["schedules", id, "trigger"]))).await
    }
}
