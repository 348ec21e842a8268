//! `POST /sandboxes`

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_types::{Sandbox, SpawnRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::SubsecRound;
use events::{
    Command, CommandId, EventId, PoolName, ProviderName, SandboxId, SandboxPhase, SandboxRequested,
    SandboxSpec, SandboxState, SecretMap, Term,
};
use transport::{Destination, Machine};

use super::plan::{Plan, check_image, check_ttl, no_provider, plan};
use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::RawJsonBody;
use crate::gateway::{Gateway, ended};
use crate::idempotency::{IdempotencyKey, Idempotent};
use crate::readiness::disk_low_of;
use crate::routes::templates;
use crate::share::Asked;
use crate::variables::fingerprints;
use tokio::sync::OwnedSemaphorePermit;

/// Makes a sandbox and answers when it runs. After two minutes it answers with state `creating`. When the client goes
/// away meanwhile, the sandbox lives on till its deadline.
#[utoipa::path(
    post,
    path = "/sandboxes",
    tag = "sandboxes",
    request_body = SpawnRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same sandbox")),
    responses(
        (status = 201, description = "It runs, or is still being made", body = Sandbox),
        (status = 400, description = "A field is wrong, or the image cannot be had", body = ErrorBody),
        (status = 404, description = "No such provider or template", body = ErrorBody),
        (status = 409, description = "The key was used with another body", body = ErrorBody),
        (status = 429, description = "A limit of sandboxes, CPUs or memory is reached: `X-Limit` names it", body = ErrorBody),
        (status = 503, description = "No executor of the provider lives", body = ErrorBody),
    )
)]
pub(crate) async fn spawn(
    State(gateway): State<Gateway>,
    caller: Caller,
    key: IdempotencyKey,
    body: RawJsonBody<SpawnRequest>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    let idempotent = key.with(&caller.tenant, "spawn", &body.bytes);
    let sandbox = run(&gateway, &caller, body.value, idempotent).await?;
    Ok((StatusCode::CREATED, Json(sandbox)))
}

/// Plans, asks for and waits for a sandbox.
pub(crate) async fn run(
    gateway: &Gateway,
    caller: &Caller,
    mut request: SpawnRequest,
    idempotent: Option<Idempotent>,
) -> Result<Sandbox, ApiError> {
    let id = match &idempotent {
        None => SandboxId::new(),
        Some(idempotent) => SandboxId::derived(&idempotent.parts()),
    };
    tracing::Span::current().record("sandbox.id", tracing::field::display(id));
    let known = match &idempotent {
        None => None,
        Some(idempotent) => {
            let state = known(gateway, id).await?;
            if let Some(state) = &state {
                idempotent.check(state.spec.request_digest.as_deref())?;
            }
            state
        }
    };
    if let Some(state) = &known
        && !matches!(state.phase, SandboxPhase::Requested)
    {
        // Its answer is known, whatever has become of the template. One that ended long ago is not in the view, and will
        // not come into it.
        let waited = if state.is_terminal() { None } else { wait(gateway, id).await };
        return repeat(gateway, waited.as_deref().unwrap_or(state));
    }
    let template = match request.template.take().filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let template = templates::find(gateway, caller, &name).await?;
            let variables = templates::sealed::open(gateway, &caller.tenant, &template)?;
            Some((template, variables))
        }
    };
    let limits = &gateway.config().sandboxes;
    let mut plan = plan(request, template, caller.user.as_deref(), limits)?;
    plan.spec.env_hmac = fingerprints(&gateway.config().master_key, &caller.tenant, &plan.env);
    check_ttl(plan.ttl, limits)?;
    check_image(&caller.tenant, &plan.spec.image, limits)?;
    if let Some(state) = known {
        // Whoever asked first may have died between the event and the command. The command's id follows from the sandbox,
        // so it is stored once however often it is sent, and an executor makes one box of it in any case.
        let mut asked = SandboxState::clone(&state);
        // What the log has of the first commands may be masked.
        asked.spec.setup = plan.spec.setup.clone();
        send_create(gateway, caller, &asked, plan.env.clone()).await?;
        let waited = wait(gateway, id).await;
        return repeat(gateway, waited.as_deref().unwrap_or(&state));
    }
    await_pool(gateway, &plan.spec.provider, &plan.spec.pool()).await?;
    if let Some(reason) = disk_low_of(gateway.view(), &plan.spec.provider) {
        return Err(ApiError::not_now(format!("{}: {}", reason.code, reason.message)));
    }
    // In a task of its own: a client that goes away must not leave a request that nobody carries out.
    check_fits(gateway, &plan.spec)?;
    let place = gateway.shares().sandbox(gateway.view(), &caller.tenant, id, &plan.spec)?;
    let turn = gateway.shares().spawn_turn(&caller.tenant, gateway.config().spawn_wait).await?;
    let place = (place, turn);
    let asked = tokio::spawn(publish_request(
        gateway.clone(),
        caller.clone(),
        id,
        plan.clone(),
        idempotent.clone(),
        place,
    ));
    asked.await.map_err(ApiError::internal)??;
    let waited = tokio::select! {
        waited = wait(gateway, id) => waited,
        () = gateway.readiness().hopeless() => {
            let message = "nothing can be recorded at the moment: whether it is made is seen later";
            return Err(ApiError::not_now(format!("{message}: {id}")));
        }
    };
    let Some(state) = waited else {
        // Not even the request has come back from the log: the recorder is behind.
        return Err(ApiError::unavailable("the recorder does not follow: a spawn is not recorded"));
    };
    if let Some(idempotent) = &idempotent {
        idempotent.check(state.spec.request_digest.as_deref())?;
    }
    answer(gateway, &state)
}

