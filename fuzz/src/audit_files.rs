//! Files that somebody hands to `audit verify`: exports of the log, checkpoints, keys.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use audit::{AuditKey, AuditPublicKey, ExportFile, ProofStep, PublicKeys, read_statements, verify};
use futures::FutureExt as _;

/// The first byte says what the rest is. In a file of both, a line of `---` parts the export from the checkpoints.
pub fn audit_files(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 4 {
        0 => check(bytes, b""),
        1 => {
            let parted = bytes.windows(5).position(|part| part == b"\n---\n");
            let (export, file) = parted.map_or((bytes, &b""[..]), |at| (&bytes[..=at], &bytes[at + 5..]));
            check(export, file);
        }
        2 => check(b"", bytes),
        _ => {
            let Ok(text) = str::from_utf8(bytes) else { return };
            let _ = text.parse::<AuditPublicKey>();
            if let Ok(step) = text.parse::<ProofStep>() {
                assert_eq!(step.to_string().parse(), Ok(step));
            }
        }
    }
}

fn check(export: &[u8], checkpoints: &[u8]) {
    let keys = PublicKeys::new(vec![AuditKey::from_bytes([1; 32]).public()]);
    let (Some(export), Some(checkpoints)) =
        (File::with("export", export), File::with("checkpoints", checkpoints))
    else {
        return;
    };
    let Ok(statements) = read_statements(&checkpoints.path) else { return };
    let Ok(mut source) = ExportFile::open(&export.path) else {
        assert!(statements.count() <= 65_536);
        return;
    };
    // Files make nobody wait.
    let Some(Ok(report)) = verify(&mut source, &keys, statements).now_or_never() else { return };
    assert!(report.ok == report.finding.is_none(), "a finding and a good word");
}

/// A file that is only in memory.
struct File {
    path: PathBuf,
    _file: std::fs::File,
}

impl File {
    fn with(name: &str, bytes: &[u8]) -> Option<Self> {
        use std::io::Write as _;
        let mut file =
            std::fs::File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).ok()?);
        file.write_all(bytes).ok()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Some(Self { path, _file: file })
    }
}
