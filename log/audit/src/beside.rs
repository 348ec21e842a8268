//! What stands beside the events, and no hash covers: where the log ends, where chains end that have grown since, up to where
//! things were dropped. What of it nothing can be compared with is said.

use events::{ChainPoint, LogTrimmed, Position, RetentionClass, TenantId};
use record::{Floor, Record, StoreError};

use super::report::{Fault, Finding};

/// What the log itself says was dropped: for each class, the statement that goes the furthest.
#[derive(Debug, Default)]
pub(super) struct Trims {
    output: Option<LogTrimmed>,
    lifecycle: Option<LogTrimmed>,
}

impl Trims {
    pub(super) fn note(&mut self, trimmed: &LogTrimmed) {
        let known = match trimmed.class {
            RetentionClass::Output => &mut self.output,
            RetentionClass::Lifecycle => &mut self.lifecycle,
        };
        if known.as_ref().is_none_or(|known| known.up_to < trimmed.up_to) {
            *known = Some(trimmed.clone());
        }
    }

    const fn of(&self, class: RetentionClass) -> Option<&LogTrimmed> {
        match class {
            RetentionClass::Output => self.output.as_ref(),
            RetentionClass::Lifecycle => self.lifecycle.as_ref(),
        }
    }

    /// Up to where whole events were dropped, and up to where bodies were.
    pub(super) fn events(&self) -> Position {
        self.lifecycle.as_ref().map_or(Position::ZERO, |trimmed| trimmed.up_to)
    }

    pub(super) fn bodies(&self) -> Position {
        self.output.as_ref().map_or(Position::ZERO, |trimmed| trimmed.up_to).max(self.events())
    }
}

/// What verification has read of a whole log by now.
pub(super) struct Read<'a> {
    /// Up to where.
    pub end: Position,
    /// What the log says was dropped.
    pub trims: &'a Trims,
    /// The floors that there were before the end was known.
    pub floors: &'a [Floor],
    /// Heads of chains that lie past the end.
    pub grown: &'a [ChainPoint],
}

/// Compares it; the first thing that is wrong.
pub(super) async fn compare(store: &Record, read: &Read<'_>) -> Result<Option<Finding>, StoreError> {
    let found = |position: Position, fault: Fault, explanation: String| {
        Ok(Some(Finding { position, fault, explanation }))
    };
    let after = store.evidence.read_chain(None, read.end, Position(i64::MAX as u64), 1).await?;
    if let Some(event) = after.first()
        && store.head().await?.position < event.position
    {
        return found(
            event.position,
            Fault::Head,
            format!("the head says that the log ends at {}, and there is an event after it", read.end),
        );
    }
    for head in read.grown {
        let before = Position(head.position.0.saturating_sub(1));
        let events = store.evidence.read_chain(None, before, head.position, 1).await?;
        if !events.first().is_some_and(|event| event.tenant == head.tenant && event.hash == head.hash) {
            let explanation = format!("the head of the chain of {} is no event of it", head.tenant);
            return found(head.position, Fault::Head, explanation);
        }
    }
    let now = store.floors().await?;
    let up_to = |floors: &[Floor], class| {
        floors.iter().find(|floor| floor.class == class).map_or(Position::ZERO, |floor| floor.up_to)
    };
    for class in [RetentionClass::Output, RetentionClass::Lifecycle] {
        let table = match class {
            RetentionClass::Output => "output",
            RetentionClass::Lifecycle => "lifecycle",
        };
        // The statement about output may have been dropped itself, with all that it spoke of.
        let most = if class == RetentionClass::Output { read.trims.bodies() } else { read.trims.events() };
        let stated = read.trims.of(class);
        let least = stated.map_or(Position::ZERO, |stated| stated.up_to);
        let (before, floor) = (up_to(read.floors, class), up_to(&now, class));
        if before > most || floor < least {
            let said = if before > most { most } else { least };
            return found(
                said.next(),
                Fault::Trimmed,
                format!(
                    "the floor of {table} in `retention` is {}, and the log says that things were dropped up to {said}",
                    if before > most { before } else { floor }
                ),
            );
        }
        let other = |floor: &&Floor| {
            floor.class == class
                && stated.is_some_and(|stated| {
                    floor.up_to == stated.up_to && floor.checkpoint != stated.checkpoint
                })
        };
        if let Some(floor) = now.iter().find(other) {
            let explanation =
                format!("the floor of {table} in `retention` names another checkpoint than the log");
            return found(floor.up_to, Fault::Trimmed, explanation);
        }
    }
    Ok(None)
}

/// What of a store nothing can be compared with.
pub(super) async fn uncompared(
    store: &Record,
    tenant: Option<&TenantId>,
    sealed: bool,
    dropped_chains: u64,
) -> Result<Vec<String>, StoreError> {
    let mut lines = Vec::new();
    if tenant.is_some() {
        lines.push(
            "what stands beside the events of the whole log (`head`, `retention`, chains of others in `chain_heads`): the events of one tenant do not tell"
                .to_owned(),
        );
    } else {
        lines.push(
            "how far the transport was copied, and which stream that was: no event says what `head` says of that"
                .to_owned(),
        );
    }
    if dropped_chains > 0 {
        lines.push(format!(
            "the heads of {dropped_chains} chains in `chain_heads`: all of their events were dropped, if there were any"
        ));
    }
    if sealed || store.keys.any().await? {
        lines.push(
            "that the keys in `data_keys` open what is sealed, and that those which are gone were destroyed by an erasure: keys are not compared"
                .to_owned(),
        );
    }
    Ok(lines)
}
