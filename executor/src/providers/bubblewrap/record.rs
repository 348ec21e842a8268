//! What is kept on disk about a box, so that another process can tell whether it runs.

use std::io;
use std::path::{Path, PathBuf};

use agent::client::Peer;
use events::SandboxSpec;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The agent of a box, as a process of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    /// Field 22 of `/proc/PID/stat`: with it a number that was given out again is not taken for the same process.
    started_ticks: u64,
    /// Which run of the kernel the above belong to.
    boot_id: String,
}

/// `box.json`: written once the box runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) agent: Process,
    pub(super) spec: SandboxSpec,
}

/// The files of a box.
#[derive(Debug, Clone)]
pub(super) struct BoxDir(PathBuf);

impl BoxDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Shared with the box.
    pub(super) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The box's own files, over the image.
    pub(super) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// The kernel's scratch space for `upper`.
    pub(super) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// What bwrap says about the process that it made.
    pub(super) fn info(&self) -> PathBuf {
        self.0.join("info.json")
    }

    /// What bwrap and the agent say on stderr.
    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        match std::fs::read(self.0.join("box.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let partial = self.0.join("box.json.partial");
        std::fs::write(&partial, serde_json::to_vec(record)?)?;
        std::fs::rename(partial, self.0.join("box.json"))
    }

    /// The agent of a box that is coming up, as bwrap named it.
    pub(super) fn agent(&self) -> io::Result<Process> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Info {
            child_pid: i32,
        }
        let info: Info = serde_json::from_slice(&std::fs::read(self.info())?)?;
        Process::find(info.child_pid)
    }
}

impl Process {
    fn find(pid: i32) -> io::Result<Self> {
        let started_ticks = started_ticks(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, started_ticks, boot_id: boot_id()? })
    }

    pub(super) fn runs(&self) -> bool {
        started_ticks(self.pid) == Some(self.started_ticks)
            && boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
    }

    /// Ends the process, and with it, as it is PID 1 of the box, all others in the box.
    pub(super) fn kill(&self) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // The descriptor first, then the check: from here on the number cannot be taken by another.
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) if self.runs() => match pidfd_send_signal(descriptor, Signal::KILL) {
                Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            },
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets everybody in the box listen on every port.
    pub(super) fn open_low_ports(&self) -> io::Result<()> {
        super::ports::open_low_ports(self.pid)
    }

    /// Who must be listening on the box's socket.
    pub(super) fn peer(&self) -> Peer {
        Peer::Process(self.pid)
    }

    /// The name that the API shows.
    pub(super) fn runtime_id(&self) -> String {
        format!("{}-{}", self.pid, self.started_ticks)
    }
}

/// When the process started, in clock ticks since boot; nothing if it does not run.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?.parse().ok()?;
    (!dead).then_some(started)
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_number() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::find(child.id() as i32).unwrap();
        assert!(process.runs());
        let other = Process { started_ticks: process.started_ticks - 1, ..process.clone() };
        assert!(!other.runs());
        other.kill().unwrap();
        assert!(process.runs());
        process.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.runs());
    }
}
