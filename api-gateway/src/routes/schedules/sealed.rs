//! The request of a schedule's jobs: sealed in the log, and as it may be shown.

use api_types::ScheduledJob;
use events::{Schedule, ScheduleId, ScheduledWork, TenantId};
use secrets::MasterKey;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The most bytes that the request of a schedule's jobs may have, as JSON: it is an event, and all of them are in the memory of each gateway.
pub(crate) const MAX_JOB: usize = 64 << 10;
/// What stands for what is not shown.
const MASK: &str = "****";
/// Fields whose values are not shown, one by one.
const OF_VALUES: [&str; 3] = ["env", "secrets", "headers"];
/// Fields that are not shown.
const WHOLE: [&str; 6] = ["content", "content_b64", "stdin", "stdin_b64", "token", "password"];

/// Seals what the jobs are to do. Who submits them opens it.
pub(super) fn seal(
    key: &MasterKey,
    tenant: &TenantId,
    id: ScheduleId,
    work: &ScheduledWork,
) -> Result<String, ApiError> {
    let text = serde_json::to_string(work).map_err(ApiError::internal)?;
    if text.len() > MAX_JOB {
        return Err(ApiError::bad_request(format!("job must be at most {} KiB", MAX_JOB >> 10)));
    }
    let context = Schedule::seal_context(tenant, id);
    key.seal_text(Schedule::SEAL_PURPOSE, &context, &text).map_err(ApiError::internal)
}

/// The request as it may be shown, and be in the log: with the names of variables and files, and without what is in them.
pub(super) fn shown(job: &ScheduledJob) -> Value {
    let mut job = Value::Object(job.0.clone());
    mask(&mut job);
    job
}

/// The values that must not be found in the rest of the request either.
pub(super) fn secrets(job: &ScheduledJob) -> impl Iterator<Item = &str> {
    let secrets = job.0.get("secrets").and_then(Value::as_object);
    secrets.into_iter().flat_map(Map::values).filter_map(Value::as_str)
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let of_values = OF_VALUES.contains(&name.as_str());
                if let (true, Value::Object(values)) = (of_values, &mut *value) {
                    mask_all(values);
                } else if of_values || WHOLE.contains(&name.as_str()) {
                    *value = MASK.into();
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn mask_all(values: &mut Map<String, Value>) {
    values.values_mut().for_each(|value| *value = MASK.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(value: &Value) -> ScheduledJob {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn names_are_shown_and_what_they_stand_for_is_not() {
        let secret = "hunter2";
        let job = job(&json!({
            "image": "alpine", "command": "make", "env": {"A": secret}, "secrets": {"B": secret}, "stdin": secret,
            "files": [{"path": "/a", "content": secret}, {"path": "/b", "content_b64": secret, "mode": "0644"}],
            "callback": {"url": "https://a.example/", "token": secret, "headers": {"Authorization": secret}},
        }));
        let shown = shown(&job);
        assert!(!shown.to_string().contains(secret), "{shown}");
        assert_eq!(shown["env"], json!({"A": "****"}));
        assert_eq!(shown["files"][1], json!({"path": "/b", "content_b64": "****", "mode": "0644"}));
        assert_eq!(
            (&shown["image"], &shown["callback"]["url"]),
            (&json!("alpine"), &json!("https://a.example/"))
        );
    }
}
