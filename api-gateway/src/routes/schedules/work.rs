//! From the request of a schedule's jobs to what they are to do: checked when the schedule is saved, so that what cannot be run
//! is found out then and not at night.

use std::collections::BTreeMap;

use api_types::{ExecRequest, ScheduledJob, SpawnRequest};
use events::{
    DEFAULT_QUEUE, JobPlace, JobRetries, JobSpec, JobSubmitted, OnLost, RetryOn, ScheduleId, ScheduledWork,
};
use serde::Deserialize;
use serde_json::Value;
use spelling::parse_go_duration;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::exec::request::runnable;
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::{check_image, labels, plan};
use crate::routes::templates;
use crate::variables::fingerprints;

/// Which fields the request may have.
pub(crate) const FIELDS: [&str; 25] = [
    "name",
    "image",
    "template",
    "provider",
    "pool",
    "memory_mb",
    "vcpus",
    "pids_limit",
    "network",
    "runtime",
    "command",
    "args",
    "mode",
    "workdir",
    "env",
    "secrets",
    "timeout",
    "deadline",
    "retries",
    "on_lost",
    "priority",
    "queue",
    "concurrency_key",
    "concurrency_limit",
    "labels",
];
/// The longest name of a job, of a queue and of a concurrency key, in bytes.
const MAX_NAME: usize = 128;
const PRIORITIES: std::ops::RangeInclusive<i16> = -100..=100;
const MAX_RETRIES: u32 = 100;

/// The request of a job, as far as one of a schedule may have it. Another field is refused, and not passed over.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    name: Option<String>,
    image: Option<String>,
    template: Option<String>,
    provider: Option<String>,
    pool: Option<String>,
    memory_mb: Option<u32>,
    vcpus: Option<f64>,
    pids_limit: Option<u32>,
    network: Option<String>,
    runtime: Option<String>,
    command: Option<String>,
    args: Option<Vec<String>>,
    mode: Option<String>,
    workdir: Option<String>,
    env: Option<BTreeMap<String, String>>,
    secrets: Option<BTreeMap<String, String>>,
    timeout: Option<String>,
    deadline: Option<String>,
    retries: Option<Retries>,
    on_lost: Option<OnLost>,
    priority: i16,
    queue: Option<String>,
    concurrency_key: Option<String>,
    concurrency_limit: Option<u32>,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Retries {
    max: u32,
    backoff: Option<String>,
    factor: Option<f64>,
    max_backoff: Option<String>,
    jitter: Option<f64>,
    on: Option<Vec<RetryOn>>,
    on_exit_codes: Vec<i32>,
    not_on_exit_codes: Vec<i32>,
}

/// What the jobs of a schedule are to do.
pub(super) async fn work(
    gateway: &Gateway,
    caller: &Caller,
    id: ScheduleId,
    job: &ScheduledJob,
) -> Result<ScheduledWork, ApiError> {
    if job.0.values().any(Value::is_null) {
        return Err(ApiError::bad_request("job: a field that is left out is not null"));
    }
    let fields = Fields::deserialize(&Value::Object(job.0.clone()))
        .map_err(|error| ApiError::bad_request(format!("job: {}", events::without_values(&error))))?;
    let template = match fields.template.as_deref().filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let template = templates::find(gateway, caller, name).await?;
            let variables = templates::sealed::open(gateway, &caller.tenant, &template)?;
            Some((template, variables))
        }
    };
    let config = gateway.config();
    let plan = plan(fields.sandbox(), template, caller.user.as_deref(), &config.sandboxes)?;
    check_image(&caller.tenant, &plan.spec.image, &config.sandboxes)?;
    let mut runnable = runnable(fields.command(), &config.execs)?;
    let mut env = plan.env;
    env.0.extend(runnable.env.0);
    runnable.spec.env_hmac = fingerprints(&config.master_key, &caller.tenant, &env);
    let secrets: Vec<String> =
        plan.spec.secret_names.iter().chain(&runnable.spec.secret_names).cloned().collect();
    let masked = gateway.redaction().with_secrets(env.of(&secrets));
    runnable.spec.secret_names = secrets;
    let place = JobPlace::Fresh(plan.spec);
    let spec = Box::new(fields.spec(id, place, runnable.spec, env.names())?);
    // As in the event of a job that is submitted at once.
    let real = spec.clone();
    let mut submitted = JobSubmitted { job: events::JobId::from_bytes([0; 16]), owner: None, spec }.into();
    masked.event(&mut submitted);
    let events::EventData::Job(events::JobEvent::Submitted(JobSubmitted { spec, .. })) = submitted else {
        return Err(ApiError::internal("an event has become another"));
    };
    let real = (real != spec).then_some(real);
    Ok(ScheduledWork { spec, env, real })
}

impl Fields {
    fn sandbox(&self) -> SpawnRequest {
        SpawnRequest {
            image: self.image.clone(),
            provider: self.provider.clone(),
            pool: self.pool.clone(),
            memory_mb: self.memory_mb,
            vcpus: self.vcpus,
            pids_limit: self.pids_limit,
            network: self.network.clone(),
            runtime: self.runtime.clone(),
            ..SpawnRequest::default()
        }
    }

