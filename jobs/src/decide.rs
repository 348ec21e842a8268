//! What is to be done for a job now. A pure decision: it follows from what is recorded and the time.

use std::time::Duration;

use chrono::TimeDelta;
use events::{
    Actor, AttemptOutcome, CancelReason, ExecState, FailureCode, JobEndReason, JobOutcome, JobPhase,
    JobPlace, JobState, NeedCondition, NodeId, SandboxId, SandboxPhase, SandboxState,
};
use reactor::{Next, Turn};
use transport::{LinkOp, LinkRequest};

use crate::asking::{self, HowItEnded};
use crate::effect::{Beginning, Deed, Effect, Step};
use crate::entry::{Entry, Light, Phase, Place};
use crate::fleet::Fleet;
use crate::retry::{After, after, outcome_of, silent_since};

/// When what was asked for has not come after this long, it is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// For how long after it was asked for a command is sent again: as long as the transport surely knows the first one.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a command that was asked for may wait for its executor before its sandbox is given up.
const PENDING_PATIENCE: Duration = Duration::from_secs(300);
/// How long after the end of a sandbox somebody may still tell how a command in it ended.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How long a command that is to end may still run, when its node does not answer.
const UNANSWERED: Duration = Duration::from_secs(120);
/// How long a job rests before it is looked again whether a node has come that could take it.
const LOOK_FOR_NODES: Duration = Duration::from_secs(2);

const SIGTERM: i32 = 15;

/// What is to be done for a job now.
pub fn decide(entry: &mut Entry, turn: &mut Turn<'_>, fleet: &Fleet) -> Next<Effect> {
    let Some(light) = entry.light.clone() else {
        // Sandboxes of a job that had ended when they were seen.
        return entry.missing_job();
    };
    let destroy = clean_up(entry, &light, turn);
    if let Next::Act(effect) = destroy {
        return Next::Act(effect);
    }
    let next = match light.phase {
        Phase::Ended(..) => Next::Rest,
        Phase::Waiting | Phase::Queued | Phase::Retrying(_) => before(entry, &light, turn, fleet),
        Phase::Active => match (&entry.job, entry.is_whole) {
            (Some(job), true) => {
                let job = job.clone();
                attempt(entry, &job, turn)
            }
            (Some(_) | None, _) => {
                let deed = Deed::Load(light.id, entry.attempt());
                Next::Act(Effect { step: Step::Load, deed })
            }
        },
    };
    sooner(next, destroy)
}

fn sooner(one: Next<Effect>, other: Next<Effect>) -> Next<Effect> {
    match (one, other) {
        (Next::Act(effect), _) | (_, Next::Act(effect)) => Next::Act(effect),
        (Next::Wait(one), Next::Wait(other)) => Next::Wait(one.min(other)),
        (Next::Wait(length), Next::Rest) | (Next::Rest, Next::Wait(length)) => Next::Wait(length),
        (Next::Rest, Next::Rest) => Next::Rest,
    }
}

impl Entry {
    fn missing_job(&self) -> Next<Effect> {
        let job = self.sandboxes.values().find_map(|state| state.spec.job);
        job.map_or(Next::Rest, |job| Next::Act(Effect { step: Step::Load, deed: Deed::Load(job, None) }))
    }

    /// This step, unless it was just taken: then what came of it is waited for.
    fn once(&self, step: Step, turn: &Turn<'_>, deed: impl FnOnce() -> Deed) -> Next<Effect> {
        if let Some((asked, at)) = self.asked
            && asked == step
        {
            let waited = turn.since_boot().saturating_sub(at);
            if waited < AGAIN_AFTER {
                return Next::Wait(AGAIN_AFTER - waited);
            }
        }
        Next::Act(Effect { step, deed: deed() })
    }

    /// The same for a step that is told in one message about the job.
    fn say(&self, step: Step, turn: &Turn<'_>, event: impl FnOnce() -> events::Event) -> Next<Effect> {
        self.once(step, turn, || Deed::Say(vec![vec![event()]]))
    }
}

