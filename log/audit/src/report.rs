//! What verification found.

use chrono::{DateTime, Utc};
use events::{Position, RestoreStatement};
use serde::{Deserialize, Serialize};

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// An event is not there.
    #[error("the event is missing")]
    Missing,
    /// Its bytes, its place or something before it was changed.
    #[error("the event does not fit its hash")]
    Hash,
    /// Its body is not the one that was chained.
    #[error("the body of the event was changed")]
    Body,
    /// Its body is gone, though nothing says that it was erased or dropped.
    #[error("the body of the event is missing, and the log has no reason for that")]
    BodyMissing,
    /// What queries find it by says something else than the event.
    #[error("a column that queries go by is not what the event says")]
    Column,
    /// A row of a read model is not what the events make of it.
    #[error("what is shown is not what the events say")]
    ReadModel,
    /// It stands in another tenant's chain.
    #[error("the event is filed under another tenant")]
    Tenant,
    /// Its bytes are no event.
    #[error("the event cannot be read")]
    Unreadable,
    /// Positions do not rise.
    #[error("the event stands in the wrong place")]
    Order,
    /// The newest events of a tenant are not there, or are not what the head of the chain says.
    #[error("the newest events of a tenant are missing")]
    Head,
    /// The log begins later than the log itself says that it was trimmed.
    #[error("the events before this one are missing, and the log does not say that they were dropped")]
    Trimmed,
    /// A checkpoint is not what was signed.
    #[error("the signature of a checkpoint is wrong")]
    Signature,
    /// A checkpoint was signed by a key that is not among those that were given.
    #[error("a checkpoint was signed by an unknown key")]
    UnknownKey,
    /// A signed checkpoint states another hash.
    #[error("a signed checkpoint contradicts the log")]
    Contradiction,
    /// A signed checkpoint speaks of events past the end of the log.
    #[error("the newest events are missing: a signed checkpoint speaks of them")]
    Beyond,
    /// An export ends without its last line.
    #[error("the export was cut off")]
    CutOff,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The first bad position. Where a checkpoint says so: the event that it speaks of.
    pub position: Position,
    /// What is wrong there.
    pub fault: Fault,
    /// The same in words, with the checkpoint that says so.
    pub explanation: String,
}

/// How many rows of the read models were made again out of events, and are what is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refolded {
    /// Sandboxes.
    pub sandboxes: u64,
    /// Execs.
    pub execs: u64,
    /// Templates.
    pub templates: u64,
    /// Webhooks.
    pub webhooks: u64,
    /// Rows of what began before the oldest event that is still there: they could not be made again.
    pub begun_before: u64,
}

/// What was seen of checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCounts {
    /// Found in the log or the export.
    pub recorded: u64,
    /// Found in the checkpoint file.
    pub in_file: u64,
    /// Whose signature was checked.
    pub signatures_checked: u64,
    /// Up to which position the newest one that fits speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_up_to: Option<Position>,
    /// When that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_at: Option<DateTime<Utc>>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// The first position that is there.
    pub first: Position,
    /// The newest position that was checked.
    pub last: Position,
    /// How many events were checked.
    pub events: u64,
    /// How many chains.
    pub tenants: u64,
    /// How many bodies were there, and are what was chained.
    pub bodies: u64,
    /// How many are not there (any more): their hashes still are.
    pub bodies_absent: u64,
    /// Chains that begin, after what was dropped, with an event that could not be checked: no checkpoint states what it
    /// follows from.
    pub unanchored: u64,
    /// The checkpoints.
    pub checkpoints: CheckpointCounts,
    /// The read models, where they were made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refolded: Option<Refolded>,
    /// Copies that took the log's place: what came after them is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<RestoreStatement>,
    /// How many checkpoints speak of what was lost with that.
    #[serde(default)]
    pub superseded: u64,
    /// Where another key began to sign without the word of the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys_changed_at: Vec<Position>,
    /// How many of the events come after all that a checkpoint speaks of.
    pub events_after_checkpoint: u64,
    /// What this shows.
    pub proves: Vec<String>,
    /// What it does not show.
    pub does_not_prove: Vec<String>,
}

impl Report {
    /// Whether any signature was checked. Without, a log that is whole may all the same be all rewritten.
    pub const fn is_signed(&self) -> bool {
        self.checkpoints.signatures_checked > 0
    }

    /// What is true of every report, and of this one.
    /// `uncompared`: what stands beside the events, and nothing was compared with.
    pub(super) fn explain(&mut self, uncompared: Vec<String>) {
        self.ok = self.finding.is_none();
        let signed = self.is_signed();
        if self.ok {
            self.proves.push(
                "each event is, byte for byte, the one that its chain was made of: none was changed, moved, left out or put in between"
                    .to_owned(),
            );
            if self.refolded.is_some() {
                self.proves.push(
                    "what lists and queries show of sandboxes, execs, templates and webhooks is what these events make of them"
                        .to_owned(),
                );
            }
            if let (true, Some(up_to)) = (signed, self.checkpoints.newest_up_to) {
                self.proves.push(format!(
                    "what stands up to position {up_to} is what the holder of the signing key stated"
                ));
            }
        }
        if !signed {
            self.does_not_prove.push(
                "no signature was checked: whoever can write the database can have rewritten all of it, hashes included"
                    .to_owned(),
            );
        }
        for RestoreStatement { up_to, lost_to, at } in &self.restored {
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            self.does_not_prove.push(if lost_to > up_to {
                format!(
                    "what happened at positions {} to {lost_to} before {at}: a copy took the log's place then, and it is lost",
                    up_to.next()
                )
            } else {
                format!("what came after position {up_to} before {at}: a copy took the log's place then")
            });
        }
        for position in &self.keys_changed_at {
            self.does_not_prove.push(format!(
                "that whoever signs since position {position} is who signed before: another key began there, without the word of the one before it"
            ));
        }
        match self.refolded {
            None => self.does_not_prove.push(
                "that what lists and queries show is what the events say: the read models were not made again"
                    .to_owned(),
            ),
            Some(refolded) if refolded.begun_before > 0 => self.does_not_prove.push(format!(
                "what is shown of {} things that began before the oldest event that is here",
                refolded.begun_before
            )),
            Some(_) => {}
        }
        self.does_not_prove.extend(uncompared);
        if self.events_after_checkpoint > 0 {
            self.does_not_prove.push(format!(
                "the newest {} events come after the newest checkpoint: whoever can write the database can still rewrite them",
                self.events_after_checkpoint
            ));
        }
        if self.checkpoints.in_file == 0 {
            self.does_not_prove.push(
                "without a checkpoint file that was kept elsewhere, a cut-off tail cannot be told from a log that ended there"
                    .to_owned(),
            );
        }
        if self.unanchored > 0 {
            self.does_not_prove.push(format!(
                "the first events of {} chains after what was dropped: no checkpoint that is here states what they follow from",
                self.unanchored
            ));
        }
        if self.bodies_absent > 0 {
            self.does_not_prove.push(format!(
                "{} bodies are not here: that they existed is proven, what they said is not",
                self.bodies_absent
            ));
        }
        self.does_not_prove.push("whoever holds the signing key can sign anything".to_owned());
        self.does_not_prove.push(
            "that what was never recorded did not happen, and that what was recorded was true".to_owned(),
        );
    }
}
