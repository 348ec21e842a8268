//! From the request of a job to what it is to do, with what only its driver may know beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use api_types::{CallbackRequest, ExecRequest, JobRequest, NeedRequest, RetriesRequest, SpawnRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use events::{
    DEFAULT_QUEUE, JobCallback, JobContent, JobFile, JobId, JobNeed, JobPlace, JobRetries, JobSecrets,
    JobSpec, NeedCondition, OnLost, RetryOn, SandboxId, SecretMap, Template,
};
use secrets::Redaction;
use spelling::{format_go_duration, parse_go_duration};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::exec::request::{check_message, runnable};
use crate::gateway::Gateway;
use crate::routes::files::path::{mode, path, pattern};
use crate::routes::sandboxes::plan::{check_image, labels, no_provider, plan};
use crate::routes::templates;
use crate::routes::webhooks::spec::check_url;
use crate::variables::{Variables, fingerprints};

/// The longest name of a job and of a concurrency key, in bytes.
pub(crate) const MAX_NAME: usize = 128;
/// The longest name of a queue, in bytes.
pub(crate) const MAX_QUEUE: usize = 64;
/// How many files a job may bring, need and leave.
pub(crate) const MAX_FILES: usize = 256;
pub(crate) const MAX_NEEDS: usize = 256;
pub(crate) const MAX_GLOBS: usize = 64;
/// How many bytes it may bring, in all its files and its input.
pub(crate) const MAX_CONTENT: usize = 64 << 10;
pub(crate) const MAX_RETRIES: u32 = 100;
pub(crate) const MAX_EXIT_CODES: usize = 64;
pub(crate) const MAX_CONCURRENCY: u32 = 100_000;
pub(crate) const MAX_TOKEN: usize = 8 << 10;
pub(crate) const MAX_HEADERS: usize = 32;
pub(crate) const MAX_HEADER: usize = 4 << 10;
pub(crate) const PRIORITIES: std::ops::RangeInclusive<i32> = -100..=100;
pub(crate) const FACTORS: std::ops::RangeInclusive<f64> = 1.0..=10.0;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How far ahead a job may look.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// A job that can be submitted.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it is to do, without what is masked in it.
    pub spec: JobSpec,
    /// What only its driver may know.
    pub secrets: JobSecrets,
    /// What is masked in its events.
    pub redaction: Redaction,
}

/// Checks a request, with all that has to be looked up for it.
pub(crate) async fn read(gateway: &Gateway, caller: &Caller, request: JobRequest) -> Result<Plan, ApiError> {
    let template = match request.template.as_deref().filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let template = templates::find(gateway, caller, name).await?;
            let variables = templates::sealed::open(gateway, &caller.tenant, &template)?;
            Some((template, variables))
        }
    };
    let sandbox = match request.sandbox.as_deref().filter(|id| !id.is_empty()) {
        None => None,
        Some(id) => {
            let id: SandboxId = id.parse().map_err(|_| crate::gateway::no_sandbox(id))?;
            // Whose sandbox it is, and that it is there.
            Some(gateway.sandbox(caller, id).await?.id)
        }
    };
    let plan = checked(request, (template, sandbox), gateway.clock().now(), &Limits::of(gateway, caller))?;
    if let JobPlace::Fresh(sandbox) = &plan.spec.place {
        check_image(&caller.tenant, &sandbox.image, &gateway.config().sandboxes)?;
        let known = gateway.config().sandboxes.known_providers.contains(&sandbox.provider);
        let seen = || {
            let nodes = gateway.view().nodes();
            nodes.iter().any(|node| node.heartbeat.providers.iter().any(|it| it.name == sandbox.provider))
        };
        if !known && !seen() {
            return Err(no_provider(sandbox.provider.as_str()));
        }
    }
    check_needs(gateway, caller, &plan.spec.needs).await?;
    Ok(plan)
}

/// What a request is checked against.
pub(crate) struct Limits<'a> {
    /// What the operator allows.
    pub config: &'a crate::config::GatewayConfig,
    /// Whose job it is to be.
    pub tenant: &'a events::TenantId,
    /// The user on whose behalf it is submitted.
    pub user: Option<&'a str>,
}