/// Destroys the sandboxes that no attempt needs any more.
fn clean_up(entry: &Entry, light: &Light, turn: &mut Turn<'_>) -> Next<Effect> {
    if matches!(light.place, Place::Existing(_)) {
        return Next::Rest;
    }
    let current = entry.attempt().map(|(sandbox, _)| sandbox);
    let keep_until = match light.phase {
        Phase::Ended(JobOutcome::Failed | JobOutcome::TimedOut | JobOutcome::Unknown, at) => {
            (light.keep > TimeDelta::zero()).then(|| at + light.keep)
        }
        Phase::Ended(JobOutcome::Succeeded | JobOutcome::Cancelled, _)
        | Phase::Waiting
        | Phase::Queued
        | Phase::Retrying(_)
        | Phase::Active => None,
    };
    let left = keep_until.map_or(Duration::ZERO, |until| turn.left(until));
    let mut next = Next::Rest;
    for state in entry.sandboxes.values() {
        if Some(state.id) == current || state.is_terminal() {
            continue;
        }
        let this = if left.is_zero() { destroy(entry, state, turn) } else { Next::Wait(left) };
        next = sooner(next, this);
    }
    next
}

/// Has a sandbox destroyed; again after a while, if it is still there.
fn destroy(entry: &Entry, state: &SandboxState, turn: &Turn<'_>) -> Next<Effect> {
    let (last, rounds) = match entry.destroys.get(&state.id) {
        Some((at, rounds)) => (Some(*at), *rounds),
        None => (None, 0),
    };
    if let Some(at) = last {
        let waited = turn.since_boot().saturating_sub(at);
        if waited < AGAIN_AFTER {
            return Next::Wait(AGAIN_AFTER - waited);
        }
    }
    let step = Step::Destroy(state.id);
    let deed = match state.node() {
        Some(node) => Deed::Send(Box::new(asking::destroy(&state.tenant, state.id, rounds)), node.clone()),
        None => Deed::Say(vec![vec![asking::never_ran(&state.tenant, state.id, turn.now())]]),
    };
    Next::Act(Effect { step, deed })
}

/// A job that has not begun, or rests between two attempts.
fn before(entry: &Entry, light: &Light, turn: &mut Turn<'_>, fleet: &Fleet) -> Next<Effect> {
    let whose = (&light.tenant, light.id);
    let end = |outcome, reason, message: String, turn: &Turn<'_>| {
        let now = turn.now();
        let ended = || asking::ended(whose, outcome, reason, None, message, now);
        entry.once(Step::End, turn, || say_end(light, ended()))
    };
    if let Some(reason) = light.cancel {
        let reason = match reason {
            CancelReason::User => JobEndReason::User,
            CancelReason::Replaced => JobEndReason::Replaced,
        };
        return end(JobOutcome::Cancelled, reason, String::new(), turn);
    }
    let mut wait = None;
    if let Some(deadline) = light.deadline {
        if turn.passed(deadline).is_some() {
            let message = "its time was up before it began".to_owned();
            return end(JobOutcome::TimedOut, JobEndReason::Deadline, message, turn);
        }
        wait = Some(turn.left(deadline));
    }
    let resting = |length: Option<Duration>| length.map_or(Next::Rest, Next::Wait);
    let soonest = |other: Duration| Some(wait.map_or(other, |wait| wait.min(other)));
    match light.phase {
        Phase::Waiting => {
            if let Some((outcome, reason, message)) = spoilt(light) {
                return end(outcome, reason, message, turn);
            }
            let unknown = light.needs.iter().filter(|need| need.is_looked_for).map(|need| need.job);
            let unknown: Vec<_> = unknown.collect();
            if !unknown.is_empty() {
                return Next::Act(Effect { step: Step::LookUp, deed: Deed::LookUp(unknown) });
            }
            if light.needs.iter().any(|need| need.outcome.is_none()) {
                return resting(wait);
            }
            if let Some(run_at) = light.run_at
                && turn.passed(run_at).is_none()
            {
                return resting(soonest(turn.left(run_at)));
            }
            let now = turn.now();
            sooner(entry.say(Step::Queue, turn, || asking::queued(light, now)), resting(wait))
        }
        Phase::Queued | Phase::Retrying(_) if entry.promised.is_none() => {
            let hold = match &light.place {
                Place::Fresh { pool, provider, cpu_millis, memory_mib } => {
                    fleet.hold(pool, provider, *cpu_millis, *memory_mib)
                }
                Place::Existing(_) => None,
            };
            let said = light.held.as_ref().map(|(reason, message)| (*reason, message.as_str()));
            let is = hold.as_ref().map(|hold| (hold.reason, hold.message.as_str()));
            if said.map(|(reason, _)| reason) != is.map(|(reason, _)| reason) {
                let (reason, message) = hold.map(|hold| (hold.reason, hold.message)).unzip();
                let now = turn.now();
                return entry
                    .say(Step::Hold, turn, || asking::held(light, reason, message.unwrap_or_default(), now));
            }
            resting(if said.is_some() { soonest(LOOK_FOR_NODES) } else { wait })
        }
        Phase::Queued | Phase::Retrying(_) | Phase::Active | Phase::Ended(..) => resting(wait),
    }
}

