use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use transport::Log;

use super::growth::nats_config;
use super::recorder::services;
use super::recorder::workload::Workload;
use crate::report::{Row, Target, per_second};
use crate::rig::Rig;
use crate::serve::Serve;
use crate::stats::Samples;

/// Messages that are published at once while the log is filled.
const WINDOW: usize = 64;

/// All events of a log over one WebSocket, from the first position to the head; beside a client of the same database
/// that selects position and header of all rows and throws them away.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let events = rig.size(200_000, 10_000);
    let rounds = rig.size(5, 1);
    let mut rows = Vec::new();

    let mut serve = rig.start().await?;
    let path = serve.data("events.db");
    fill(&serve, &format!("sqlite:{}", path.display()), events).await.context("filling SQLite")?;
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        ours.push(replay(&serve, events).await?);
        floor.push(select_sqlite(&path, events).await?);
    }
    rows.push(row("SQLite", &ours, &floor, events));
    serve.stop().await;

    let server = tokio::task::spawn_blocking(services::Postgres::start)
        .await
        .context("no Postgres could be started")?;
    let url = server.database("replay");
    let mut serve = rig.start_with(&[("STACYVM_DATABASE_URL", &url)]).await?;
    fill(&serve, &url, events).await.context("filling Postgres")?;
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        ours.push(replay(&serve, events).await?);
        floor.push(select_postgres(&url, events).await?);
    }
    rows.push(row("Postgres", &ours, &floor, events));
    serve.stop().await;
    tokio::task::spawn_blocking(move || drop(server)).await?;
    Ok(rows)
}

fn row(database: &str, ours: &Samples, floor: &Samples, events: usize) -> Row {
    let text = |samples: &Samples| (samples.p50(), format!("{} events", per_second(samples.p50())));
    let what = format!("replay over one WebSocket, {database}");
    Row::compared(&what, Target::Rate(0.3), text(ours), text(floor))
        .note(format!("median of {} replays of {events} events; the client runs in the bench", ours.len()))
}

/// Publishes as executors do, and waits until all of it is recorded.
async fn fill(serve: &Serve, url: &str, events: usize) -> anyhow::Result<()> {
    let work = Workload::new(events)?;
    let log = Log::connect(&nats_config(serve)?).await.context("the server's nats-server")?;
    let store = store::open_store(url).await?;
    let before = store.head().await?.position.0;
    for messages in work.messages.chunks(WINDOW) {
        let mut pending = Vec::with_capacity(messages.len());
        for message in messages {
            let frame = events::decode_batch(message.clone(), false)?.into_iter().next().context("empty")?;
            pending.push(log.publish_pipelined(&frame.decode()?, message.clone()).await?);
        }
        for publish in pending {
            publish.wait().await?;
        }
    }
    let began = Instant::now();
    while store.head().await?.position.0 < before + work.events as u64 {
        ensure!(began.elapsed() < Duration::from_secs(120), "the events are not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await;
    Ok(())
}

/// Events a second.
async fn replay(serve: &Serve, events: usize) -> anyhow::Result<f64> {
    let (authority, path) = serve.websocket("/events/ws?from=1&follow=false")?;
    let began = Instant::now();
    let socket = TcpStream::connect(&authority).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{authority}{path}"), socket).await?;
    let mut seen = 0;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(lines) => {
                seen += lines.lines().filter(|line| line.contains("\"position\"")).count()
            }
            Message::Close(_) => break,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    let took = began.elapsed();
    ensure!(seen >= events, "{seen} of {events} events arrived");
    Ok(seen as f64 / took.as_secs_f64())
}

async fn select_sqlite(path: &std::path::Path, events: usize) -> anyhow::Result<f64> {
    let mut connection = SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let began = Instant::now();
    let mut rows =
        sqlx::query("SELECT position, header FROM events ORDER BY position").fetch(&mut connection);
    let mut seen = 0;
    while let Some(row) = rows.try_next().await? {
        let header: &[u8] = row.try_get(1)?;
        std::hint::black_box(header);
        seen += 1;
    }
    let took = began.elapsed();
    drop(rows);
    connection.close().await?;
    ensure!(seen >= events, "{seen} of {events} rows");
    Ok(seen as f64 / took.as_secs_f64())
}

async fn select_postgres(url: &str, events: usize) -> anyhow::Result<f64> {
    let mut connection = PgConnection::connect(url).await?;
    let began = Instant::now();
    let mut rows =
        sqlx::query("SELECT position, header FROM events ORDER BY position").fetch(&mut connection);
    let mut seen = 0;
    while let Some(row) = rows.try_next().await? {
        let header: &[u8] = row.try_get(1)?;
        std::hint::black_box(header);
        seen += 1;
    }
    let took = began.elapsed();
    drop(rows);
    connection.close().await?;
    ensure!(seen >= events, "{seen} of {events} rows");
    Ok(seen as f64 / took.as_secs_f64())
}
