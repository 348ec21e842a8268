//! Checkpoints outside the database: one JSON object a line, only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use events::{AuditCheckpoint, LogRestored};
use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// It cannot be read or written.
    #[error("cannot use the checkpoint file {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line is no checkpoint.
    #[error("line {line} of the checkpoint file {path} is no checkpoint")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: u64,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The file, to be appended to. It is opened for each statement: it may have been moved away, or have been on a disk that
/// was away.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
}

impl CheckpointFile {
    /// The file at this path, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Appends one. Durable on return.
    pub fn append(&self, checkpoint: &AuditCheckpoint) -> Result<(), CheckpointFileError> {
        self.append_line(checkpoint)
    }

    /// Appends that a copy took the log's place. Durable on return.
    pub fn append_restored(&self, restored: &LogRestored) -> Result<(), CheckpointFileError> {
        self.append_line(restored)
    }

    fn append_line(&self, statement: &impl Serialize) -> Result<(), CheckpointFileError> {
        let failed = |source| CheckpointFileError::Io { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(statement).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file = self.open().map_err(failed)?;
        // One write, so that several recorders do not write into each other's lines.
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(failed)
    }

    fn open(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        // A line that a crash or a full disk cut off stays, alone on its line.
        if file.seek(SeekFrom::End(-1)).is_ok() {
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum FileStatement {
    /// The ends of the chains.
    Checkpoint(AuditCheckpoint),
    /// A copy took the log's place.
    Restored(LogRestored),
}

impl From<AuditCheckpoint> for FileStatement {
    fn from(checkpoint: AuditCheckpoint) -> Self {
        Self::Checkpoint(checkpoint)
    }
}

/// The checkpoints among the [statements](read_statements) of a file.
pub fn read_checkpoints(
    path: &Path,
) -> Result<
    impl Iterator<Item = Result<(u64, AuditCheckpoint), CheckpointFileError>> + Send + use<>,
    CheckpointFileError,
> {
    Ok(read_statements(path)?.filter_map(|line| match line {
        Ok((number, FileStatement::Checkpoint(checkpoint))) => Some(Ok((number, checkpoint))),
        Ok((_, FileStatement::Restored(_))) => None,
        Err(error) => Some(Err(error)),
    }))
}

/// The statements of a file with the numbers of their lines, the oldest first. A last line that a crash cut off does not
/// count, nor does one that was cut off and followed by others: what it said was never announced.
pub fn read_statements(
    path: &Path,
) -> Result<
    impl Iterator<Item = Result<(u64, FileStatement), CheckpointFileError>> + Send + use<>,
    CheckpointFileError,
> {
    let path = path.to_owned();
    let file = File::open(&path).map_err(|source| CheckpointFileError::Io { path: path.clone(), source })?;
    let mut reader = BufReader::new(file);
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        loop {
            number += 1;
            let mut line = Vec::new();
            let read = Read::by_ref(&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
            match read {
                Err(source) => return Some(Err(CheckpointFileError::Io { path: path.clone(), source })),
                Ok(0) => return None,
                Ok(_) => {}
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(line.trim_ascii()) {
                Ok(statement) => return Some(Ok((number, statement))),
                Err(error) if error.is_eof() => {}
                Err(source) => {
                    return Some(Err(CheckpointFileError::Line { path: path.clone(), line: number, source }));
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::{AuditKey, Signable};
    use events::{ChainHash, CheckpointStatement, Position};

    fn checkpoint(up_to: u64) -> AuditCheckpoint {
        CheckpointStatement {
            up_to: Position(up_to),
            at: DateTime::from_timestamp_micros(1).unwrap(),
            chains: Vec::new(),
            previous: ChainHash::GENESIS,
        }
        .sign(&AuditKey::from_bytes([1; 32]))
    }

    #[test]
    fn what_was_appended_is_read_in_order_and_a_torn_line_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints.ndjson");
        CheckpointFile::at(&path).append(&checkpoint(1)).unwrap();
        let torn = std::fs::read(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&torn[..20]).unwrap();
        CheckpointFile::at(&path).append(&checkpoint(2)).unwrap();
        let read: Result<Vec<_>, _> = read_checkpoints(&path).unwrap().collect();
        assert_eq!(read.unwrap(), [(1, checkpoint(1)), (3, checkpoint(2))]);
    }

    #[test]
    fn a_line_that_is_something_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints.ndjson");
        std::fs::write(&path, "\n{\"up_to\": \"x\"}\n").unwrap();
        let read: Vec<_> = read_checkpoints(&path).unwrap().collect();
        assert!(matches!(read[0], Err(CheckpointFileError::Line { line: 2, .. })), "{read:?}");
    }
}