/// Says the end of a job. What is sealed of it goes first: who finds it gone finds also that nothing is left to be begun.
fn say_end(light: &Light, end: events::Event) -> Deed {
    if light.has_sealed { Deed::DestroySealed(light.id, vec![end]) } else { Deed::Say(vec![vec![end]]) }
}

/// How a job ends whose needs did not end as they should.
fn spoilt(light: &Light) -> Option<(JobOutcome, JobEndReason, String)> {
    light.needs.iter().find_map(|need| {
        let outcome = need.outcome?;
        let Some(outcome) = outcome else {
            return Some((JobOutcome::Failed, JobEndReason::Need, format!("there is no job {}", need.job)));
        };
        match (need.condition, outcome) {
            (NeedCondition::Finished, _) | (NeedCondition::Succeeded, JobOutcome::Succeeded) => None,
            (NeedCondition::Succeeded, JobOutcome::Cancelled) => {
                let message = format!("{}, which it needs, was cancelled", need.job);
                Some((JobOutcome::Cancelled, JobEndReason::Need, message))
            }
            (NeedCondition::Succeeded, JobOutcome::Failed | JobOutcome::TimedOut | JobOutcome::Unknown) => {
                let message = format!("{}, which it needs, ended as {}", need.job, outcome.as_str());
                Some((JobOutcome::Failed, JobEndReason::Need, message))
            }
        }
    })
}

/// Why an attempt must end.
enum Must {
    /// Its end was asked for, and how long it has.
    Cancel(Duration),
    /// The time of the whole job is up.
    Deadline,
    /// It says nothing of itself.
    Silent,
}

/// Why an attempt must end now, since when it must, or how long it is until the next reason for that.
fn must_end(job: &JobState, turn: &mut Turn<'_>) -> Result<(Must, Duration), Option<Duration>> {
    if let Some(cancel) = &job.cancel {
        let since = turn.passed(cancel.at).unwrap_or_default();
        return Ok((Must::Cancel(Duration::from_millis(cancel.grace_ms)), since));
    }
    let mut left = None;
    for (instant, must) in [(job.deadline(), Must::Deadline), (silent_since(job), Must::Silent)] {
        let Some(instant) = instant else { continue };
        if let Some(since) = turn.passed(instant) {
            return Ok((must, since));
        }
        let length = turn.left(instant);
        left = Some(left.map_or(length, |known: Duration| known.min(length)));
    }
    Err(left)
}

/// A job of which an attempt is under way.
fn attempt(entry: &Entry, job: &JobState, turn: &mut Turn<'_>) -> Next<Effect> {
    let number = job.attempt();
    let Some(attempt) = job.attempts.last() else { return Next::Rest };
    let now = turn.now();
    if let Some(ended) = &attempt.ended {
        return entry.once(Step::Follow(number), turn, || match after(job, ended) {
            After::Retry(due_at) => Deed::Say(vec![vec![asking::retry_scheduled(job, due_at, now)]]),
            After::End(outcome, reason, message) => {
                let whose = (&job.tenant, job.id);
                let end = asking::ended(whose, outcome, reason, ended.exit_code, message, now);
                say_end(&Light::of(job), end)
            }
        });
    }
    if attempt.sandbox.is_none() {
        let light = Light::of(job);
        return entry.say(Step::Start(number), turn, || asking::started(&light, number, now));
    }
    let sandbox = entry.sandboxes.get(&job.sandbox_of(number));
    match &entry.exec {
        Some(exec) => with_exec(entry, job, sandbox, exec, turn),
        None => without_exec(entry, job, sandbox, turn),
    }
}

fn end_attempt(
    entry: &Entry,
    job: &JobState,
    turn: &Turn<'_>,
    outcome: AttemptOutcome,
    failure: Option<FailureCode>,
    message: impl Into<String>,
) -> Next<Effect> {
    let how = HowItEnded { outcome, exit_code: None, failure, message: message.into() };
    let now = turn.now();
    entry.say(Step::EndAttempt(job.attempt()), turn, || asking::attempt_ended(job, how, now))
}

