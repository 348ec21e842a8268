//! `GET /audit/export`

use std::collections::HashMap;

use audit::{AuditQuery, CSV_HEADING, EndLine, EventLine, ExportLine, StartLine, cloud_event, csv_row, list};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use events::{ChainPoint, Position, RetentionClass, TenantId};
use record::StoreError;
use serde::Deserialize;
use utoipa::IntoParams;

use super::checkpoints::proofs;
use super::public_keys;
use super::query::{AuditParams, is_about_own};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::routes::execs::output::flag;
use crate::stream::record::write_line;

/// Events that are read at once. Few, because each may have a large body.
const PAGE: u32 = 32;
/// The same without bodies.
const ROWS: usize = 500;
/// How many positions one read looks through.
const WINDOW: u64 = 50_000;

/// In which form.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `ndjson` (which can be verified), `csv` or `cloudevents`. `ndjson` by default.
    pub format: Option<String>,
    /// `false`: without the bytes of output and input, of which only the hashes are exported. Of `ndjson` only.
    pub bodies: Option<String>,
}

/// The log as a file: everybody's for an operator, else the tenant's own.
///
/// `ndjson` has every event in its exact bytes with its link, so that `stacyvm audit verify FILE` can check it anywhere; it
/// takes no filters, because a chain with gaps proves nothing. `csv` and `cloudevents` take those of `GET /audit`.
#[utoipa::path(
    get,
    path = "/audit/export",
    tag = "audit",
    params(ExportQuery, AuditParams),
    responses(
        (status = 200, description = "The log", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "No such format, or a filter for `ndjson`", body = ErrorBody),
        (status = 404, description = "No such tenant", body = ErrorBody),
    )
)]
pub(crate) async fn export(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(form): QueryOf<ExportQuery>,
    QueryOf(params): QueryOf<AuditParams>,
) -> Result<Response, ApiError> {
    let query = params.read(&caller)?;
    let bodies = form.bodies.is_none() || flag(form.bodies.as_deref(), "bodies")?;
    match form.format.as_deref().unwrap_or("ndjson") {
        "ndjson" => {
            let whole = AuditParams { tenant: None, ..params };
            if !whole.is_whole() {
                return Err(ApiError::bad_request(
                    "an ndjson export takes no filters, because a chain with gaps cannot be verified: use csv or cloudevents",
                ));
            }
            let export = Chained::open(gateway, caller, query.filter.tenant, bodies).await?;
            let body = futures::stream::try_unfold(export, |mut export| async move {
                // A turn for each piece: one that is read slowly is in nobody's way.
                let turn = export.gateway.shares().reading(&export.caller).await?;
                let bytes = export.next().await.inspect_err(broken)?;
                drop(turn);
                Ok::<_, ExportError>(bytes.map(|bytes| (bytes, export)))
            });
            Ok(file("application/x-ndjson", "ndjson", Body::from_stream(body)))
        }
        "csv" => rows(gateway, caller, query, Form::Csv).await,
        "cloudevents" => rows(gateway, caller, query, Form::CloudEvents).await,
        _ => Err(ApiError::bad_request("format must be ndjson, csv or cloudevents")),
    }
}

/// Why an export ends before its end.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Turn(#[from] ApiError),
}

/// The connection breaks then, so that nobody takes half an export for a whole one.
fn broken(error: &StoreError) {
    tracing::error!(error = error as &dyn std::error::Error, "an export breaks");
}

fn file(content_type: &'static str, ending: &str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"stacyvm-audit.{ending}\"")),
    ];
    (headers, body).into_response()
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Csv,
    CloudEvents,
}

async fn rows(
    gateway: Gateway,
    caller: Caller,
    mut query: AuditQuery,
    form: Form,
) -> Result<Response, ApiError> {
    query.limit = ROWS;
    let query = is_about_own(&gateway, &query).await?.then_some(query);
    let heading = match form {
        Form::Csv => Some(Bytes::from_static(CSV_HEADING.as_bytes())),
        Form::CloudEvents => None,
    };
    // What is recorded meanwhile is not in it.
    let head = gateway.feed().head();
    let state = (gateway, caller, query, heading);
    let body = futures::stream::try_unfold(state, move |(gateway, caller, query, heading)| async move {
        if let Some(heading) = heading {
            return Ok::<_, ExportError>(Some((heading, (gateway, caller, query, None))));
        }
        let Some(mut query) = query else { return Ok(None) };
        let turn = gateway.shares().reading(&caller).await?;
        let page = list(gateway.store(), &query).await.inspect_err(broken)?;
        drop(turn);
        let mut out = BytesMut::new();
        for (row, event) in page.events.iter().filter(|(row, _)| row.position <= head) {
            match form {
                Form::Csv => out.put_slice(csv_row(row, event).as_bytes()),
                Form::CloudEvents => {
                    if let Some(line) = cloud_event(row) {
                        out.put_slice(line.as_bytes());
                        out.put_u8(b'\n');
                    }
                }
            }
        }
        let next = page.next_after.filter(|after| query.backwards || *after < head).map(|after| {
            query.after = Some(after);
            query
        });
        Ok(Some((out.freeze(), (gateway, caller, next, None))))
    });
    Ok(match form {
        Form::Csv => file("text/csv; charset=utf-8", "csv", Body::from_stream(body)),
        Form::CloudEvents => file("application/x-ndjson", "cloudevents.ndjson", Body::from_stream(body)),
    })
}

