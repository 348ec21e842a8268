//! What a reader of events asks for, the same over every transport.

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use events::{EventData, ExecId, Position, RetentionClass, SandboxId, TenantId};
use feed::LogReader;
use record::EventFilter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::{Caller, log_of};
use crate::error::ApiError;
use crate::gateway::{Gateway, no_sandbox};
use crate::routes::execs::output::flag;

/// Which events.
#[derive(Debug, Default, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Where to begin: a position (that one included), `now`, or a time in RFC 3339 (the first event from then on).
    /// `now` by default.
    pub from: Option<String>,
    /// Only those after this position; 0 for all there ever were. `Last-Event-ID` wins over it, and it over `from`.
    pub after: Option<String>,
    /// `false`: end with the newest one there is, instead of waiting for more.
    pub follow: Option<String>,
    /// Only those of this sandbox.
    pub sandbox: Option<String>,
    /// The same under its older name.
    pub sandbox_id: Option<String>,
    /// Only those of this exec.
    pub exec: Option<String>,
    /// Only those of these types, separated by commas: `exec.exited,sandbox.*`.
    pub r#type: Option<String>,
    /// The same under its older name.
    pub types: Option<String>,
    /// Whose: for operators only. `*` for all there are.
    pub tenant: Option<String>,
    /// `true`: with the bytes of output and input, in base 64.
    pub bodies: Option<String>,
    /// `sse` or `ndjson`, over what `Accept` says.
    pub format: Option<String>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what comes.
    Now,
    /// After a position.
    After(Position),
    /// At a time.
    Time(DateTime<Utc>),
}

/// What was asked for, checked.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Where to begin.
    pub from: From,
    /// Which events.
    pub filter: EventFilter,
    /// Whether their bytes come with them.
    pub bodies: bool,
    /// Whether to wait for more at the end.
    pub follow: bool,
}

impl EventsQuery {
    /// Checks it, for this caller.
    pub fn read(&self, headers: &HeaderMap, caller: &Caller) -> Result<Wanted, ApiError> {
        let last = match headers.get("last-event-id").map(|value| value.to_str()) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => return Err(ApiError::bad_request("Last-Event-ID must be a position")),
        };
        let from = match last.filter(|text| !text.is_empty()).or(self.after.as_deref()) {
            Some(after) => From::After(position(after)?),
            None => from(self.from.as_deref())?,
        };
        let sandbox = self.sandbox.as_deref().or(self.sandbox_id.as_deref());
        let sandbox: Option<SandboxId> = sandbox
            .map(|text| text.parse().map_err(|_| ApiError::bad_request("sandbox is not the id of a sandbox")))
            .transpose()?;
        let exec: Option<ExecId> = self
            .exec
            .as_deref()
            .map(|text| text.parse().map_err(|_| ApiError::bad_request("exec is not the id of an exec")))
            .transpose()?;
        let types = match self.r#type.as_deref().or(self.types.as_deref()) {
            None => Vec::new(),
            Some(names) => event_types(names)?,
        };
        Ok(Wanted {
            from,
            filter: EventFilter {
                tenant: tenant(self.tenant.as_deref(), caller)?,
                sandbox,
                exec,
                types,
                subject: None,
            },
            bodies: flag(self.bodies.as_deref(), "bodies")?,
            follow: match self.follow.as_deref() {
                None => true,
                follow => flag(follow, "follow")?,
            },
        })
    }

    /// Whether lines are wanted instead of server-sent events.
    pub fn wants_lines(&self, headers: &HeaderMap) -> Result<bool, ApiError> {
        match self.format.as_deref() {
            Some("ndjson") => Ok(true),
            Some("sse") => Ok(false),
            Some(_) => Err(ApiError::bad_request("format must be sse or ndjson")),
            None => {
                let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
                Ok(accept.is_some_and(|accept| {
                    accept.split(',').any(|kind| {
                        let kind = kind.split(';').next().unwrap_or_default().trim();
                        kind.eq_ignore_ascii_case("application/x-ndjson")
                    })
                }))
            }
        }
    }
}

fn from(text: Option<&str>) -> Result<From, ApiError> {
    match text {
        None | Some("" | "now") => Ok(From::Now),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(From::After(Position(position(digits)?.0.saturating_sub(1))))
        }
        Some(time) => DateTime::parse_from_rfc3339(time)
            .map(|time| From::Time(time.with_timezone(&Utc)))
            .map_err(|_| ApiError::bad_request("from must be a position, now, or a time in RFC 3339")),
    }
}

/// A position as clients write it.
pub fn position(text: &str) -> Result<Position, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(position) if digits => Ok(Position(position.unsigned_abs())),
        _ => Err(ApiError::bad_request("a position is a number: the id of an event of this stream")),
    }
}

/// Names of types, of which `category.*` is all of one category.
pub fn event_types(names: &str) -> Result<Vec<String>, ApiError> {
    let mut types = Vec::new();
    for name in names.split(',').map(str::trim) {
        let category = name.strip_suffix('*').filter(|category| category.ends_with('.'));
        let named: Vec<&str> = EventData::TYPES
            .iter()
            .copied()
            .filter(|known| match category {
                Some(category) => known.starts_with(category),
                None => *known == name,
            })
            .collect();
        // Each once, however often it is named.
        for name in &named {
            if !types.iter().any(|known| known == name) {
                types.push((*name).to_owned());
            }
        }
        if named.is_empty() {
            return Err(ApiError::bad_request("type has a name that is no event type"));
        }
    }
    Ok(types)
}

