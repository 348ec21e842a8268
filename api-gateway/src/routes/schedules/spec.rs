//! What a client may ask for, checked once.

use api_types::{ScheduleRequest, ScheduledJob};
use calendar::{Calendar, MAX_EXPRESSION, TimingError, Zone};
use chrono::{DateTime, SubsecRound, Utc};
use events::{CatchUp, Overlap, Timing};
use spelling::parse_go_duration;

use crate::error::ApiError;

pub(crate) const MAX_NAME: usize = 64;
pub(crate) const MAX_CRON: usize = MAX_EXPRESSION;

/// A request that is in order.
#[derive(Debug)]
pub(super) struct Spec {
    pub name: String,
    pub timing: Timing,
    pub timezone: String,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub job: ScheduledJob,
}

impl Spec {
    /// Checks what can be checked without looking at anything. A length of time is counted from `anchor`.
    pub fn read(
        request: ScheduleRequest,
        anchor: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Self, ApiError> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let name = name(request.name)?;
        let zone = Zone::new(given(request.timezone).as_deref().unwrap_or("UTC"))
            .map_err(|error| wrong("timezone", &error))?;
        let (timing, calendar) = match (given(request.cron), given(request.every), given(request.at)) {
            (Some(expression), None, None) => {
                let calendar = Calendar::cron(&expression, &zone).map_err(|error| wrong("cron", &error))?;
                (Timing::Cron(expression), calendar)
            }
            (None, Some(every), None) => {
                let length = parse_go_duration(&every)
                    .map_err(|error| ApiError::bad_request(format!("every: {error}")))?;
                let anchor = anchor.trunc_subsecs(0);
                let calendar = Calendar::every(length, anchor).map_err(|error| wrong("every", &error))?;
                (Timing::Every { seconds: length.as_secs(), anchor }, calendar)
            }
            (None, None, Some(at)) => {
                let at = Calendar::time(&at, &zone).map_err(|error| wrong("at", &error))?;
                (Timing::At(at), Calendar::once(at))
            }
            (None, None, None) => {
                return Err(ApiError::bad_request("one of cron, every and at must say when it is due"));
            }
            _ => return Err(ApiError::bad_request("only one of cron, every and at can say when it is due")),
        };
        if calendar.next(now).is_none() {
            return Err(ApiError::bad_request("it would never be due: at is in the past"));
        }
        Ok(Self {
            name,
            timing,
            timezone: zone.name().to_owned(),
            overlap: match given(request.overlap).as_deref() {
                None | Some("skip") => Overlap::Skip,
                Some("queue") => Overlap::Queue,
                Some("replace") => Overlap::Replace,
                Some(_) => return Err(ApiError::bad_request("overlap must be skip, queue or replace")),
            },
            catch_up: match given(request.catch_up).as_deref() {
                None | Some("none") => CatchUp::None,
                Some("last") => CatchUp::Last,
                Some("all") => CatchUp::All,
                Some(_) => return Err(ApiError::bad_request("catch_up must be none, last or all")),
            },
            job: request.job.ok_or_else(|| ApiError::bad_request("job is missing"))?,
        })
    }
}

fn wrong(field: &str, error: &TimingError) -> ApiError {
    ApiError::bad_request(format!("{field}: {error}"))
}

/// A name cannot be an id, so that either can stand in a path.
fn name(name: Option<String>) -> Result<String, ApiError> {
    let name = name.unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(good) {
        return Err(ApiError::bad_request(format!(
            "name must be 1 to {MAX_NAME} characters of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with a dot"
        )));
    }
    if name.starts_with(events::ScheduleId::PREFIX) {
        return Err(ApiError::bad_request(format!(
            "name must not begin with {}",
            events::ScheduleId::PREFIX
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::ErrorCode;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn read(body: &Value) -> Result<Spec, ApiError> {
        let request = serde_json::from_value(body.clone()).unwrap();
        Spec::read(request, at("2027-01-01T00:00:00.5Z"), at("2027-01-01T00:00:00.5Z"))
    }

    fn with(fields: &Value) -> Value {
        let mut body = json!({"name": "nightly", "job": {"image": "alpine"}});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    }

    #[test]
    fn what_is_left_out_is_the_plainest() {
        let spec = read(&with(&json!({"cron": "30 2 * * *", "overlap": "", "timezone": ""}))).unwrap();
        assert_eq!(spec.timing, Timing::Cron("30 2 * * *".to_owned()));
        assert_eq!(
            (spec.timezone.as_str(), spec.overlap, spec.catch_up),
            ("UTC", Overlap::Skip, CatchUp::None)
        );
        let spec = read(&with(&json!({"every": "1h30m", "timezone": "europe/berlin"}))).unwrap();
        assert_eq!(spec.timing, Timing::Every { seconds: 5400, anchor: at("2027-01-01T00:00:00Z") });
        assert_eq!(spec.timezone, "Europe/Berlin");
        let spec = read(&with(&json!({"at": "2027-03-28T02:30:00", "timezone": "Europe/Berlin"}))).unwrap();
        assert_eq!(spec.timing, Timing::At(at("2027-03-28T01:00:00Z")));
    }

    #[test]
    fn wrong_fields_are_bad_requests() {
        let cron = "@daily";
        for body in [
            json!({}),
            json!({"name": "a", "cron": cron}),
            json!({"cron": cron, "job": {}}),
            with(&json!({})),
            with(&json!({"cron": cron, "every": "1h"})),
            with(&json!({"cron": cron, "every": "1h", "at": "2028-01-01T00:00:00Z"})),
            with(&json!({"cron": "0 0 30 2 *"})),
            with(&json!({"cron": "* * * * * *"})),
            with(&json!({"cron": "tomorrow"})),
            with(&json!({"cron": "1,".repeat(200)})),
            with(&json!({"cron": cron, "timezone": "Europe/Bonn"})),
            with(&json!({"cron": cron, "timezone": "../../etc/passwd"})),
            with(&json!({"cron": cron, "overlap": "maybe"})),
            with(&json!({"cron": cron, "catch_up": "some"})),
            with(&json!({"cron": cron, "name": ""})),
            with(&json!({"cron": cron, "name": "a/b"})),
            with(&json!({"cron": cron, "name": ".."})),
            with(&json!({"cron": cron, "name": "x".repeat(MAX_NAME + 1)})),
            with(&json!({"cron": cron, "name": events::ScheduleId::new().to_string()})),
            with(&json!({"every": "9s"})),
            with(&json!({"every": "1500ms"})),
            with(&json!({"every": "10.5s"})),
            with(&json!({"every": "-1h"})),
            with(&json!({"every": "9000h"})),
            with(&json!({"every": "1d"})),
            with(&json!({"at": "2026-12-31T23:59:59Z"})),
            with(&json!({"at": "2027-02-30T00:00:00"})),
            with(&json!({"at": "soon"})),
        ] {
            assert_eq!(read(&body).unwrap_err().code(), ErrorCode::BadRequest, "{body}");
        }
    }
}
