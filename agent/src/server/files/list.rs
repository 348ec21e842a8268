use std::fs;
use std::io;
use std::path::Path;

use agent::protocol::{Entry, MAX_LISTED};

use super::path::entry_of;

/// Entries sorted by path, and whether there were more.
pub fn list(directory: &Path, recursive: bool) -> io::Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    let mut truncated = false;
    let mut open = vec![fs::read_dir(directory)?];
    'walk: while let Some(reader) = open.pop() {
        // What vanishes meanwhile, or may not be looked at, is left out.
        for found in reader.flatten() {
            let Ok(link) = found.metadata() else { continue };
            let path = found.path();
            let followed = if link.is_symlink() { fs::metadata(&path).ok() } else { None };
            if recursive && link.is_dir() {
                open.extend(fs::read_dir(&path));
            }
            if entries.len() == MAX_LISTED {
                truncated = true;
                break 'walk;
            }
            entries.push(entry_of(&path, followed.as_ref().unwrap_or(&link), link.is_symlink()));
        }
    }
    entries.sort_unstable_by(|one: &Entry, other| one.path.cmp(&other.path));
    Ok((entries, truncated))
}
