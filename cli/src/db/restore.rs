use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use audit::{CheckpointFile, Signable, read_checkpoints};
use events::{Position, RestoreStatement};
use store::upkeep::{self, with_suffix};

use crate::config::Config;
use crate::installation::Installation;
use crate::output::{Format, bytes, note, print, print_json};
use crate::roles;

/// Puts a copy in the place of the database.
///
/// What NATS still holds is from after the copy was made. The messages of an own nats-server are put aside with the old
/// database: its streams begin anew, and the recorder takes them from their start. Those of another NATS stay there: the
/// recorder takes what is left of them after the head of the copy, and says which are missing.
pub(super) async fn run(
    config: &Config,
    url: &str,
    source: &Path,
    force: bool,
    format: Format,
) -> anyhow::Result<()> {
    let target = upkeep::sqlite_path(url, "pg_restore")?;
    let installation = Installation::open(config)?;
    let mut held_head = None;
    let held = match fs::metadata(target) {
        Ok(_) => {
            let held = upkeep::check(target).await.ok();
            held_head = held.as_ref().map(|held| held.head);
            held.map(|held| held.events)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        Err(error) => return Err(error).with_context(|| target.display().to_string()),
    };
    if held != Some(0) && !force {
        bail!(
            "{} holds {}: --force puts the copy in its place and keeps it as {}",
            target.display(),
            held.map_or("something that is no whole database".to_owned(), |events| format!(
                "{events} events"
            )),
            with_suffix(target, REPLACED).display()
        );
    }
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let partial = with_suffix(target, ".partial");
    fs::copy(source, &partial).with_context(|| format!("cannot copy {}", source.display()))?;
    sync(&partial)?;
    let checked = upkeep::check(&partial).await?;
    // First what belongs to the old file: beside the new one it would destroy it.
    for suffix in ["-wal", "-shm", ""] {
        put_aside(&with_suffix(target, suffix), &with_suffix(target, &format!("{REPLACED}{suffix}")))?;
    }
    put_aside(&partial, target)?;
    for suffix in ["-wal", "-shm"] {
        remove(&with_suffix(&partial, suffix))?;
    }
    if let Some(directory) = target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        sync(directory)?;
    }
    if config.nats.url.is_none() {
        let streams = installation.path("nats/store");
        put_aside(&streams, &with_suffix(&streams, REPLACED))?;
    } else {
        note("what NATS still holds is recorded after the copy's newest event");
    }
    let held_to = held_head.unwrap_or(Position::ZERO);
    let statement = state(config, checked.head, held_to)?;
    note(&lost(&statement));
    match format {
        Format::Json => print_json(&checked)?,
        Format::Table => print(&format!(
            "{}: {} events up to position {}, {}\n",
            target.display(),
            checked.events,
            checked.head,
            bytes(checked.bytes)
        ))?,
    }
    Ok(())
}

/// States, where checkpoints are written, that a log that ends here took the place of what was there. The recorder tells
/// the log at its next start.
fn state(config: &Config, head: Position, held_to: Position) -> anyhow::Result<RestoreStatement> {
    let file = roles::checkpoint_file(config);
    let mut lost_to = held_to.max(head);
    if file.exists() {
        for line in read_checkpoints(&file)? {
            lost_to = lost_to.max(line?.1.statement.up_to);
        }
    }
    let statement = RestoreStatement { up_to: head, lost_to, at: roles::clock().now() };
    let signed = statement.sign(&roles::signing_key(config)?);
    CheckpointFile::at(&file).append_restored(&signed)?;
    Ok(statement)
}

fn lost(statement: &RestoreStatement) -> String {
    let RestoreStatement { up_to, lost_to, .. } = statement;
    if lost_to > up_to {
        format!("positions {} to {lost_to} are lost; the log and the checkpoint file say so", up_to.next())
    } else {
        "nothing is known to be lost; the log and the checkpoint file say what was done".to_owned()
    }
}

/// The same statement for a database that other tools put back.
pub(super) async fn restored(config: &Config, url: &str) -> anyhow::Result<()> {
    let record = store::open_store(url).await.context("cannot open the database")?;
    let head = record.head().await;
    record.close().await;
    note(&lost(&state(config, head?.position, Position::ZERO)?));
    Ok(())
}

/// What was there before is kept under this name, in place of what was kept so before.
const REPLACED: &str = ".replaced";

/// Moves what is there, in place of what the new name has.
fn put_aside(from: &Path, to: &Path) -> anyhow::Result<()> {
    remove(to)?;
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| from.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(path: &Path) -> anyhow::Result<()> {
    fs::File::open(path).and_then(|opened| opened.sync_all()).with_context(|| path.display().to_string())
}