/// The export that can be verified.
struct Chained {
    gateway: Gateway,
    caller: Caller,
    tenant: Option<TenantId>,
    bodies: bool,
    at: Position,
    head: Position,
    chains: HashMap<TenantId, ChainPoint>,
    events: u64,
    part: Part,
}

/// What comes next.
enum Part {
    Start(StartLine),
    Events,
    /// For one tenant: what checkpoints say of it, after this one.
    Checkpoints(Position),
    End,
    Over,
}

impl Chained {
    async fn open(
        gateway: Gateway,
        caller: Caller,
        tenant: Option<TenantId>,
        bodies: bool,
    ) -> Result<Self, ApiError> {
        let head = gateway.store().head().await.map_err(ApiError::store)?.position;
        let floors = gateway.store().floors().await.map_err(ApiError::store)?;
        let floor = floors.iter().find(|floor| floor.class == RetentionClass::Lifecycle);
        let start = StartLine {
            format: audit::EXPORT_FORMAT.to_owned(),
            tenant: tenant.clone(),
            bodies,
            filtered: false,
            head,
            floor: floor.map_or(Position::ZERO, |floor| floor.up_to),
        };
        Ok(Self {
            gateway,
            caller,
            tenant,
            bodies,
            at: Position::ZERO,
            head,
            chains: HashMap::new(),
            events: 0,
            part: Part::Start(start),
        })
    }

    /// What to send next. Nothing is read ahead of what the socket takes.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut out = BytesMut::new();
        while out.is_empty() {
            match std::mem::replace(&mut self.part, Part::Over) {
                Part::Start(start) => {
                    write_line(&ExportLine::Start(start), &mut out);
                    self.part = Part::Events;
                }
                Part::Events => self.events(&mut out).await?,
                Part::Checkpoints(after) => self.checkpoints(after, &mut out).await?,
                Part::End => write_line(&ExportLine::End { end: self.end() }, &mut out),
                Part::Over => return Ok(None),
            }
        }
        Ok(Some(out.freeze()))
    }

    async fn events(&mut self, out: &mut BytesMut) -> Result<(), StoreError> {
        if self.at >= self.head {
            self.part = if self.tenant.is_some() { Part::Checkpoints(Position::ZERO) } else { Part::End };
            return Ok(());
        }
        self.part = Part::Events;
        let up_to = Position(self.at.0.saturating_add(WINDOW).min(self.head.0));
        let frames =
            self.gateway.record().evidence.read_chain(self.tenant.as_ref(), self.at, up_to, PAGE).await?;
        self.at = frames.last().map_or(up_to, |frame| frame.position);
        for frame in &frames {
            write_line(&ExportLine::Event(EventLine::new(frame, self.bodies)), out);
            self.events += 1;
            let (tenant, position, hash) = (frame.tenant.clone(), frame.position, frame.hash);
            self.chains.insert(frame.tenant.clone(), ChainPoint { tenant, position, hash });
        }
        Ok(())
    }

    async fn checkpoints(&mut self, after: Position, out: &mut BytesMut) -> Result<(), StoreError> {
        self.part = Part::End;
        let Some(tenant) = &self.tenant else { return Ok(()) };
        let (proofs, next) = proofs(self.gateway.store(), tenant, after).await?;
        // Those of what came after the export began speak of events that are not in it.
        for checkpoint in proofs.into_iter().filter(|proof| proof.point.position <= self.head) {
            write_line(&ExportLine::Checkpoint { checkpoint }, out);
        }
        if let Some(next) = next {
            self.part = Part::Checkpoints(next);
        }
        Ok(())
    }

    fn end(&mut self) -> EndLine {
        let mut chains: Vec<ChainPoint> = self.chains.drain().map(|(_, point)| point).collect();
        chains.sort_by_key(|point| point.position);
        let keys = public_keys(&self.gateway).unwrap_or_default();
        EndLine { events: self.events, chains, public_keys: keys.iter().map(ToString::to_string).collect() }
    }
}
