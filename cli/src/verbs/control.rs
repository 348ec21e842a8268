//! While a command runs in a sandbox, signals to this program are for the command. The second one is for us.

use std::future::Future;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use tokio::time::Instant;

use super::error::VerbError;
use super::signals::{Caught, Signals};
use crate::output;
use client::{Client, Patience};

/// A supervisor that sent SIGTERM will send SIGKILL: until then, our own things must be in order.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);
/// How long the last word to a command may take.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// A signal ended the wait: the exit code that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(pub u8);

impl From<Ended> for VerbError {
    fn from(Ended(code): Ended) -> Self {
        Self::Interrupted(code)
    }
}

/// Passes signals on to an exec.
pub struct Control<'a> {
    api: Client,
    signals: &'a mut Signals,
    exec: Option<String>,
    first: Option<Caught>,
    /// Came before the exec had an id.
    held: bool,
    gives_up_at: Option<Instant>,
}

impl<'a> Control<'a> {
    /// Control of an exec whose id is not known yet.
    pub fn new(api: &Client, signals: &'a mut Signals) -> Self {
        Self { api: api.clone(), signals, exec: None, first: None, held: false, gives_up_at: None }
    }

    /// Now it is known.
    pub fn started(&mut self, exec: String) {
        if let Some(caught) = self.first.filter(|_| std::mem::take(&mut self.held)) {
            tokio::spawn(pass_on(self.api.clone(), exec.clone(), caught.name()));
        }
        self.exec = Some(exec);
    }

    /// Waits for something, and meanwhile handles signals.
    pub async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::pin!(work);
        loop {
            let gives_up_at = self.gives_up_at;
            let late = async {
                match gives_up_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                caught = self.signals.next() => self.handle(caught).await?,
                result = &mut work => return Ok(result),
                () = late => return Err(self.give_up().await),
            }
        }
    }

    async fn handle(&mut self, caught: Caught) -> Result<(), Ended> {
        if self.first.is_some() {
            return Err(self.give_up().await);
        }
        self.first = Some(caught);
        match caught {
            Caught::Interrupt => {}
            Caught::Terminate | Caught::HangUp => self.gives_up_at = Some(Instant::now() + TERMINATE_GRACE),
        }
        if stderr().is_terminal() {
            output::note(&format!("passed {} on to the command; once more ends it", caught.name()));
        }
        match &self.exec {
            Some(exec) => {
                tokio::spawn(pass_on(self.api.clone(), exec.clone(), caught.name()));
            }
            None => self.held = true,
        }
        Ok(())
    }

    async fn give_up(&mut self) -> Ended {
        self.kill("SIGKILL").await;
        Ended(self.first.map_or(1, Caught::exit_code))
    }

    /// Ends the command, because nobody waits for it any more.
    pub async fn kill(&mut self, signal: &'static str) {
        if let Some(exec) = self.exec.take() {
            let _ = tokio::time::timeout(KILL_WAIT, pass_on(self.api.clone(), exec, signal)).await;
        }
    }
}

/// Sends a signal to an exec. One that has ended needs none.
async fn pass_on(api: Client, exec: String, signal: &'static str) {
    // Its id is known before it is in the record.
    let mut patience = Patience::new(Duration::from_secs(5));
    loop {
        match api.signal_exec(&exec, signal).await {
            Ok(()) => return,
            Err(error) if error.is_conflict() => return,
            Err(error) if error.is_not_found() || error.is_passing() => {
                if !patience.again().await {
                    return output::note(&format!("cannot pass {signal} on: {error}"));
                }
            }
            Err(error) => return output::note(&format!("cannot pass {signal} on: {error}")),
        }
    }
}
