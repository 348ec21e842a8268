//! All schedules, as a reactor.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{
    Actor, Aggregate, CancelReason, Category, Clock, Event, EventData, EventId, JobCancelRequested, JobEvent,
    JobId, JobSecrets, JobState, JobSubmitted, Position, Schedule, ScheduleId, ScheduleState, ScheduledWork,
    TenantId,
};
use feed::Recorded;
use reactor::{Effecting, Failure, Loaded, Next, Reactor, Touched, Turn};
use record::{EventStore, StoreError};
use secrets::MasterKey;
use transport::Log;

use crate::planned::{Done, JobStands, Planned, Step};

/// How long the command of a job that is replaced has between SIGTERM and SIGKILL, in milliseconds.
const GRACE_MS: u64 = 10_000;

/// All schedules.
pub struct Roster {
    log: Log,
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    master_key: MasterKey,
    schedules: HashMap<ScheduleId, Planned>,
    /// Whose the jobs are that matter to one.
    jobs: HashMap<JobId, ScheduleId>,
}

/// A step, with all that it takes.
pub struct Effect {
    tenant: TenantId,
    schedule: Schedule,
    step: Step,
}

impl Roster {
    pub fn new(log: Log, store: Arc<dyn EventStore>, clock: Arc<dyn Clock>, master_key: MasterKey) -> Self {
        Self { log, store, clock, master_key, schedules: HashMap::new(), jobs: HashMap::new() }
    }

    /// Notes which jobs matter to a schedule, and puts it back.
    fn keep(&mut self, planned: Planned) {
        let id = planned.state().schedule.id;
        self.jobs.extend(Planned::jobs_of(planned.state()).map(|job| (job, id)));
        self.schedules.insert(id, planned);
    }

    fn apply_schedule(&mut self, id: ScheduleId, event: &Event) {
        let after = match self.schedules.remove(&id) {
            Some(planned) => {
                for job in Planned::jobs_of(planned.state()) {
                    self.jobs.remove(&job);
                }
                planned.apply(event)
            }
            None => ScheduleState::apply(None, event).map(|state| Planned::new(state, HashMap::new())),
        };
        if let Some(planned) = after {
            self.keep(planned);
        }
    }

    fn apply_job(&mut self, said: &JobEvent) -> Option<ScheduleId> {
        let (job, word) = (said.job(), said.word());
        let stands = match (word.begins, word.ends) {
            (true, _) => JobStands::Live,
            (_, true) => JobStands::Ended,
            (false, false) => return None,
        };
        let id = *self.jobs.get(&job)?;
        self.schedules.get_mut(&id)?.know(job, stands);
        Some(id)
    }
}

#[async_trait]
impl Reactor for Roster {
    type Key = ScheduleId;
    type Effect = Box<Effect>;
    type Outcome = Done;