impl<'a> Limits<'a> {
    fn of(gateway: &'a Gateway, caller: &'a Caller) -> Self {
        Self { config: gateway.config(), tenant: &caller.tenant, user: caller.user.as_deref() }
    }
}

/// The same, as far as nothing has to be looked up.
pub(crate) fn checked(
    request: JobRequest,
    (template, sandbox): (Option<(Template, Variables)>, Option<SandboxId>),
    now: DateTime<Utc>,
    limits: &Limits<'_>,
) -> Result<Plan, ApiError> {
    let command = ExecRequest {
        command: request.command.clone(),
        args: request.args.clone(),
        mode: request.mode.clone(),
        workdir: request.workdir.clone(),
        timeout: request.timeout.clone(),
        env: request.env.clone(),
        secrets: request.secrets.clone(),
        ..ExecRequest::default()
    };
    let mut command = runnable(command, &limits.config.execs)?;
    let (place, env, secret_names) = match sandbox {
        Some(sandbox) => {
            refuse_box(&request)?;
            (JobPlace::Existing(sandbox), command.env, command.spec.secret_names.clone())
        }
        None => {
            // The variables are the sandbox's too: its template may have commands that need them.
            let mut plan = plan(of_box(&request), template, limits.user, &limits.config.sandboxes)?;
            plan.spec.env_hmac = fingerprints(&limits.config.master_key, limits.tenant, &plan.env);
            let secret_names = plan.spec.secret_names.clone();
            (JobPlace::Fresh(plan.spec), plan.env, secret_names)
        }
    };
    command.spec.env_hmac = fingerprints(&limits.config.master_key, limits.tenant, &env);
    command.spec.secret_names = secret_names;
    let redaction =
        Redaction::from(&limits.config.redaction).with_secrets(env.of(&command.spec.secret_names));
    let mut room = MAX_CONTENT;
    let files = list("files", MAX_FILES, request.files)?;
    let files = files.into_iter().map(|file| read_file(file, &mut room)).collect::<Result<_, _>>()?;
    let stdin = match (request.stdin, request.stdin_b64) {
        (None, None) => None,
        (text, bytes) => {
            let (text, bytes) = (text.map(|text| text.0), bytes.map(|bytes| bytes.0));
            Some(content("stdin", (text, bytes), &mut room)?)
        }
    };
    let (callback, token, headers) = request.callback.map_or_else(
        || Ok((None, None, SecretMap::default())),
        |callback| {
            read_callback(callback, limits).map(|(callback, token, headers)| (Some(callback), token, headers))
        },
    )?;
    let needs = list("needs", MAX_NEEDS, request.needs)?;
    let concurrency_key = text("concurrency_key", request.concurrency_key)?;
    if concurrency_key.is_none() && request.concurrency_limit.is_some() {
        return Err(wrong("concurrency_limit goes with concurrency_key"));
    }
    let secrets =
        JobSecrets { env, callback_token: token, callback_headers: headers, ..JobSecrets::default() };
    let spec = JobSpec {
        name: text("name", request.name)?,
        place,
        command: command.spec,
        env_names: secrets.env.names(),
        files,
        stdin,
        deadline_ms: millis("deadline", request.deadline, YEAR)?,
        run_at: request.run_at.as_deref().map(|at| run_at(at, now)).transpose()?,
        retries: request.retries.map_or_else(|| Ok(JobRetries::default()), retries)?,
        on_lost: match filled(request.on_lost.as_deref()) {
            None | Some("fail") => OnLost::Fail,
            Some("rerun") => OnLost::Rerun,
            Some(_) => return Err(wrong("on_lost must be fail or rerun")),
        },
        priority: priority(request.priority)?,
        queue: queue(request.queue)?,
        concurrency_key,
        concurrency_limit: request.concurrency_limit.map(concurrency).transpose()?,
        needs: needs.into_iter().map(need).collect::<Result<_, _>>()?,
        labels: labels(request.labels.unwrap_or_default())
            .map_err(|error| wrong(error.to_string().replacen("metadata", "labels", 1)))?,
        artifacts: globs("artifacts", request.artifacts)?,
        keep_sandbox_ms: millis("keep_sandbox", request.keep_sandbox, DAY)?,
        heartbeat_timeout_ms: heartbeat(request.heartbeat_timeout)?,
        ttl_after_end_ms: millis("ttl_after_end", request.ttl_after_end, YEAR)?,
        callback,
        retry_of: None,
        schedule: None,
        has_sealed: !secrets.is_empty(),
        idempotency_key: None,
        request_digest: None,
    };
    check_message(&spec)?;
    check_message(&secrets)?;
    Ok(Plan { spec, secrets, redaction })
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::bad_request(message.into())
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The sandbox that a job asks for.
fn of_box(request: &JobRequest) -> SpawnRequest {
    SpawnRequest {
        image: request.image.clone(),
        provider: request.provider.clone(),
        pool: request.pool.clone(),
        memory_mb: request.memory_mb,
        vcpus: request.vcpus,
        pids_limit: request.pids_limit,
        network: request.network.clone(),
        runtime: request.runtime.clone(),
        env: request.env.clone(),
        secrets: request.secrets.clone(),
        ..SpawnRequest::default()
    }
}

/// A sandbox that is there is what it is.
fn refuse_box(request: &JobRequest) -> Result<(), ApiError> {
    let texts = [
        ("image", &request.image),
        ("template", &request.template),
        ("provider", &request.provider),
        ("pool", &request.pool),
        ("network", &request.network),
        ("runtime", &request.runtime),
        ("keep_sandbox", &request.keep_sandbox),
    ];
    let text = texts.iter().find(|(_, text)| filled(text.as_deref()).is_some()).map(|(name, _)| *name);
    let number = [
        ("memory_mb", request.memory_mb.is_some_and(|mib| mib > 0)),
        ("vcpus", request.vcpus.is_some_and(|cpus| cpus != 0.0)),
        ("pids_limit", request.pids_limit.is_some_and(|pids| pids > 0)),
    ];
    let number = number.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    match text.or(number) {
        None => Ok(()),
        Some(name) => {
            Err(wrong(format!("{name} says what a fresh sandbox is like: it does not go with sandbox")))
        }
    }
}

fn list<T>(name: &str, most: usize, entries: Option<Vec<T>>) -> Result<Vec<T>, ApiError> {
    let entries = entries.unwrap_or_default();
    if entries.len() > most {
        return Err(wrong(format!("{name} has more than {most} entries")));
    }
    Ok(entries)
}

fn text(name: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > MAX_NAME || text.chars().any(char::is_control) => {
            Err(wrong(format!("{name} must be at most {MAX_NAME} bytes without control characters")))
        }
        text => Ok(text),
    }
}

