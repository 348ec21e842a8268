/// How far the transport has been copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamMark {
    /// Which transport stream.
    pub incarnation: String,
    /// Its newest message whose events are all in the log (or were dropped for good).
    pub sequence: u64,
}