/// An attempt whose command was not asked for.
fn without_exec(
    entry: &Entry,
    job: &JobState,
    sandbox: Option<&SandboxState>,
    turn: &mut Turn<'_>,
) -> Next<Effect> {
    let number = job.attempt();
    let left = match must_end(job, turn) {
        // No other attempt follows, so it does no harm if another driver has just asked for its command: its sandbox goes.
        Ok((Must::Cancel(_), _)) => {
            return end_attempt(entry, job, turn, AttemptOutcome::Cancelled, None, "its end was asked for");
        }
        Ok((Must::Deadline | Must::Silent, _)) => {
            let message = "the time of the whole job was up before its command began";
            return end_attempt(entry, job, turn, AttemptOutcome::TimedOut, None, message);
        }
        Err(left) => left,
    };
    let waiting = left.map_or(Next::Rest, Next::Wait);
    let not_started = |code, message: String, turn: &Turn<'_>| {
        end_attempt(entry, job, turn, AttemptOutcome::NotStarted, Some(code), message)
    };
    let now = turn.now();
    let next = match (sandbox.map(|sandbox| (sandbox, &sandbox.phase)), &job.spec.place) {
        (None, JobPlace::Fresh(spec)) => {
            let deed = || Deed::Sandbox(Box::new(asking::sandbox(job, spec, now)), Box::new(job.clone()));
            match &entry.refused {
                Some((attempt, message)) if *attempt == number => {
                    not_started(FailureCode::Internal, message.clone(), turn)
                }
                Some(_) | None => entry.once(Step::Sandbox(number), turn, deed),
            }
        }
        (None, JobPlace::Existing(id)) => {
            not_started(FailureCode::SandboxGone, format!("there is no sandbox {id}"), turn)
        }
        (Some((_, SandboxPhase::Failed { code, message, .. })), _) => {
            not_started(*code, message.clone(), turn)
        }
        (Some((_, SandboxPhase::Destroyed { .. })), _) => {
            let message = match &entry.refused {
                Some((attempt, message)) if *attempt == number => message.clone(),
                Some(_) | None => "its sandbox was gone before its command began".to_owned(),
            };
            not_started(FailureCode::SandboxGone, message, turn)
        }
        (Some((_, SandboxPhase::Requested | SandboxPhase::Starting { .. })), _) => Next::Rest,
        (Some((state, SandboxPhase::Running { node, .. })), place) => match &entry.refused {
            _ if state.ending.is_some() => Next::Rest,
            // Another driver may have asked for its command: only when the sandbox is gone can it not begin any more.
            Some((attempt, message)) if *attempt == number => match place {
                JobPlace::Fresh(_) => destroy(entry, state, turn),
                JobPlace::Existing(_) => not_started(FailureCode::Invalid, message.clone(), turn),
            },
            Some(_) | None => entry.once(Step::Begin(number), turn, || begin(job, node, turn)),
        },
    };
    sooner(next, waiting)
}

fn begin(job: &JobState, node: &NodeId, turn: &Turn<'_>) -> Deed {
    Deed::Begin(Box::new(Beginning {
        job: Box::new(job.clone()),
        event: asking::exec_requested(job, turn.now()),
        node: node.clone(),
    }))
}

