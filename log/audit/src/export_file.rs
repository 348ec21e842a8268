//! Reads an export back, to verify it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use events::{ChainHash, ChainPoint, Position, TenantId};
use serde::Deserialize;

use super::claim::{Claim, ClaimSource};
use super::export::{EXPORT_FORMAT, EndLine, ExportLine, StartLine};
use super::source::{ChainItem, ChainSource};
use super::verify::VerifyError;

/// The longest line, in bytes: the largest header and the largest body, as text.
const MAX_LINE: u64 = 32 << 20;
/// Every so many lines their place in the file is kept, so that a link is found again.
const SPARSE: u64 = 256;

/// An export, as a source of verification.
#[derive(Debug)]
pub struct ExportFile {
    path: PathBuf,
    lines: Lines,
    /// For links that are looked up.
    random: File,
    start: StartLine,
    end: Option<EndLine>,
    places: Vec<(Position, u64)>,
    events: u64,
}

/// The least of a line that a link needs.
#[derive(Deserialize)]
struct Link {
    position: Position,
    hash: ChainHash,
}

impl ExportFile {
    /// Opens it and reads what it is.
    pub fn open(path: &Path) -> Result<Self, VerifyError> {
        let failed = |source| VerifyError::File { path: path.to_owned(), source };
        let format = |why: &str| VerifyError::Format { path: path.to_owned(), why: why.to_owned() };
        let mut lines = Lines::new(File::open(path).map_err(failed)?);
        let first = lines.next().map_err(failed)?.unwrap_or_default();
        let start = match serde_json::from_slice(&first) {
            Ok(ExportLine::Start(start)) if start.format == EXPORT_FORMAT => start,
            Ok(_) | Err(_) => return Err(format("not an export of format ndjson")),
        };
        if start.filtered {
            return Err(format(
                "a filter left events out of this export: its chains have gaps, so they cannot be checked",
            ));
        }
        let random = File::open(path).map_err(failed)?;
        let path = path.to_owned();
        Ok(Self { path, lines, random, start, end: None, places: Vec::new(), events: 0 })
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> VerifyError + use<> {
        let path = self.path.clone();
        move |source| VerifyError::File { path: path.clone(), source }
    }

    /// The keys that the export itself names; known once it was read to its end.
    pub fn named_keys(&self) -> &[String] {
        self.end.as_ref().map_or(&[], |end| &end.public_keys)
    }

    fn item(&mut self, place: u64, line: &[u8]) -> Option<ChainItem> {
        let number = self.lines.number;
        let damaged = |why: &str| Some(ChainItem::Damaged(format!("line {number} of the export: {why}")));
        if self.end.is_some() {
            return damaged("it stands after the last one");
        }
        match serde_json::from_slice(line) {
            Ok(ExportLine::Event(event)) => {
                if self.events.is_multiple_of(SPARSE) {
                    self.places.push((event.position, place));
                }
                self.events += 1;
                match event.read() {
                    Ok(frame) => Some(ChainItem::Event(frame)),
                    Err(why) => damaged(why),
                }
            }
            Ok(ExportLine::Checkpoint { checkpoint }) => {
                Some(ChainItem::Claim(Claim::of_proof(checkpoint, ClaimSource::Export(number))))
            }
            Ok(ExportLine::End { end }) => {
                let counted = end.events == self.events;
                self.end = Some(end);
                if counted { None } else { damaged("it counts other events than there are") }
            }
            Ok(ExportLine::Start(_)) => damaged("it is a first line"),
            Err(_) => damaged("it cannot be read"),
        }
    }
}

#[async_trait]
impl ChainSource for ExportFile {
    fn tenant(&self) -> Option<&TenantId> {
        self.start.tenant.as_ref()
    }

    fn has_bodies(&self) -> bool {
        self.start.bodies
    }

    async fn next(&mut self) -> Result<Vec<ChainItem>, VerifyError> {
        let failed = self.failed();
        let mut items = Vec::new();
        while items.len() < 64 {
            let place = self.lines.place;
            let Some(line) = self.lines.next().map_err(&failed)? else {
                if self.end.is_none() && items.is_empty() {
                    // Said once: the next call finds an end.
                    self.end = Some(EndLine { events: 0, chains: Vec::new(), public_keys: Vec::new() });
                    return Ok(vec![ChainItem::CutOff]);
                }
                break;
            };
            items.extend(self.item(place, &line));
        }
        Ok(items)
    }

    async fn link_at(&mut self, position: Position) -> Result<Option<ChainHash>, VerifyError> {
        let failed = self.failed();
        let before = self.places.partition_point(|(at, _)| *at <= position);
        let Some((_, place)) = before.checked_sub(1).and_then(|index| self.places.get(index)) else {
            return Ok(None);
        };
        self.random.seek(SeekFrom::Start(*place)).map_err(&failed)?;
        let mut lines = Lines::new(&self.random);
        while let Some(line) = lines.next().map_err(&failed)? {
            match serde_json::from_slice::<Link>(&line) {
                Ok(link) if link.position == position => return Ok(Some(link.hash)),
                Ok(link) if link.position < position => {}
                Ok(_) | Err(_) => break,
            }
        }
        Ok(None)
    }

    async fn heads(&mut self) -> Result<Option<Vec<ChainPoint>>, VerifyError> {
        Ok(self.end.as_ref().map(|end| end.chains.clone()))
    }

    fn end(&self) -> Position {
        self.start.head
    }

    fn floor(&self) -> Position {
        self.start.floor
    }
}

/// Lines of bounded length.
#[derive(Debug)]
struct Lines<R = File> {
    reader: BufReader<R>,
    number: u64,
    /// Where the next line begins.
    place: u64,
}

impl<R: Read> Lines<R> {
    fn new(file: R) -> Self {
        Self { reader: BufReader::with_capacity(1 << 18, file), number: 0, place: 0 }
    }

    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = Read::by_ref(&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        self.place += read as u64;
        self.number += 1;
        Ok((read > 0).then_some(line))
    }
}