    fn command(&self) -> ExecRequest {
        ExecRequest {
            command: self.command.clone(),
            args: self.args.clone(),
            mode: self.mode.clone(),
            workdir: self.workdir.clone(),
            env: self.env.clone().map(Into::into),
            secrets: self.secrets.clone().map(Into::into),
            timeout: self.timeout.clone(),
            ..ExecRequest::default()
        }
    }

    fn spec(
        self,
        id: ScheduleId,
        place: JobPlace,
        command: events::ExecSpec,
        env_names: Vec<String>,
    ) -> Result<JobSpec, ApiError> {
        if !PRIORITIES.contains(&self.priority) {
            return Err(ApiError::bad_request("job: priority must be -100 to 100"));
        }
        if self.concurrency_limit == Some(0) {
            return Err(ApiError::bad_request("job: concurrency_limit must be at least 1"));
        }
        Ok(JobSpec {
            name: text("name", self.name)?,
            place,
            command,
            has_sealed: !env_names.is_empty(),
            env_names,
            files: Vec::new(),
            stdin: None,
            deadline_ms: milliseconds("deadline", self.deadline.as_deref())?,
            run_at: None,
            retries: self.retries.map_or_else(|| Ok(JobRetries::default()), Retries::read)?,
            on_lost: self.on_lost.unwrap_or_default(),
            priority: self.priority,
            queue: text("queue", self.queue)?.unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
            concurrency_key: text("concurrency_key", self.concurrency_key)?,
            concurrency_limit: self.concurrency_limit,
            needs: Vec::new(),
            labels: labels(self.labels)?,
            artifacts: Vec::new(),
            keep_sandbox_ms: None,
            heartbeat_timeout_ms: None,
            ttl_after_end_ms: None,
            callback: None,
            retry_of: None,
            schedule: Some(id.to_string()),
            idempotency_key: None,
            request_digest: None,
        })
    }
}

impl Retries {
    fn read(self) -> Result<JobRetries, ApiError> {
        let default = JobRetries::default();
        let (factor, jitter) = (self.factor.unwrap_or(default.factor), self.jitter.unwrap_or(default.jitter));
        if self.max > MAX_RETRIES || !(1.0..=10.0).contains(&factor) || !(0.0..=1.0).contains(&jitter) {
            return Err(ApiError::bad_request(format!(
                "job: retries: max must be at most {MAX_RETRIES}, factor 1 to 10, jitter 0 to 1"
            )));
        }
        Ok(JobRetries {
            max: self.max,
            backoff_ms: milliseconds("retries.backoff", self.backoff.as_deref())?
                .unwrap_or(default.backoff_ms),
            factor,
            max_backoff_ms: milliseconds("retries.max_backoff", self.max_backoff.as_deref())?
                .unwrap_or(default.max_backoff_ms),
            jitter,
            on: self.on.unwrap_or(default.on),
            on_exit_codes: self.on_exit_codes,
            not_on_exit_codes: self.not_on_exit_codes,
        })
    }
}

fn text(field: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > MAX_NAME || text.chars().any(char::is_control) => {
            Err(ApiError::bad_request(format!(
                "job: {field} must be at most {MAX_NAME} bytes without control characters"
            )))
        }
        text => Ok(text),
    }
}

fn milliseconds(field: &str, text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let length =
        parse_go_duration(text).map_err(|error| ApiError::bad_request(format!("job: {field}: {error}")))?;
    if length.is_zero() {
        return Err(ApiError::bad_request(format!("job: {field} must be more than 0s")));
    }
    Ok(Some(u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_are_told_of_are_those_that_are_read() {
        let Err(error) = serde_json::from_str::<Fields>(r#"{"no such field": 1}"#) else {
            panic!("it is read")
        };
        let known: Vec<String> = error.to_string().split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert_eq!(known, FIELDS);
    }

    #[test]
    fn a_job_is_read_with_all_that_it_says() {
        let json = r#"{"name": "n", "deadline": "1h", "retries": {"max": 3, "backoff": "2s", "on": ["lost"]},
            "on_lost": "rerun", "priority": -5, "queue": "q", "concurrency_key": "k", "concurrency_limit": 2,
            "labels": {"team": "a"}}"#;
        let fields: Fields = serde_json::from_str(json).unwrap();
        let command = serde_json::from_value(serde_json::json!({"argv": ["true"]})).unwrap();
        let place = JobPlace::Existing(events::SandboxId::new());
        let spec =
            fields.spec(ScheduleId::from_bytes([1; 16]), place, command, vec!["A".to_owned()]).unwrap();
        assert_eq!((spec.deadline_ms, spec.priority, spec.queue.as_str()), (Some(3_600_000), -5, "q"));
        assert_eq!(
            (spec.retries.max, spec.retries.backoff_ms, &spec.retries.on),
            (3, 2_000, &vec![RetryOn::Lost])
        );
        assert_eq!((spec.on_lost, spec.concurrency_limit, spec.has_sealed), (OnLost::Rerun, Some(2), true));
        assert_eq!(spec.schedule, Some(ScheduleId::from_bytes([1; 16]).to_string()));
    }
}