/// The tenant whose events are shown; `None` is all. The caller's own where none is named.
fn tenant(wanted: Option<&str>, caller: &Caller) -> Result<Option<TenantId>, ApiError> {
    wanted.map_or_else(|| Ok(Some(caller.tenant.clone())), |name| log_of(caller, name))
}

impl Wanted {
    /// A reader of it, and where it ends if it does not follow.
    pub async fn open(
        self,
        gateway: &Gateway,
        caller: &Caller,
    ) -> Result<(LogReader, Option<Position>), ApiError> {
        self.check_objects(gateway, caller).await?;
        let head = gateway.feed().head();
        let after = match self.from {
            From::Now => head,
            From::After(position) => position,
            From::Time(time) => {
                let first = gateway.store().position_at(time).await.map_err(ApiError::store)?;
                Position(first.0.saturating_sub(1))
            }
        };
        // A stream cannot say it any more once it has begun.
        let floors = gateway.store().floors().await.map_err(ApiError::store)?;
        let lifecycle = floors.iter().find(|floor| floor.class == RetentionClass::Lifecycle);
        if lifecycle.is_some_and(|floor| after < floor.up_to) {
            gateway.store().read_headers(&self.filter, after, 1).await.map_err(ApiError::store)?;
        }
        let reader = gateway.feed().log_reader(self.filter, self.bodies, after);
        Ok((reader, (!self.follow).then_some(head)))
    }

    /// A sandbox or exec that is gone still has its events; another tenant's has none.
    async fn check_objects(&self, gateway: &Gateway, caller: &Caller) -> Result<(), ApiError> {
        if let Some(sandbox) = self.filter.sandbox {
            match &self.filter.tenant {
                Some(tenant) => drop(gateway.any_sandbox(caller, tenant, sandbox).await?),
                None => {
                    let state = gateway.store().sandbox(sandbox).await.map_err(ApiError::store)?;
                    state.ok_or_else(|| no_sandbox(sandbox))?;
                }
            }
        }
        if let Some(exec) = self.filter.exec {
            match &self.filter.tenant {
                Some(tenant) => drop(gateway.recorded_exec(caller, tenant, exec).await?),
                None => {
                    let state = gateway.store().exec(exec).await.map_err(ApiError::store)?;
                    state.ok_or_else(|| ApiError::absent("exec", exec))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Action, Role};

    fn caller(role: Role) -> Caller {
        Caller::new("red".parse().unwrap(), role, Action::AuditList)
    }

    fn read(query: EventsQuery, last: Option<&str>) -> Result<Wanted, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert("last-event-id", last.parse().unwrap());
        }
        query.read(&headers, &caller(Role::Member))
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let query = || EventsQuery { after: Some("5".to_owned()), ..EventsQuery::default() };
        assert_eq!(read(query(), Some("7")).unwrap().from, From::After(Position(7)));
        assert_eq!(read(query(), Some("")).unwrap().from, From::After(Position(5)));
        assert_eq!(read(EventsQuery::default(), None).unwrap().from, From::Now);
    }

    #[test]
    fn from_is_a_position_a_word_or_a_time() {
        let at = |from: &str| {
            read(EventsQuery { from: Some(from.to_owned()), ..EventsQuery::default() }, None)
                .map(|wanted| wanted.from)
        };
        assert_eq!(at("1").unwrap(), From::After(Position(0)));
        assert_eq!(at("0").unwrap(), From::After(Position(0)));
        assert_eq!(at("17").unwrap(), From::After(Position(16)));
        assert_eq!(at("now").unwrap(), From::Now);
        let time = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        assert_eq!(at("2025-06-15T15:06:40Z").unwrap(), From::Time(time));
        assert_eq!(at("2025-06-15T17:06:40+02:00").unwrap(), From::Time(time));
        for bad in ["yesterday", "-1", "1.5", "2025-06-15", "9223372036854775808"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["nonsense", "-1", "1.5", "+1", "9223372036854775808"] {
            assert!(read(EventsQuery::default(), Some(bad)).is_err(), "{bad}");
        }
        for types in ["exec.exited,exec.nothing", "", "exec.*,", "*", "e*"] {
            let query = EventsQuery { r#type: Some(types.to_owned()), ..EventsQuery::default() };
            assert!(read(query, None).is_err(), "{types:?}");
        }
        let sandbox = EventsQuery { sandbox_id: Some("sb-*".to_owned()), ..EventsQuery::default() };
        assert!(read(sandbox, None).is_err());
    }

    #[test]
    fn types_are_names_and_categories() {
        let types = |types: &str| {
            let query = EventsQuery { r#type: Some(types.to_owned()), ..EventsQuery::default() };
            read(query, None).unwrap().filter.types
        };
        assert_eq!(types("exec.exited, sandbox.running"), ["exec.exited", "sandbox.running"]);
        assert!(types("sandbox.*").iter().all(|name| name.starts_with("sandbox.")));
        assert!(types("sandbox.*").len() > 5);
    }

    #[test]
    fn only_operators_see_other_tenants() {
        let tenant = |name: &str, role| {
            let query = EventsQuery { tenant: Some(name.to_owned()), ..EventsQuery::default() };
            query.read(&HeaderMap::new(), &caller(role)).map(|wanted| wanted.filter.tenant)
        };
        assert_eq!(tenant("red", Role::Member).unwrap().unwrap().as_str(), "red");
        assert_eq!(tenant("blue", Role::DeploymentAdmin).unwrap().unwrap().as_str(), "blue");
        assert_eq!(tenant("*", Role::DeploymentAdmin).unwrap(), None);
        for name in ["blue", "*", "", "no such name"] {
            assert!(tenant(name, Role::Member).is_err(), "{name}");
        }
    }
}
