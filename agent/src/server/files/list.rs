use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use agent::protocol::{Entry, FileErrorKind, FileRefusal, MAX_LISTED, MAX_LISTED_BYTES};

use super::path::{entry_of, refusal};

/// What a directory holds, by path. Entries are looked at as they are sent: all that is kept is their names.
pub struct Listing {
    directory: PathBuf,
    /// Below the directory, last first.
    names: Vec<OsString>,
}

impl Listing {
    /// Refuses a directory that holds more than one answer does, before anything of it is sent.
    pub fn of(directory: &Path, recursive: bool, shown: &str) -> Result<Self, FileRefusal> {
        let mut names = Names::default();
        let mut open = vec![PathBuf::new()];
        while let Some(above) = open.pop() {
            let reader = match fs::read_dir(directory.join(&above)) {
                Ok(reader) => reader,
                Err(error) if above.as_os_str().is_empty() => return Err(refusal(shown, &error)),
                // What vanishes meanwhile, or may not be looked at, is left out.
                Err(_) => continue,
            };
            for found in reader.flatten() {
                let below = above.join(found.file_name());
                if recursive && found.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(below.clone());
                }
                names.add(below, shown)?;
            }
        }
        let mut names = names.found;
        names.sort_unstable_by(|one, other| Path::new(other).cmp(Path::new(one)));
        Ok(Self { directory: directory.to_owned(), names })
    }

    /// The next entries, of about so many bytes; none at the end.
    pub fn next(&mut self, bytes: usize) -> Vec<Entry> {
        let (mut batch, mut total) = (Vec::new(), 0);
        while total < bytes
            && let Some(name) = self.names.pop()
        {
            let path = self.directory.join(name);
            let Ok(link) = fs::symlink_metadata(&path) else { continue };
            let followed = if link.is_symlink() { fs::metadata(&path).ok() } else { None };
            let entry = entry_of(&path, followed.as_ref().unwrap_or(&link), link.is_symlink());
            total += entry.path.len() + entry.name.len() + 64;
            batch.push(entry);
        }
        batch
    }
}

/// Paths, as many as one answer holds.
#[derive(Default)]
pub struct Names {
    pub found: Vec<OsString>,
    bytes: usize,
}

impl Names {
    pub fn add(&mut self, path: PathBuf, shown: &str) -> Result<(), FileRefusal> {
        let mut path = path.into_os_string().into_vec();
        path.shrink_to_fit();
        self.bytes += path.len();
        if self.found.len() == MAX_LISTED || self.bytes > MAX_LISTED_BYTES {
            let message = format!("more than {MAX_LISTED} entries, or {MAX_LISTED_BYTES} bytes of names");
            return Err(FileRefusal { kind: FileErrorKind::TooMany, path: shown.to_owned(), message });
        }
        self.found.push(OsString::from_vec(path));
        Ok(())
    }
}