/// An attempt whose command was asked for.
fn with_exec(
    entry: &Entry,
    job: &JobState,
    sandbox: Option<&SandboxState>,
    exec: &ExecState,
    turn: &mut Turn<'_>,
) -> Next<Effect> {
    let number = job.attempt();
    let now = turn.now();
    if let Some(end) = &exec.end {
        let (mut outcome, exit_code, mut message) = outcome_of(job, end);
        if let (Some(node), false) = (sandbox.and_then(SandboxState::node), job.spec.artifacts.is_empty())
            && !matches!(outcome, AttemptOutcome::NotStarted | AttemptOutcome::Lost)
        {
            match &entry.collected {
                Some((attempt, collected)) if *attempt == number => {
                    if let (Err(error), AttemptOutcome::Succeeded) = (collected, outcome) {
                        (outcome, message) = (AttemptOutcome::Failed, error.clone());
                    }
                }
                Some(_) | None => {
                    let step = Step::Collect(number);
                    return Next::Act(Effect {
                        step,
                        deed: Deed::Collect(Box::new(job.clone()), node.clone()),
                    });
                }
            }
        }
        let failure = match end {
            events::ExecEnd::Failed { code, .. } => Some(*code),
            events::ExecEnd::Exited { .. }
            | events::ExecEnd::TimedOut { .. }
            | events::ExecEnd::Killed { .. }
            | events::ExecEnd::OutcomeUnknown { .. } => None,
        };
        let how = HowItEnded { outcome, exit_code, failure, message };
        let began = failure.is_none() && matches!(job.phase, JobPhase::Starting);
        let node = sandbox.and_then(SandboxState::node).cloned();
        return entry.once(Step::EndAttempt(number), turn, || {
            // The news of a short command come together: that it ran belongs in the record all the same.
            let running = began.then(|| asking::running(job, node, now));
            Deed::Say(vec![running.into_iter().chain([asking::attempt_ended(job, how, now)]).collect()])
        });
    }
    let lost =
        |message: &str, turn: &Turn<'_>| end_attempt(entry, job, turn, AttemptOutcome::Lost, None, message);
    let (state, node) = match sandbox.map(|state| (state, &state.phase)) {
        Some((state, SandboxPhase::Running { node, .. })) => (state, node.clone()),
        // Whoever had it says how the command ended, or that nobody knows.
        Some((_, SandboxPhase::Failed { at, .. } | SandboxPhase::Destroyed { at, .. })) => {
            let waited = turn.passed(*at).unwrap_or_default();
            if waited < LAST_WORDS {
                return Next::Wait(LAST_WORDS - waited);
            }
            return lost("its sandbox went away, and nobody can say how the command ended", turn);
        }
        // A command that was asked for in a sandbox that does not run: its state is read again.
        Some((_, SandboxPhase::Requested | SandboxPhase::Starting { .. })) => return Next::Wait(AGAIN_AFTER),
        None => return lost("there is no such sandbox any more", turn),
    };
    let is_fresh = matches!(job.spec.place, JobPlace::Fresh(_));
    if exec.pending {
        let waited = turn.passed(exec.started_at).unwrap_or_default();
        return match must_end(job, turn) {
            Ok(_) if is_fresh => destroy(entry, state, turn),
            Ok(_) => Next::Wait(AGAIN_AFTER),
            Err(_) if is_fresh && matches!(&entry.refused, Some((attempt, _)) if *attempt == number) => {
                destroy(entry, state, turn)
            }
            Err(_) if waited >= PENDING_PATIENCE && is_fresh => destroy(entry, state, turn),
            Err(left) => {
                let next = if waited < KNOWN_FOR {
                    let command = || Deed::Start(Box::new(job.clone()), node);
                    entry.once(Step::Command(number), turn, command)
                } else {
                    Next::Wait(PENDING_PATIENCE.saturating_sub(waited).max(AGAIN_AFTER))
                };
                sooner(next, left.map_or(Next::Rest, Next::Wait))
            }
        };
    }
    if matches!(job.phase, JobPhase::Starting) {
        return entry.say(Step::Running(number), turn, || asking::running(job, Some(node), now));
    }
    let call = |op| Deed::Call(Box::new(request(job, state.id, op)), node.clone());
    match must_end(job, turn) {
        Err(left) => left.map_or(Next::Rest, Next::Wait),
        Ok((Must::Cancel(grace), since)) if since < grace => {
            let asked = matches!(entry.asked, Some((Step::Terminate(attempt), _)) if attempt == number);
            if asked {
                return Next::Wait(grace - since);
            }
            let op = LinkOp::Signal { exec: exec.id, signal: SIGTERM };
            Next::Act(Effect { step: Step::Terminate(number), deed: call(op) })
        }
        Ok((Must::Cancel(grace), since)) if since < grace + UNANSWERED => {
            entry.once(Step::Kill(number), turn, || call(LinkOp::Kill { exec: exec.id }))
        }
        Ok((Must::Deadline | Must::Silent, since)) if since < UNANSWERED => {
            entry.once(Step::Kill(number), turn, || call(LinkOp::Kill { exec: exec.id }))
        }
        Ok(_) => lost("it was to end, and its node does not answer", turn),
    }
}

fn request(job: &JobState, sandbox: SandboxId, op: LinkOp) -> LinkRequest {
    LinkRequest {
        tenant: job.tenant.clone(),
        actor: Actor::Jobs,
        request_id: None,
        traceparent: None,
        sandbox,
        op,
        tell_working: false,
    }
}
