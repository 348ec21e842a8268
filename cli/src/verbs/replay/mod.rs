//! `stacyvm replay`

mod cast;
mod player;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use self::cast::{Line, Reader, What};
use self::player::{Pace, Played, Player};
use super::arguments::duration;
use super::details::words;
use super::error::VerbError;
use super::kill::is_exec;
use super::signals::Signals;
use super::stdin::read_stdin;
use super::terminal::{self, RawMode};
use crate::output::{LiveOutput, Style, plain};
use client::{Client, Exec, ExecsQuery, LineSplitter, TerminalSize};

/// Between the end of one exec and the start of the next, at most.
const BETWEEN: Duration = Duration::from_secs(1);

/// Play what an exec showed, or all that ran in a sandbox, with its timing. Works long after both are gone.
///
/// Where stdin is a terminal: space pauses and goes on, `.` shows the next piece, `+` and `-` change the speed, `q` or Ctrl-C
/// quits.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// Sandbox or exec.
    pub id: String,
    /// Of a sandbox, only this exec.
    #[arg(long, value_name = "EXEC")]
    pub exec: Option<String>,
    /// Times as fast as it was; inf for all at once.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = speed)]
    pub speed: f64,
    /// No pause is longer than this (2s, 500ms).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle_limit: Option<Duration>,
    /// Begin so far into the recording; what was before is shown at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub from: Option<Duration>,
    /// Write the recording of one exec into a file instead of playing it.
    #[arg(long, value_name = "FILE.cast", conflicts_with_all = ["speed", "idle_limit", "from"])]
    pub save: Option<PathBuf>,
    /// The form of that file: version 2, which every player takes, or 3.
    #[arg(long, value_name = "FORM", requires = "save", default_value = "asciicast-v2", value_parser = FORMS)]
    pub save_format: String,
}

const FORMS: [&str; 2] = ["asciicast-v2", "asciicast-v3"];

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if speed > 0.0 { Ok(speed) } else { Err("it must be more than 0".to_owned()) }
}

pub async fn replay(api: &Client, args: ReplayArgs) -> Result<ExitCode, VerbError> {
    let execs = chosen(api, &args).await?;
    if let Some(path) = &args.save {
        let [exec] = execs.as_slice() else {
            let ids = execs.iter().map(|exec| exec.id.as_str()).collect::<Vec<_>>().join(", ");
            return Err(VerbError::Usage(format!("--save takes one exec: name one of {ids} with --exec")));
        };
        save(api, exec, &args.save_format, path).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let out = LiveOutput::start().map_err(VerbError::local("cannot start a thread"))?;
    let raw_mode = match terminal::is_input() && terminal::is_output() {
        true => Some(RawMode::enter()?),
        false => None,
    };
    let keys = match &raw_mode {
        Some(_) => Some(read_stdin().map_err(VerbError::local("cannot start a thread"))?),
        None => None,
    };
    let pace = Pace { speed: args.speed, idle_limit: args.idle_limit, from: args.from.unwrap_or_default() };
    let mut player = Player::new(&out, raw_mode.as_ref(), keys, pace);
    let outcome = tokio::select! {
        biased;
        caught = signals.next() => Err(VerbError::Interrupted(caught.exit_code())),
        error = out.closed() => Err(VerbError::output(error)),
        played = play_all(api, &execs, &mut player) => played,
    };
    match &outcome {
        Ok(()) => out.flush().await.map_err(VerbError::output)?,
        Err(_) => {
            let _ = tokio::time::timeout(Duration::from_millis(300), out.abandon()).await;
        }
    }
    drop(raw_mode);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn chosen(api: &Client, args: &ReplayArgs) -> Result<Vec<Exec>, VerbError> {
    if is_exec(&args.id) {
        return Ok(vec![api.exec(&args.id).await?]);
    }
    if let Some(id) = &args.exec {
        let exec = api.exec(id).await?;
        if exec.sandbox_id != args.id {
            return Err(VerbError::Usage(format!("{id} did not run in {}", args.id)));
        }
        return Ok(vec![exec]);
    }
    let execs = api.execs(&args.id, ExecsQuery::default()).await?;
    if execs.is_empty() {
        return Err(VerbError::Failed(format!("nothing ran in {}", args.id)));
    }
    Ok(execs)
}

async fn save(api: &Client, exec: &Exec, form: &str, path: &std::path::Path) -> Result<(), VerbError> {
    let cannot = || VerbError::local(format!("cannot write {}", path.display()));
    let mut response = api.recording(&exec.id, form).await?;
    let mut file = tokio::fs::File::create(path).await.map_err(cannot())?;
    while let Some(bytes) = response.chunk().await? {
        file.write_all(&bytes).await.map_err(cannot())?;
    }
    file.flush().await.map_err(cannot())
}

async fn play_all(api: &Client, execs: &[Exec], player: &mut Player<'_>) -> Result<(), VerbError> {
    for (index, exec) in execs.iter().enumerate() {
        if execs.len() > 1 {
            if index > 0 && player.wait(Duration::MAX, BETWEEN).await == Played::Quit {
                return Ok(());
            }
            player.show(&heading(exec)).await?;
        }
        let played = play(api, exec, player).await;
        player.reset().await?;
        if played? == Played::Quit {
            return Ok(());
        }
    }
    Ok(())
}

fn heading(exec: &Exec) -> String {
    let started = exec.started_at.format("%F %T ");
    let command = words(&exec.argv);
    let line = format!("── {started}{}  {}", plain(&exec.id), plain(&command));
    format!("\r\n{}\r\n", Style::of(&std::io::stdout()).dim(&line))
}

async fn play(api: &Client, exec: &Exec, player: &mut Player<'_>) -> Result<Played, VerbError> {
    let mut response = api.recording(&exec.id, "asciicast-v3").await?;
    let mut lines = LineSplitter::default();
    let mut reader = Reader::default();
    let mut before = Duration::ZERO;
    loop {
        while let Some(line) = lines.next_line().map_err(|error| VerbError::Unexpected(error.to_string()))? {
            let event = match reader.line(&line)? {
                Line::Header(header) => {
                    if let Some(warning) = warning_of_size(header.size).filter(|_| exec.has_terminal()) {
                        player.show(&warning).await?;
                    }
                    continue;
                }
                Line::Event(event) => event,
                Line::Nothing => continue,
            };
            if player.wait(event.at, event.at.saturating_sub(before)).await == Played::Quit {
                return Ok(Played::Quit);
            }
            before = event.at;
            match event.what {
                What::Output(text) => player.show(&text).await?,
                What::Resized(_) | What::Marker(_) | What::Exited(_) | What::Other => {}
            }
        }
        match response.chunk().await? {
            Some(bytes) => lines.push(&bytes),
            None => return Ok(Played::On),
        }
    }
}

/// Our terminal cannot be made larger from here.
fn warning_of_size(recorded: TerminalSize) -> Option<String> {
    let ours = terminal::known_size().filter(|_| terminal::is_output())?;
    let is_small = ours.rows < recorded.rows || ours.cols < recorded.cols;
    is_small.then(|| {
        let TerminalSize { rows, cols } = recorded;
        let line =
            format!("recorded on a terminal of {cols} x {rows}, this one is {} x {}", ours.cols, ours.rows);
        format!("{}\r\n", Style::of(&std::io::stdout()).dim(&line))
    })
}