    fn name(&self) -> &'static str {
        "schedules"
    }

    fn types(&self) -> Vec<&'static str> {
        let jobs = Category::Job.words().iter().filter(|word| word.begins || word.ends);
        Category::Schedule.words().iter().chain(jobs).map(|word| word.name).collect()
    }

    async fn load(&mut self, _: Option<Position>) -> Result<Loaded<ScheduleId>, StoreError> {
        self.schedules.clear();
        self.jobs.clear();
        let (position, states) = self.store.live::<ScheduleState>().await?;
        for state in states {
            let mut known = HashMap::new();
            for id in Planned::jobs_of(&state) {
                // It may be from after the position: what is said of it between the two is said again, and changes nothing.
                if let Some(job) = self.store.get_of::<JobState>(&state.tenant, id).await? {
                    let ended = job.fields().ended;
                    known.insert(id, if ended { JobStands::Ended } else { JobStands::Live });
                }
            }
            self.keep(Planned::new(state, known));
        }
        tracing::info!(schedules = self.schedules.len(), "submitting the jobs of schedules");
        Ok(Loaded { position, keys: self.schedules.keys().copied().collect() })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<ScheduleId>) {
        let event = &recorded.event;
        if let EventData::Schedule(said) = &event.data {
            self.apply_schedule(said.schedule(), event);
            touched.entity(said.schedule());
        } else if let EventData::Job(said) = &event.data
            && let Some(id) = self.apply_job(said)
        {
            touched.entity(id);
        }
    }

    fn decide(&mut self, id: &ScheduleId, turn: &mut Turn<'_>) -> Next<Box<Effect>> {
        let Some(planned) = self.schedules.get_mut(id) else { return Next::Rest };
        match planned.decide(turn) {
            Next::Act(step) => {
                let ScheduleState { tenant, schedule, .. } = planned.state();
                let (tenant, schedule) = (tenant.clone(), schedule.clone());
                Next::Act(Box::new(Effect { tenant, schedule, step }))
            }
            Next::Wait(length) => Next::Wait(length),
            Next::Rest => Next::Rest,
        }
    }

    fn perform(&self, _: &ScheduleId, effect: Box<Effect>) -> Effecting<Done> {
        let (log, now) = (self.log.clone(), self.clock.now());
        let key = self.master_key.clone();
        Box::pin(async move {
            let event = effect.event(&key, &log, now).await?;
            log.publish(&[event]).await.map_err(|error| Failure::passing(&error))?;
            Ok(effect.step.done())
        })
    }

    fn settle(&mut self, id: &ScheduleId, outcome: Result<Done, &Failure>, turn: &mut Turn<'_>) {
        if let (Some(planned), Ok(done)) = (self.schedules.get_mut(id), outcome) {
            planned.done(done, turn);
        }
    }

    fn tenant(&self, id: &ScheduleId) -> Option<TenantId> {
        self.schedules.get(id).map(|planned| planned.state().tenant.clone())
    }
}

impl Effect {
    /// What is to be said. Its id follows from what it is for.
    async fn event(&self, key: &MasterKey, log: &Log, now: DateTime<Utc>) -> Result<Event, Failure> {
        let Self { tenant, schedule, step } = self;
        let (id, data) = match step {
            Step::Say(id, data) => (*id, (**data).clone()),
            Step::Submit(job, _) => {
                let work = open(key, tenant, schedule)?;
                let (submitted, secrets) = submission(*job, schedule.owner.clone(), work);
                if !secrets.is_empty() {
                    // What a driver before this one sealed for the same job is the same.
                    let sealed = seal(key, tenant, *job, &secrets)?;
                    log.put_sealed(*job, sealed.into()).await.map_err(|error| Failure::passing(&error))?;
                }
                (EventId::derived(&["job-submitted", &job.to_string()]), submitted)
            }
            Step::Cancel(job) => {
                let id = EventId::derived(&["job-replaced", &job.to_string()]);
                let (grace_ms, reason) = (GRACE_MS, CancelReason::Replaced);
                (id, JobCancelRequested { job: *job, grace_ms, reason }.into())
            }
        };
        Ok(Event {
            id,
            tenant: tenant.clone(),
            sandbox: None,
            time: now,
            actor: Actor::Schedules,
            cause: None,
            request_id: None,
            traceparent: None,
            data,
        })
    }
}

/// What the log has of a job, and what only the driver may know of it.
fn submission(job: JobId, owner: Option<String>, work: ScheduledWork) -> (EventData, JobSecrets) {
    let ScheduledWork { mut spec, env, real } = work;
    let secrets = JobSecrets { env, spec: real, ..JobSecrets::default() };
    spec.has_sealed = !secrets.is_empty();
    (JobSubmitted { job, owner, spec }.into(), secrets)
}

fn seal(key: &MasterKey, tenant: &TenantId, job: JobId, secrets: &JobSecrets) -> Result<Vec<u8>, Failure> {
    let plain = serde_json::to_vec(secrets).map_err(|error| Failure::passing(&error))?;
    let context = JobSecrets::context(tenant, job);
    key.seal(JobSecrets::PURPOSE, context.as_bytes(), &plain).map_err(|error| Failure::passing(&error))
}

/// What the jobs of a schedule are to do.
fn open(key: &MasterKey, tenant: &TenantId, schedule: &Schedule) -> Result<ScheduledWork, Failure> {
    let context = Schedule::seal_context(tenant, schedule.id);
    let text = key
        .open_text(Schedule::SEAL_PURPOSE, &context, &schedule.sealed)
        .map_err(|_| Failure::for_good("it was sealed under another master key than the one here"))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::for_good(format!("it cannot be read: {}", events::without_values(&error))))
}