/// How long a spawn waits for an executor to appear: about as long as one takes to be replaced.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(5);

async fn await_pool(gateway: &Gateway, provider: &ProviderName, pool: &PoolName) -> Result<(), ApiError> {
    let asked = Instant::now();
    loop {
        let checked = check_pool(gateway, provider, pool);
        let known = gateway.config().sandboxes.known_providers.contains(provider);
        if checked.is_ok() || !known || asked.elapsed() >= PROVIDER_PATIENCE {
            return checked;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check_pool(gateway: &Gateway, provider: &ProviderName, pool: &PoolName) -> Result<(), ApiError> {
    if gateway.view().pool_is_served(provider, pool) {
        return Ok(());
    }
    let of_provider = gateway.view().pool_is_served(provider, &PoolName::from(provider));
    if of_provider || *pool != PoolName::from(provider) {
        let message = format!("no executor of the pool {pool} with provider {provider} takes sandboxes");
        return Err(ApiError::unavailable(message));
    }
    if gateway.config().sandboxes.known_providers.contains(provider) {
        return Err(ApiError::unavailable(format!("no executor with provider {provider} takes sandboxes")));
    }
    // A node that drains has it still.
    let seen = gateway
        .view()
        .nodes()
        .iter()
        .any(|node| node.heartbeat.providers.iter().any(|it| it.name == *provider));
    if seen {
        Err(ApiError::unavailable(format!("all executors with provider {provider} are draining")))
    } else {
        Err(no_provider(provider.as_str()))
    }
}

/// Refuses what no machine can give, where the machines say what they have.
fn check_fits(gateway: &Gateway, spec: &SandboxSpec) -> Result<(), ApiError> {
    let nodes = gateway.view().nodes();
    let machines: Vec<Machine> = nodes
        .iter()
        .filter(|node| node.heartbeat.providers.iter().any(|it| it.name == spec.provider))
        .map(|node| node.heartbeat.machine)
        .collect::<Option<_>>()
        .unwrap_or_default();
    let (cpus, memory) = (spec.cpu_millis.div_ceil(1000), u64::from(spec.memory_mib));
    let fits = |machine: &Machine| memory <= machine.memory_mib && cpus <= machine.cpus;
    if machines.is_empty() || machines.iter().any(fits) {
        return Ok(());
    }
    let most_memory = machines.iter().map(|machine| machine.memory_mib).max().unwrap_or(0);
    let most_cpus = machines.iter().map(|machine| machine.cpus).max().unwrap_or(0);
    Err(ApiError::bad_request(format!(
        "no node has so much: memory_mb {memory} and vcpus {} are asked for, and the nodes have up to {most_memory} and {most_cpus}",
        f64::from(spec.cpu_millis) / 1000.0
    )))
}

async fn publish_request(
    gateway: Gateway,
    caller: Caller,
    id: SandboxId,
    plan: Plan,
    idempotent: Option<Idempotent>,
    (place, turn): (Asked, OwnedSemaphorePermit),
) -> Result<(), ApiError> {
    let Plan { mut spec, env, ttl } = plan;
    let limits = &gateway.config().sandboxes;
    let now = gateway.clock().now();
    let term = Term {
        ttl_ms: millis(ttl),
        lifetime_ms: millis(limits.max_lifetime),
        start_by: (now + limits.max_queue_wait).trunc_subsecs(6),
    };
    // The latest that they can be: what it may live counts from when it runs.
    let (expires_at, lifetime_ends_at) = term.ends(term.start_by);
    let event = match &idempotent {
        None => EventId::new(),
        Some(idempotent) => {
            spec.request_digest = Some(idempotent.digest.clone());
            EventId::derived(&idempotent.parts())
        }
    };
    let requested = SandboxRequested { spec: spec.clone(), expires_at, lifetime_ends_at, term: Some(term) };
    let redaction = gateway.redaction().with_secrets(env.of(&spec.secret_names));
    gateway.publish_redacted(&caller, Some(id), event, now, requested, &redaction).await?;
    let pool = spec.pool();
    let create = Command::CreateSandbox { spec, env, expires_at, term: Some(term) };
    // If this process ends here, the reaper notices, and sends the same.
    gateway.send(Destination::Pool(&pool), &caller, id, CommandId::of_create(id), create).await?;
    tokio::spawn(async move {
        // Until the log counts it.
        gateway.view().wait(id, |_| true, COUNTED_IN).await;
        drop(place);
        wait(&gateway, id).await;
        drop(turn);
    });
    Ok(())
}

/// How long a sandbox that was asked for counts before the log knows of it.
const COUNTED_IN: Duration = Duration::from_secs(30);

/// Sends the command of a request that is recorded once more.
async fn send_create(
    gateway: &Gateway,
    caller: &Caller,
    state: &SandboxState,
    env: SecretMap,
) -> Result<(), ApiError> {
    let (spec, pool) = (state.spec.clone(), state.spec.pool());
    let create = Command::CreateSandbox { spec, env, expires_at: state.expires_at, term: state.term };
    gateway.send(Destination::Pool(&pool), caller, state.id, CommandId::of_create(state.id), create).await
}

async fn known(gateway: &Gateway, id: SandboxId) -> Result<Option<Arc<SandboxState>>, ApiError> {
    match gateway.view().sandbox(id) {
        Some(state) => Ok(Some(state)),
        None => Ok(gateway.store().sandbox(id).await.map_err(ApiError::store)?.map(Arc::new)),
    }
}

/// Waits until it is made or cannot be. When that takes too long: how far it is.
async fn wait(gateway: &Gateway, id: SandboxId) -> Option<Arc<SandboxState>> {
    let made = |state: &SandboxState| {
        !matches!(state.phase, SandboxPhase::Requested | SandboxPhase::Starting { .. })
    };
    let waited = gateway.view().wait(id, made, gateway.config().spawn_wait).await;
    waited.or_else(|| gateway.view().sandbox(id))
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to a request that comes again: the sandbox that its key stands for, also where it has been destroyed since.
fn repeat(gateway: &Gateway, state: &SandboxState) -> Result<Sandbox, ApiError> {
    if let SandboxPhase::Destroyed { .. } = &state.phase {
        return Ok(shown(state, gateway));
    }
    answer(gateway, state)
}

fn answer(gateway: &Gateway, state: &SandboxState) -> Result<Sandbox, ApiError> {
    match &state.phase {
        SandboxPhase::Failed { code, message, .. } => Err(crate::exec::end::failure(*code, message)),
        SandboxPhase::Destroyed { .. } => Err(ended(state, gateway.clock().now())),
        SandboxPhase::Requested | SandboxPhase::Starting { .. } | SandboxPhase::Running { .. } => {
            Ok(shown(state, gateway))
        }
    }
}