/// The name of a queue, or the usual one.
pub(crate) fn queue(name: Option<String>) -> Result<String, ApiError> {
    match name.filter(|name| !name.is_empty()) {
        None => Ok(DEFAULT_QUEUE.to_owned()),
        Some(name) if is_queue(&name) => Ok(name),
        Some(_) => Err(wrong(format!(
            "queue must be 1 to {MAX_QUEUE} characters of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with a dot"
        ))),
    }
}

fn is_queue(name: &str) -> bool {
    name.len() <= MAX_QUEUE
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn priority(priority: Option<i32>) -> Result<i16, ApiError> {
    let priority = priority.unwrap_or_default();
    let fits = PRIORITIES.contains(&priority).then(|| i16::try_from(priority).ok()).flatten();
    fits.ok_or_else(|| wrong("priority must be -100 to 100"))
}

fn concurrency(limit: u32) -> Result<u32, ApiError> {
    if (1..=MAX_CONCURRENCY).contains(&limit) {
        return Ok(limit);
    }
    Err(wrong(format!("concurrency_limit must be 1 to {MAX_CONCURRENCY}")))
}

/// A length of time, of more than nothing.
pub(super) fn length(name: &str, text: Option<&str>, most: Duration) -> Result<Option<Duration>, ApiError> {
    let Some(text) = filled(text) else { return Ok(None) };
    let length = parse_go_duration(text).map_err(|error| wrong(format!("{name}: {error}")))?;
    if length.is_zero() || length > most {
        return Err(wrong(format!("{name} must be more than 0s and at most {}", format_go_duration(most))));
    }
    Ok(Some(length))
}

fn in_millis(length: Duration) -> u64 {
    // Below a millisecond there is nothing to time.
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn millis(name: &str, text: Option<String>, most: Duration) -> Result<Option<u64>, ApiError> {
    Ok(length(name, text.as_deref(), most)?.map(in_millis))
}

fn heartbeat(text: Option<String>) -> Result<Option<u64>, ApiError> {
    let length = length("heartbeat_timeout", text.as_deref(), DAY)?;
    if length.is_some_and(|length| length < Duration::from_secs(1)) {
        return Err(wrong("heartbeat_timeout must be at least 1s"));
    }
    Ok(length.map(in_millis))
}

fn run_at(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| wrong("run_at must be an RFC 3339 time"))?;
    let at = at.with_timezone(&Utc);
    let last = TimeDelta::from_std(YEAR).ok().and_then(|year| now.checked_add_signed(year));
    if last.is_some_and(|last| at > last) {
        return Err(wrong("run_at must be at most 366 days ahead"));
    }
    Ok(at)
}

fn retries(request: RetriesRequest) -> Result<JobRetries, ApiError> {
    let default = JobRetries::default();
    let (factor, jitter) =
        (request.factor.unwrap_or(default.factor), request.jitter.unwrap_or(default.jitter));
    let max = request.max.unwrap_or_default();
    if max > MAX_RETRIES || !FACTORS.contains(&factor) || !(0.0..=1.0).contains(&jitter) {
        return Err(wrong(format!("retries: max must be 0 to {MAX_RETRIES}, factor 1 to 10, jitter 0 to 1")));
    }
    let on = match request.on {
        None => default.on,
        Some(words) => {
            let words = list("retries.on", 3, Some(words))?;
            words.iter().map(|word| retry_on(word)).collect::<Result<_, _>>()?
        }
    };
    Ok(JobRetries {
        max,
        backoff_ms: millis("retries.backoff", request.backoff, DAY)?.unwrap_or(default.backoff_ms),
        factor,
        max_backoff_ms: millis("retries.max_backoff", request.max_backoff, DAY)?
            .unwrap_or(default.max_backoff_ms),
        jitter,
        on,
        on_exit_codes: exit_codes("retries.on_exit_codes", request.on_exit_codes)?,
        not_on_exit_codes: exit_codes("retries.not_on_exit_codes", request.not_on_exit_codes)?,
    })
}

fn retry_on(word: &str) -> Result<RetryOn, ApiError> {
    match word {
        "failed" => Ok(RetryOn::Failed),
        "timed_out" => Ok(RetryOn::TimedOut),
        "lost" => Ok(RetryOn::Lost),
        _ => Err(wrong("retries.on must be failed, timed_out and lost")),
    }
}

fn exit_codes(name: &str, codes: Option<Vec<i32>>) -> Result<Vec<i32>, ApiError> {
    let codes = list(name, MAX_EXIT_CODES, codes)?;
    if codes.iter().any(|code| !(0..=255).contains(code)) {
        return Err(wrong(format!("{name} must be numbers of 0 to 255")));
    }
    Ok(codes)
}

fn need(request: NeedRequest) -> Result<JobNeed, ApiError> {
    let job = request.job.unwrap_or_default();
    let condition = match filled(request.condition.as_deref()) {
        None | Some("succeeded") => NeedCondition::Succeeded,
        Some("finished") => NeedCondition::Finished,
        Some(_) => return Err(wrong("needs: if must be succeeded or finished")),
    };
    Ok(JobNeed {
        job: job.parse().map_err(|_| no_need(&job))?,
        condition,
        artifacts: globs("needs.artifacts", request.artifacts)?,
        path: request
            .path
            .filter(|text| !text.is_empty())
            .map(|text| path(Some(text), "needs.as"))
            .transpose()?,
    })
}

/// A job can only need one that is there, so no two can need each other.
fn no_need(job: &str) -> ApiError {
    let shown: String = job.chars().take(64).collect();
    wrong(format!("needs: job {shown:?} does not exist"))
}

async fn check_needs(gateway: &Gateway, caller: &Caller, needs: &[JobNeed]) -> Result<(), ApiError> {
    if needs.is_empty() {
        return Ok(());
    }
    let wanted: BTreeSet<JobId> = needs.iter().map(|need| need.job).collect();
    if wanted.len() < needs.len() {
        return Err(wrong("needs names a job twice"));
    }
    for job in wanted {
        if super::recorded(gateway, &caller.tenant, job).await?.is_none() {
            return Err(no_need(&job.to_string()));
        }
    }
    Ok(())
}

fn globs(name: &'static str, globs: Option<Vec<String>>) -> Result<Vec<String>, ApiError> {
    let globs = list(name, MAX_GLOBS, globs)?;
    globs.into_iter().map(|glob| pattern(Some(glob), name)).collect()
}

fn read_file(file: api_types::JobFileRequest, room: &mut usize) -> Result<JobFile, ApiError> {
    let (text, bytes) = (file.content.map(|text| text.0), file.content_b64.map(|bytes| bytes.0));
    if text.is_none() && bytes.is_none() {
        return Err(wrong("files: content or content_b64 is missing"));
    }
    Ok(JobFile {
        path: path(file.path, "files.path")?,
        mode: filled(file.mode.as_deref()).map(mode).transpose()?,
        content: content("files.content", (text, bytes), room)?,
    })
}

/// Bytes that come with the request, as text or in base 64.
fn content(
    name: &str,
    (text, bytes): (Option<String>, Option<String>),
    room: &mut usize,
) -> Result<JobContent, ApiError> {
    let encoded = match (text, bytes) {
        (Some(_), Some(_)) => return Err(wrong(format!("{name} and {name}_b64 exclude each other"))),
        (Some(text), None) => BASE64.encode(text),
        (None, bytes) => bytes.unwrap_or_default(),
    };
    let decoded =
        BASE64.decode(&encoded).map_err(|_| wrong(format!("{name}_b64 is not base 64 with its padding")))?;
    *room = room.checked_sub(decoded.len()).ok_or_else(|| {
        ApiError::too_large(format!(
            "the contents of files and of stdin are over the limit of {MAX_CONTENT} bytes together: larger ones cannot come with a job"
        ))
    })?;
    Ok(JobContent::Inline(encoded))
}

type Callback = (JobCallback, Option<String>, SecretMap);

fn read_callback(request: CallbackRequest, limits: &Limits<'_>) -> Result<Callback, ApiError> {
    let url = request.url.ok_or_else(|| wrong("callback: url is missing"))?;
    let url =
        check_url(&url, &limits.config.webhooks).map_err(|error| wrong(format!("callback: {error}")))?;
    let token = request.token.map(|token| token.0);
    if token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
        return Err(wrong(format!("callback: token must be at most {MAX_TOKEN} bytes")));
    }
    let headers = request.headers.unwrap_or_default().0;
    if headers.len() > MAX_HEADERS {
        return Err(wrong(format!("callback: headers has more than {MAX_HEADERS} entries")));
    }
    for (name, value) in &headers {
        check_header(name, value)?;
    }
    let header_names = headers.keys().cloned().collect();
    Ok((JobCallback { url, header_names }, token, SecretMap(headers)))
}

/// Headers that say how a request is carried are not a client's to say.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

fn check_header(name: &str, value: &str) -> Result<(), ApiError> {
    use axum::http::{HeaderName, HeaderValue};
    let good = HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| {
        !RESERVED.contains(&name.as_str())
            && !name.as_str().starts_with("webhook-")
            && !name.as_str().starts_with("proxy-")
    });
    if !good || name.len() > MAX_NAME {
        return Err(wrong(
            "callback: headers has a name that cannot be sent, or that is not a client's to set",
        ));
    }
    if value.len() > MAX_HEADER || HeaderValue::from_str(value).is_err() {
        return Err(wrong("callback: headers has a value that cannot be sent"));
    }
    Ok(())
}
