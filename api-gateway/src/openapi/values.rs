//! Which values parameters and fields of requests may have: from the same constants that the endpoints check them with.
//!
//! A parameter or field that has none here fails a test of the document.

use std::collections::BTreeSet;

use api_types::Word as _;
use events::{EventData, Webhook};
use secrets::{MAX_SECRETS, MIN_SECRET_BYTES};

use super::limits::Limit;
use crate::auth::viewer;
use crate::config::{GatewayConfig, SandboxLimits};
use crate::exec::signal::SIGNALS;
use crate::routes::audit;
use crate::routes::execs::list as execs;
use crate::routes::files::path::PATH_MAX;
use crate::routes::jobs::{batch as job_batch, list as jobs, spec as job, timeline as job_timeline};
use crate::routes::sandboxes::{list as sandboxes, logs, plan, timeline};
use crate::routes::schedules::{sealed, spec as schedule, work};
use crate::routes::templates::save;
use crate::routes::webhooks::spec;
use crate::{auth, exec::request as exec, idempotency};

/// 63 bits are what every database counts in.
const MOST: u64 = i64::MAX.unsigned_abs();
/// No URL is longer, and no header: what has no limit of its own has this one.
const MAX_IN_HEAD: usize = 4096;
/// Longer than any duration that somebody writes, in characters.
const MAX_DURATION: usize = 64;
/// Any characters, but none that ends a C string.
const NO_NUL: &str = "^[^\\u0000]*$";
const SOME_NO_NUL: &str = "^[^\\u0000]+$";
const SANDBOX: &str = "^sb-[0-7][0-9a-hjkmnp-tv-z]{25}$";
const EXEC: &str = "^ex-[0-7][0-9a-hjkmnp-tv-z]{25}$";
const WEBHOOK: &str = "^wh-[0-7][0-9a-hjkmnp-tv-z]{25}$";
const SCHEDULE: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$";
const JOB: &str = "^job-[0-7][0-9a-hjkmnp-tv-z]{25}$";
const QUEUE: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$";
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
const VIEWER: &str = "^vl-[A-Za-z0-9_-]{1,61}$";
const TIME: &str = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])$";
/// In the syntax of Go.
const DURATION: &str = "^(0|\\+?(([0-9]{1,18}(\\.[0-9]{0,18})?|\\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h))+)$";
const OCTAL: &str = "(0o)?0?[0-7]{1,4}";

fn position() -> Limit {
    Limit::whole(0, MOST)
}

/// A position, or a time.
fn moment() -> Limit {
    position().or(Limit::text(64, TIME).formatted("date-time"))
}

/// A length of time. Which are too long or too short is said in the description.
fn duration() -> Limit {
    Limit::text(MAX_DURATION, DURATION).formatted("go-duration")
}

/// The same, or nothing for the default.
fn optional_duration() -> Limit {
    Limit::text(MAX_DURATION, &optional(DURATION)).formatted("go-duration")
}

fn optional(pattern: &str) -> String {
    format!("^({})?$", pattern.trim_start_matches('^').trim_end_matches('$'))
}

fn path() -> Limit {
    Limit::text(PATH_MAX - 1, SOME_NO_NUL).formatted("sandbox-path")
}

