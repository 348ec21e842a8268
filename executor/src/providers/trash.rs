//! What is left of boxes that are gone, out of everybody's way until it is removed.
//!
//! A box is moved here in one step, however much it holds. Removing it goes on beside all else, a slice at a time; what cannot be
//! removed now is tried again later, and nothing waits for it: not a start, not reconciliation, not another box.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::ErrorChain;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use super::remover::{Removed, Remover};
use super::run_dir;

/// Its name in the directory whose entries come here.
const DIRECTORY: &str = ".trash";
/// How long one try may take.
const SLICE: Duration = Duration::from_secs(20);
/// How many are removed at once.
const AT_ONCE: usize = 2;
/// Between the tries of what does not go: from the shortest, twice as long each time, to the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// A directory of what is to be removed.
#[derive(Debug, Clone)]
pub(super) struct Trash(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    remover: Remover,
    at_once: Semaphore,
    /// What is being removed, or waits to be tried again.
    under_way: Mutex<HashMap<OsString, Arc<Notify>>>,
}

/// Something that was thrown away.
#[derive(Debug)]
pub(super) struct Thrown {
    name: OsString,
    gone: Arc<Notify>,
    trash: Trash,
}

impl Trash {
    /// The one for entries of `beside`, on whose file system it lies. Nothing is removed yet.
    pub(super) fn new(beside: &Path, remover: Remover) -> io::Result<Self> {
        let directory = beside.join(DIRECTORY);
        std::fs::create_dir_all(&directory)?;
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700))?;
        let (at_once, under_way) = (Semaphore::new(AT_ONCE), Mutex::default());
        Ok(Self(Arc::new(Inner { directory, remover, at_once, under_way })))
    }

    /// Takes something away from where it is, and begins to remove it. Nothing when it is not there.
    pub(super) fn throw(&self, path: &Path) -> io::Result<Option<Thrown>> {
        let name = OsString::from(uuid::Uuid::now_v7().simple().to_string());
        match std::fs::rename(path, self.0.directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(self.begin(name))),
        }
    }

    /// Goes on with what a former process, or a crash, left here. Returns at once.
    pub(super) fn go_on(&self) {
        // Only we put things here; what cannot be listed now is listed the next time.
        for entry in std::fs::read_dir(&self.0.directory).into_iter().flatten().flatten() {
            self.begin(entry.file_name());
        }
    }

    fn begin(&self, name: OsString) -> Thrown {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = match under_way.get(&name) {
            Some(gone) => Arc::clone(gone),
            None => {
                let gone = Arc::new(Notify::new());
                under_way.insert(name.clone(), Arc::clone(&gone));
                tokio::spawn(self.clone().remove(name.clone()));
                gone
            }
        };
        Thrown { name, gone, trash: self.clone() }
    }

    async fn remove(self, name: OsString) {
        let path = self.0.directory.join(&name);
        // By hand: what goes slowly is gone on with at once, and only what stays is waited for.
        let mut pause = PAUSES[0];
        loop {
            match self.try_remove(&path).await {
                Removed::Gone => break,
                Removed::NotYet => {}
                Removed::Stays(error) => {
                    if pause == PAUSES[0] {
                        tracing::warn!(
                            path = %path.display(),
                            error = %ErrorChain(&error),
                            "what a sandbox left cannot be removed now; it is tried again"
                        );
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
        let gone = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        gone.iter().for_each(|gone| gone.notify_waiters());
    }

    async fn try_remove(&self, path: &Path) -> Removed {
        let Ok(_turn) = self.0.at_once.acquire().await else { return Removed::NotYet };
        // Of a box that was moved here while its directory was mounted still.
        for mounted in [path.to_owned(), path.join("run")] {
            if let Err(error) = run_dir::release(&mounted) {
                return Removed::Stays(error);
            }
        }
        self.0.remover.remove(path, SLICE).await
    }
}

impl Thrown {
    /// Waits until it is removed, for so long at most.
    pub(super) async fn gone(&self, within: Duration) {
        let give_up_at = Instant::now() + within;
        let gone = self.gone.notified();
        tokio::pin!(gone);
        // Before the look: the news may come in between.
        gone.as_mut().enable();
        let is_there = {
            let under_way = self.trash.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.contains_key(&self.name)
        };
        if is_there {
            let _ = tokio::time::timeout_at(give_up_at, gone).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> PathBuf {
        std::env::var_os("STACYVM_AGENT")
            .expect("STACYVM_AGENT names the static agent; run `make agent`")
            .into()
    }

    #[tokio::test]
    async fn what_cannot_be_removed_holds_up_nothing_else_and_goes_when_it_can() {
        let place = tempfile::tempdir().unwrap();
        let boxed = |name: &str| {
            std::fs::create_dir_all(place.path().join(name).join("upper/mounted")).unwrap();
            place.path().join(name)
        };
        let trash = Trash::new(place.path(), Remover::new(agent())).unwrap();
        let stuck = [boxed("stuck-1"), boxed("stuck-2"), boxed("stuck-3")];
        for stuck in &stuck {
            rustix::mount::mount(
                c"tmpfs",
                stuck.join("upper/mounted"),
                c"tmpfs",
                rustix::mount::MountFlags::empty(),
                None,
            )
            .unwrap();
        }
        for stuck in &stuck {
            trash.throw(stuck).unwrap().unwrap().gone(Duration::from_millis(100)).await;
            assert!(!stuck.exists());
        }
        // More than are removed at once do not go, and this one does.
        trash.throw(&boxed("good")).unwrap().unwrap().gone(Duration::from_secs(30)).await;
        let left = || std::fs::read_dir(place.path().join(".trash")).unwrap().count();
        assert_eq!(left(), 3);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for at in mounts.split(' ').filter(|word| word.starts_with(place.path().to_str().unwrap())) {
            rustix::mount::unmount(at, rustix::mount::UnmountFlags::empty()).unwrap();
        }
        // Another process would begin at once, and this one does in time.
        let other = Trash::new(place.path(), Remover::new(agent())).unwrap();
        other.go_on();
        let began = Instant::now();
        while left() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "something stays");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(trash.throw(&stuck[0]).unwrap().is_none());
    }
}
