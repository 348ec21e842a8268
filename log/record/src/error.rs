use events::{Gone, Position};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, busy or full. A retry may help.
    #[error("could not {operation}: the database is not available")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Source,
    },
    /// What is to be stored breaks a rule of the database, whatever state it is in. A retry does not help.
    #[error("could not {operation}: the data breaks a rule of the database")]
    Unfit {
        /// What was tried.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Source,
    },
    /// The database will not do it, which is not the fault of the data. A retry does not help before somebody mends it.
    #[error("could not {operation}: the database refused")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Source,
    },
    /// What is stored is not what was written. A retry does not help.
    #[error("could not {operation}: damaged data")]
    Damaged {
        /// What was tried.
        operation: &'static str,
        /// What is wrong.
        #[source]
        source: Source,
    },
    /// The bytes were recorded and are not there any more. A retry does not help.
    #[error("these bytes are not kept any more ({why}); output goes on at offset {next_offset}")]
    Gone {
        /// Why they are gone.
        why: Gone,
        /// The first offset after them that can be asked for: of bytes that are there, or of those that come next.
        next_offset: u64,
    },
    /// Events after the asked position were dropped. A retry does not help; reading on from the floor does.
    #[error("events up to position {floor} are not kept any more")]
    Trimmed {
        /// The newest position that was dropped.
        floor: Position,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Unfit { .. }
            | Self::Refused { .. }
            | Self::Damaged { .. }
            | Self::Gone { .. }
            | Self::Trimmed { .. } => false,
        }
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log does not stand where the batch says: somebody else appended. The same batch will never fit; read the head
    /// and number the events again.
    #[error("the log is not at the position that the batch follows")]
    Conflict,
    /// The database. It may have committed the batch nevertheless: read the head before trying again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AppendError {
    /// Whether the same batch may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict => false,
            Self::Store(error) => error.is_retryable(),
        }
    }
}