/// A name of an event, a category, or all.
fn event_type() -> Limit {
    let names = EventData::TYPES.iter().copied().filter(|name| !Webhook::select(name).is_empty());
    let mut all: Vec<String> = names.map(str::to_owned).collect();
    let categories: BTreeSet<String> = all
        .iter()
        .filter_map(|name| name.split_once('.'))
        .map(|(category, _)| format!("{category}.*"))
        .collect();
    all.extend(categories);
    all.push("*".to_owned());
    Limit::words(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn event_types() -> Limit {
    let one = "[a-z]+\\.([a-z_]+|\\*)";
    Limit::text(MAX_IN_HEAD, &format!("^{one}(, ?{one})*$")).formatted("event-types")
}

fn image() -> Limit {
    Limit::text(plan::MAX_IMAGE, &format!("^([!-,.-~][!-~]{{0,{}}})?$", plan::MAX_IMAGE - 1))
}

fn environment() -> Limit {
    let names = Limit::text(1024, "^[^=\\u0000]+$");
    Limit::map(exec::MAX_ENTRIES, names, Limit::text(exec::MAX_ARG_BYTES - 1026, NO_NUL))
}

fn secrets() -> Limit {
    let names = Limit::text(1024, "^[^=\\u0000]+$");
    // A character has a byte at least.
    let values = Limit::text(4096, &format!("^[^\\u0000]{{{MIN_SECRET_BYTES},}}$"));
    Limit::map(MAX_SECRETS, names, values)
}

fn metadata() -> Limit {
    let names = Limit::text(plan::MAX_LABEL_NAME, SOME_NO_NUL);
    Limit::map(plan::MAX_LABELS, names, Limit::text(plan::MAX_LABEL_VALUE, NO_NUL))
}

fn memory(limits: &SandboxLimits) -> Limit {
    Limit::whole(plan::MIN_MEMORY_MIB.into(), limits.max_memory_mib.into()).or_zero()
}

/// What a parameter may be. `path` is without the prefix.
pub(super) fn parameter(path: &str, name: &str) -> Option<Limit> {
    let ends = |end: &str| path.ends_with(end);
    Some(match name {
        "id" if path.starts_with("/sandboxes/") => Limit::text(29, SANDBOX),
        "id" if path.starts_with("/execs/") => Limit::text(29, EXEC),
        "id" if path.starts_with("/jobs/") => Limit::text(30, JOB),
        "archive" => Limit::words(&["tar"]),
        "id" if path.starts_with("/webhooks/") => Limit::text(29, WEBHOOK),
        "id" if path.starts_with("/schedules/") => Limit::text(schedule::MAX_NAME, SCHEDULE),
        "id" if path.starts_with("/viewers/") => Limit::text(64, VIEWER),
        "viewer" | "link" if path.contains("/viewers/") => Limit::text(64, VIEWER),
        "viewer" => Limit::text(viewer::MAX_LEN, "^[A-Za-z0-9_.-]+$"),
        "name" if path.starts_with("/templates/") => {
            Limit::text(save::MAX_NAME, "^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
        }
        "name" if path.starts_with("/providers/") => Limit::text(plan::MAX_PROVIDER, "^[A-Za-z0-9_-]+$"),
        "owner" => Limit::text(auth::MAX_USER_CHARS, "^[^\\s\\u0000-\\u001f\\u007f-\\u009f/\\\\]+$"),
        "tenant" => Limit::text(64, "^([A-Za-z0-9_-]{1,64}|\\*)$"),
        "actor" | "user" => Limit::text(MAX_IN_HEAD, NO_NUL),
        "label" => Limit::text(MAX_IN_HEAD, "^[^=\\u0000]+=[^\\u0000]*$"),
        "type" | "types" => event_types(),
        "sandbox" | "sandbox_id" => Limit::text(29, SANDBOX),
        "exec" => Limit::text(29, EXEC),
        "request_id" => Limit::text(128, "^[!-~]+$"),
        "after" | "needs" if ends("/jobs") => Limit::text(30, JOB),
        "limit" if ends("/jobs") => Limit::whole(1, jobs::MAX_LIMIT.into()),
        "limit" if path.starts_with("/jobs/") => Limit::whole(1, job_timeline::MAX_ENTRIES.into()),
        "state" if ends("/jobs") => {
            let words: Vec<&str> = api_types::JobState::ALL.iter().map(|word| word.as_str()).collect();
            Limit::words(&words)
        }
        "queue" => Limit::text(job::MAX_QUEUE, QUEUE),
        "schedule" => Limit::text(MAX_IN_HEAD, NO_NUL),
        "created_after" => Limit::text(64, TIME).formatted("date-time"),
        "idempotency_key" => Limit::text(idempotency::MAX_KEY_CHARS, "^[!-~]+$"),
        "attempt" => Limit::whole(1, u32::MAX.into()).or(Limit::words(&["last", "all"])),
        "wait" => duration(),
        "order" => Limit::words(&["asc", "desc"]),
        "before" if ends("/execs") => Limit::text(29, EXEC),
        "before" => Limit::text(29, SANDBOX),
        "limit" if ends("/execs") => Limit::whole(1, execs::MAX_LIMIT.into()),
        "limit" if ends("/sandboxes") => Limit::whole(1, sandboxes::MAX_LIMIT.into()),
        "limit" if ends("/timeline") => Limit::whole(1, timeline::MAX_ENTRIES.into()),
        "limit" => Limit::whole(1, audit::query::MOST as u64),
        "lines" => Limit::whole(1, logs::MAX_LINES as u64),
        "from" | "to" if path.starts_with("/audit") => Limit::text(64, TIME).formatted("date-time"),
        "from" if path.starts_with("/events") => moment().or(Limit::words(&["now"])),
        "from" | "to" | "at" => moment(),
        "after" | "offset" | "stdout_offset" | "stderr_offset" | "Last-Event-ID" => position(),
        "format" if ends("/recording") => Limit::words(&["asciicast-v3", "asciicast-v2"]),
        "format" if ends("/audit/export") => Limit::words(&["ndjson", "csv", "cloudevents"]),
        "format" => Limit::words(&["sse", "ndjson"]),
        "mode" if ends("/attach") => Limit::words(&["rw", "ro"]),
        "mode" => Limit::text(7, &format!("^({OCTAL})?$")),
        "stream" => Limit::words(&["stdout", "stderr", "both"]),
        "state" => Limit::words(&["running", "ended"]),
        "records" => Limit::words(&["output", "all"]),
        "follow" | "close" | "all" | "bodies" | "recursive" | "quick" => Limit::flag(),
        "speed" => {
            let range = crate::stream::pacer::Speed::RANGE;
            Limit::number(*range.start(), *range.end()).or(Limit::words(&["max"]))
        }
        "idle_limit" => duration(),
        "path" => self::path(),
        "pattern" => Limit::text(PATH_MAX - 1, SOME_NO_NUL).formatted("sandbox-glob"),
        "Idempotency-Key" => Limit::text(idempotency::MAX_KEY_CHARS, "^[!-~]+$"),
        // What is no range of bytes is passed over, as RFC 9110 wants it.
        "Range" => {
            Limit::text(64, "^bytes=([0-9]{1,18}-([0-9]{1,18})?|-[0-9]{1,18})$").formatted("byte-range")
        }
        // Anything may name a version; what is none of the file's has the whole sent.
        "If-Range" => Limit::text(64, "^[!-~ ]+$"),
        _ => return None,
    })
}

/// What a field of the request of a job, or of a part of it, may be, where it is not as elsewhere.
fn field_of_job(kind: &str, name: &str) -> Option<Limit> {
    let globs =
        || Limit::list(job::MAX_GLOBS, Limit::text(PATH_MAX - 1, SOME_NO_NUL).formatted("sandbox-glob"));
    let exit_codes = || Limit::list(job::MAX_EXIT_CODES, Limit::whole(0, 255));
    let line = || Limit::text(job::MAX_NAME, "^[^\\u0000-\\u001f\\u007f-\\u009f]*$");
    let base64 = || Limit::text(job::MAX_CONTENT.div_ceil(3) * 4, BASE64);
    Some(match (kind, name) {
        ("JobRequest", "name" | "concurrency_key") => line(),
        ("JobRequest", "idempotency_key") => Limit::text(idempotency::MAX_KEY_CHARS, "^[!-~]*$"),
        ("JobRequest", "queue") => Limit::text(job::MAX_QUEUE, &optional(QUEUE)),
        ("JobRequest", "priority") => {
            let (least, most) = (*job::PRIORITIES.start(), *job::PRIORITIES.end());
            Limit::signed(least.into(), most.into())
        }
        ("JobRequest", "concurrency_limit") => Limit::whole(1, job::MAX_CONCURRENCY.into()),
        ("JobRequest", "on_lost") => Limit::words(&["", "fail", "rerun"]),
        ("JobRequest", "run_at") => Limit::text(64, TIME).formatted("date-time"),
        ("JobRequest", "deadline" | "keep_sandbox" | "ttl_after_end" | "heartbeat_timeout") => {
            optional_duration()
        }
        ("JobRequest", "sandbox") => Limit::text(29, &optional(SANDBOX)),
        ("JobRequest" | "NeedRequest", "artifacts") => globs(),
        ("JobRequest", "labels") => metadata(),
        ("JobRequest" | "JobFileRequest", "stdin" | "content") => {
            Limit::text(job::MAX_CONTENT, "^[\\s\\S]*$")
        }
        ("JobRequest" | "JobFileRequest", "stdin_b64" | "content_b64") => base64(),
        ("JobFileRequest", "path") => path(),
        ("JobFileRequest", "mode") => Limit::text(7, &format!("^({OCTAL})?$")),
        ("RetriesRequest", "max") => Limit::whole(0, job::MAX_RETRIES.into()),
        ("RetriesRequest", "backoff" | "max_backoff") => optional_duration(),
        ("RetriesRequest", "factor") => Limit::number(*job::FACTORS.start(), *job::FACTORS.end()),
        ("RetriesRequest", "jitter") => Limit::number(0.0, 1.0),
        ("RetriesRequest", "on") => Limit::list(3, Limit::words(&["failed", "timed_out", "lost"])),
        ("RetriesRequest", "on_exit_codes" | "not_on_exit_codes") => exit_codes(),
        ("NeedRequest", "job") => Limit::text(idempotency::MAX_KEY_CHARS, "^[!-~]+$").formatted("job"),
        ("NeedRequest", "if") => Limit::words(&["", "succeeded", "finished"]),
        ("NeedRequest", "as") => Limit::text(PATH_MAX - 1, NO_NUL).formatted("sandbox-path"),
        ("CallbackRequest", "url") => {
            Limit::text(spec::MAX_URL, "^https://[^\\s@#]+$").formatted("public-url")
        }
        ("CallbackRequest", "token") => Limit::text(job::MAX_TOKEN, "^[\\s\\S]*$"),
        ("CallbackRequest", "headers") => {
            let names = Limit::text(job::MAX_NAME, "^[A-Za-z0-9_-]+$").formatted("free-header");
            Limit::map(job::MAX_HEADERS, names, Limit::text(job::MAX_HEADER, "^([!-~]([ -~]*[!-~])?)?$"))
        }
        ("JobRequest", "files") => Limit::list(job::MAX_FILES, Limit::kind("JobFileRequest")),
        ("JobRequest", "needs") => Limit::list(job::MAX_NEEDS, Limit::kind("NeedRequest")),
        ("BatchRequest", "jobs") => Limit::list(job_batch::MAX_JOBS, Limit::kind("JobRequest")),
        ("CancelRequest", "grace") => optional_duration(),
        _ => return None,
    })
}

/// What a field of the body of a request may be.
pub(super) fn field(kind: &str, name: &str, config: &GatewayConfig) -> Option<Limit> {
    if let Some(limit) = field_of_job(kind, name) {
        return Some(limit);
    }
    let limits = &config.sandboxes;
    Some(match (kind, name) {
        ("SpawnRequest" | "JobRequest", "vcpus" | "cpu_cores") => {
            Limit::number(0.01, f64::from(limits.max_cpu_millis) / 1000.0).or_zero()
        }
        ("SaveRequest", "vcpus" | "cpu_cores") => {
            Limit::whole(1, u64::from(limits.max_cpu_millis / 1000)).or_zero()
        }
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "memory_mb") => memory(limits),
        ("SpawnRequest" | "JobRequest", "pids_limit") => {
            Limit::whole(plan::MIN_PIDS.into(), limits.max_pids.into()).or_zero()
        }
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "metadata") => metadata(),
        ("SpawnRequest" | "SaveRequest" | "ExecRequest" | "JobRequest", "env") => environment(),
        ("SpawnRequest" | "SaveRequest" | "ExecRequest" | "JobRequest", "secrets") => secrets(),
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "provider") => {
            Limit::text(plan::MAX_PROVIDER, "^[A-Za-z0-9_-]*$").formatted("provider")
        }
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "network") if limits.allow_bridge_network => {
            Limit::words(&["", "none", "bridge"])
        }
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "network") => Limit::words(&["", "none"]),
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "capabilities") => match limits.capabilities {
            events::CapabilitySet::Standard => Limit::words(&["", "standard", "minimal"]),
            events::CapabilitySet::Minimal => Limit::words(&["", "minimal"]),
        },
        ("SpawnRequest" | "JobRequest", "image") => image(),
        ("SaveRequest", "image") => {
            Limit::text(plan::MAX_IMAGE, &format!("^[!-,.-~][!-~]{{0,{}}}$", plan::MAX_IMAGE - 1))
        }
        ("SpawnRequest" | "SaveRequest" | "JobRequest", "ttl") => optional_duration(),
        ("ExtendRequest", "ttl") => duration(),
        ("ViewerRequest", "ttl") => optional_duration(),
        ("SaveRequest", "ttl_seconds") => Limit::whole(0, limits.max_ttl.as_secs()),
        ("SpawnRequest" | "JobRequest", "owner_id") => {
            Limit::text(auth::MAX_USER_CHARS, "^[^\\s\\u0000-\\u001f\\u007f-\\u009f/\\\\]*$")
        }
        ("SpawnRequest" | "JobRequest", "template") => {
            Limit::text(save::MAX_NAME, "^[A-Za-z0-9._-]*$").formatted("template")
        }
        ("SpawnRequest" | "JobRequest", "pool") => {
            Limit::text(plan::MAX_PROVIDER, "^[A-Za-z0-9_-]*$").formatted("pool")
        }
        ("SpawnRequest" | "JobRequest", "runtime") => {
            Limit::text(plan::MAX_RUNTIME, "^[A-Za-z0-9._-]*$").formatted("runtime")
        }
        ("SaveRequest", "name") => {
            Limit::text(save::MAX_NAME, "^[A-Za-z0-9_-][A-Za-z0-9._-]*$").formatted("template")
        }
        ("SaveRequest", "description") => Limit::text(save::MAX_DESCRIPTION, "^[^\\u0000]*$"),
        ("SaveRequest", "version") => Limit::whole(0, u32::MAX.into()),
        ("SaveRequest", "setup") => {
            Limit::list(save::MAX_SETUP, Limit::text(1024, "^[^\\u0000]*[!-~][^\\u0000]*$"))
        }
        ("SaveRequest", "allowed_hosts") => {
            Limit::list(save::MAX_HOSTS, Limit::text(save::MAX_HOST_BYTES, "^[!-~]+$"))
        }
        ("ExecRequest" | "JobRequest", "command") => Limit::text(exec::MAX_ARG_BYTES - 1, NO_NUL),
        ("ExecRequest" | "JobRequest", "args") => {
            Limit::list(exec::MAX_ENTRIES, Limit::text(exec::MAX_ARG_BYTES - 1, NO_NUL))
        }
        ("ExecRequest" | "JobRequest", "mode") => Limit::words(&["", "shell", "argv"]),
        ("ExecRequest" | "JobRequest", "workdir") => Limit::text(exec::MAX_WORKDIR - 1, NO_NUL),
        ("ExecRequest" | "JobRequest", "user") => Limit::text(exec::MAX_USER - 1, NO_NUL),
        ("ExecRequest" | "JobRequest", "timeout" | "linger") => optional_duration(),
        ("ExecRequest" | "ResizeRequest", "rows" | "cols") => Limit::whole(1, u16::MAX.into()),
        ("SignalRequest", "signal") => {
            let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
            Limit::text(16, &format!("^((SIG)?({})|[1-9]|[1-5][0-9]|6[0-4])$", names.join("|")))
        }
        ("WriteRequest" | "ChmodRequest", "path") | ("MoveRequest", "old_path" | "new_path") => path(),
        ("WriteRequest", "content") => Limit::text(config.max_file_body_bytes, "^[\\s\\S]*$"),
        ("WriteRequest", "mode") => Limit::text(7, &format!("^({OCTAL})?$")),
        ("ChmodRequest", "mode") => {
            let clause = "[ugoa]*([-+=]([rwxXst]*|[ugo]))+";
            Limit::text(64, &format!("^({OCTAL}|{clause}(,{clause})*)$"))
        }
        ("ScheduleRequest", "job") => {
            let text = || Limit::text(sealed::MAX_JOB, NO_NUL);
            let plain = || text().or(Limit::number(-100.0, f64::from(u32::MAX)));
            let list = Limit::list(exec::MAX_ENTRIES, plain());
            let value = plain().or(list).or(Limit::map(exec::MAX_ENTRIES, text(), plain()));
            Limit::map(work::FIELDS.len(), Limit::words(&work::FIELDS), value)
        }
        ("ScheduleRequest", "name") => Limit::text(schedule::MAX_NAME, SCHEDULE),
        ("ScheduleRequest", "cron") => Limit::text(schedule::MAX_CRON, NO_NUL).formatted("cron"),
        ("ScheduleRequest", "every") => optional_duration(),
        ("ScheduleRequest", "at") => Limit::text(64, &optional(TIME)).formatted("date-time"),
        ("ScheduleRequest", "timezone") => Limit::text(64, "^[A-Za-z0-9_+/-]*$").formatted("timezone"),
        ("ScheduleRequest", "overlap") => Limit::words(&["", "skip", "queue", "replace"]),
        ("ScheduleRequest", "catch_up") => Limit::words(&["", "none", "last", "all"]),
        ("WebhookRequest", "url") => {
            Limit::text(spec::MAX_URL, "^https://[^\\s@#]+$").formatted("public-url")
        }
        ("WebhookRequest", "types") => Limit::list(spec::MAX_TYPES, event_type()),
        ("WebhookRequest", "description") => Limit::text(spec::MAX_DESCRIPTION, NO_NUL),
        ("WebhookRequest", "sandbox") => Limit::text(29, &optional(SANDBOX)),
        ("WebhookRequest", "secret") => Limit::text(94, "^(whsec_([A-Za-z0-9+/]{4}){8,21})?$"),
        ("WebhookRequest" | "RedeliverRequest", "from") => position().or(Limit::words(&["now"])),
        _ => return None,
    })
}
