//! What each tenant uses, by the log: a pure fold over all events. Whoever follows the log counts the same.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use events::{Event, EventData, ExecEvent, ExecId, ExecState, SandboxId, TenantId};

/// What an event takes beside its body, in bytes, about.
const EVENT_BYTES: u64 = 512;
/// How far back what is written is counted.
const WINDOW: TimeDelta = TimeDelta::hours(1);

/// What all tenants use.
#[derive(Debug, Clone, Default)]
pub struct Usage(HashMap<TenantId, Used>);

#[derive(Debug, Clone, Default)]
struct Used {
    execs: HashMap<SandboxId, HashSet<ExecId>>,
    /// Minutes, and what was written in each.
    written: VecDeque<(DateTime<Utc>, u64)>,
}

impl Usage {
    /// Goes on from what runs already.
    pub fn with(live: impl IntoIterator<Item = ExecState>) -> Self {
        let mut usage = Self::default();
        // An exec that has ended counts no more, though its output may still be open.
        for exec in live.into_iter().filter(|exec| exec.end.is_none()) {
            usage.of(&exec.tenant).execs.entry(exec.sandbox).or_default().insert(exec.id);
        }
        usage
    }

    fn of(&mut self, tenant: &TenantId) -> &mut Used {
        self.0.entry(tenant.clone()).or_default()
    }

    /// Counts an event.
    pub fn apply(&mut self, event: &Event) {
        let bytes = if let EventData::Exec(ExecEvent::Output(output)) = &event.data {
            output.bytes.len() as u64
        } else {
            0
        };
        let used = self.of(&event.tenant);
        used.write(event.time, EVENT_BYTES + bytes);
        let Some(sandbox) = event.sandbox else { return };
        if let EventData::Exec(ExecEvent::Requested(_) | ExecEvent::Started(_)) = &event.data {
            if let Some(exec) = event.data.exec() {
                used.execs.entry(sandbox).or_default().insert(exec);
            }
        } else if event.data.ends_exec() {
            if let (Some(exec), Some(execs)) = (event.data.exec(), used.execs.get_mut(&sandbox)) {
                execs.remove(&exec);
                if execs.is_empty() {
                    used.execs.remove(&sandbox);
                }
            }
        } else if event.data.ends_sandbox() {
            used.execs.remove(&sandbox);
        }
    }

    /// Whether an exec has been asked for or has begun, and has not ended.
    pub fn is_open(&self, tenant: &TenantId, sandbox: SandboxId, exec: ExecId) -> bool {
        let execs = self.0.get(tenant).and_then(|used| used.execs.get(&sandbox));
        execs.is_some_and(|execs| execs.contains(&exec))
    }

    /// How many of a tenant's execs are open: in all, and in one sandbox.
    pub fn open_execs(&self, tenant: &TenantId, sandbox: SandboxId) -> (usize, usize) {
        let Some(used) = self.0.get(tenant) else { return (0, 0) };
        let of_sandbox = used.execs.get(&sandbox).map_or(0, HashSet::len);
        (used.execs.values().map(HashSet::len).sum(), of_sandbox)
    }

    /// How many bytes were added to a tenant's log within the hour before `now`, since this was followed.
    pub fn written(&self, tenant: &TenantId, now: DateTime<Utc>) -> u64 {
        let minutes = self.0.get(tenant).into_iter().flat_map(|used| &used.written);
        minutes.filter(|(minute, _)| now - *minute < WINDOW).map(|(_, bytes)| bytes).sum()
    }
}

impl Used {
    fn write(&mut self, time: DateTime<Utc>, bytes: u64) {
        match self.written.back_mut() {
            Some((minute, sum)) if time - *minute < TimeDelta::minutes(1) => *sum += bytes,
            Some(_) | None => self.written.push_back((time, bytes)),
        }
        // Times of several hosts are not in order, and there is no more than a minute each.
        while self.written.len() > 61 {
            self.written.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{
        Actor, EventId, ExecEnded, ExecExited, ExecFailed, ExecOutput, ExecStarted, FailureCode,
        OutputStream, SandboxDestroyed,
    };

    fn tenant() -> TenantId {
        TenantId::default_tenant()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn event(sandbox: SandboxId, time: DateTime<Utc>, data: impl Into<EventData>) -> Event {
        Event {
            id: EventId::new(),
            tenant: tenant(),
            sandbox: Some(sandbox),
            time,
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        }
    }

    fn started(exec: ExecId) -> EventData {
        let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
        ExecStarted { exec, spec, env_names: Vec::new(), pid: 7 }.into()
    }

    #[test]
    fn an_exec_is_open_from_its_start_to_its_end_however_often_it_is_told() {
        let (a, b) = (SandboxId::new(), SandboxId::new());
        let (first, second, third) = (ExecId::new(), ExecId::new(), ExecId::new());
        let mut usage = Usage::default();
        for exec in [first, second, second] {
            usage.apply(&event(a, at(0), started(exec)));
        }
        usage.apply(&event(b, at(0), started(third)));
        assert_eq!(usage.open_execs(&tenant(), a), (3, 2));
        assert!(usage.is_open(&tenant(), a, first) && !usage.is_open(&tenant(), b, first));
        let exited =
            ExecExited { exec: first, code: 0, signal: None, asked: None, ended: ExecEnded::default() };
        usage.apply(&event(a, at(1), exited));
        let failed = ExecFailed {
            exec: second,
            code: FailureCode::Invalid,
            message: String::new(),
            request_digest: None,
        };
        usage.apply(&event(a, at(1), failed));
        assert_eq!(usage.open_execs(&tenant(), a), (1, 0));
        usage.apply(&event(b, at(2), SandboxDestroyed { reason: events::DestroyReason::User }));
        assert_eq!(usage.open_execs(&tenant(), b), (0, 0), "with a sandbox all of its execs end");
        assert_eq!(usage.open_execs(&"other".parse().unwrap(), a), (0, 0));
    }

    #[test]
    fn what_was_written_counts_for_an_hour_and_in_bounded_memory() {
        let sandbox = SandboxId::new();
        let output = |bytes: usize| ExecOutput {
            exec: ExecId::from_bytes([0; 16]),
            stream: OutputStream::Stdout,
            offset: 0,
            marks: Vec::new(),
            bytes: vec![0; bytes].into(),
            missing: None,
        };
        let mut usage = Usage::default();
        usage.apply(&event(sandbox, at(0), output(1000)));
        usage.apply(&event(sandbox, at(30), output(1000)));
        assert_eq!(usage.written(&tenant(), at(31)), 2000 + 2 * EVENT_BYTES);
        assert_eq!(usage.written(&tenant(), at(3700)), 0);
        for second in 0..20_000 {
            usage.apply(&event(sandbox, at(second), output(1)));
        }
        let hour = usage.written(&tenant(), at(20_000));
        assert!((3500..=3700).contains(&(hour / (1 + EVENT_BYTES))), "{hour}");
        assert!(usage.0[&tenant()].written.len() <= 61);
    }
}
