//! What became of questions.

/// Questions of boxes, by verdict.
const QUERIES: &str = "stacyvm_name_queries_total";

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answered with what a server said, also that there is no such name.
    Answered,
    /// A name or a kind of question that is not passed on.
    Refused,
    /// The answer leads inside: the box hears that there is no such name.
    Inside,
    /// No server said anything that could be used.
    Failed,
    /// It cannot be read, or is no question.
    Malformed,
    /// More than a box may ask.
    OverRate,
}

impl Verdict {
    const ALL: [Self; 6] =
        [Self::Answered, Self::Refused, Self::Inside, Self::Failed, Self::Malformed, Self::OverRate];

    /// Shows all of them from the beginning: an alert on a metric that is not there never fires.
    pub(super) fn describe() {
        metrics::describe_counter!(
            QUERIES,
            "Questions for names that sandboxes asked, by what became of them"
        );
        for verdict in Self::ALL {
            metrics::counter!(QUERIES, "verdict" => verdict.as_str()).increment(0);
        }
    }

    pub(super) fn count(self) {
        metrics::counter!(QUERIES, "verdict" => self.as_str()).increment(1);
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Inside => "inside",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::OverRate => "over_rate",
        }
    }
}
