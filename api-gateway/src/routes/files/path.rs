//! Paths and modes, as clients write them.

use transport::ModeChange;

use crate::error::ApiError;

/// Linux takes no longer ones, the closing NUL included.
pub(crate) const PATH_MAX: usize = 4096;
/// `rw-r--r--`
pub const DEFAULT_MODE: u32 = 0o644;

/// A path that could name something. What it leads to is the agent's business; that it cannot lead out is too, and is
/// refused here already where it is plain to see.
pub fn path(text: Option<String>, name: &'static str) -> Result<String, ApiError> {
    let text = pattern(text, name)?;
    if climbs_out(&text) {
        return Err(ApiError::bad_request(format!("{name} leads out of the sandbox")));
    }
    Ok(text)
}

/// A pattern, which is a path with wildcards.
pub fn pattern(text: Option<String>, name: &'static str) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Err(ApiError::bad_request(format!("{name} is missing")));
    }
    if text.len() >= PATH_MAX || text.contains('\0') {
        return Err(ApiError::bad_request(format!(
            "{name} must be shorter than {PATH_MAX} bytes and must not contain NUL characters"
        )));
    }
    Ok(text)
}

/// Whether it has more `..` than folders to leave. Relative paths begin in /workspace.
fn climbs_out(path: &str) -> bool {
    let mut depth = if path.starts_with('/') { 0_usize } else { 1 };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// Permission bits in octal: `644`, `0644`, `0o755`.
pub fn mode(text: &str) -> Result<u32, ApiError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal =
        !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => Err(ApiError::bad_request("mode must be octal permission bits such as 644 or 0755")),
    }
}

/// The mode that a written file gets, and whether one that is there keeps its own: it does unless a mode is named.
pub fn mode_or_kept(text: Option<&str>) -> Result<(u32, bool), ApiError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => mode(text).map(|mode| (mode, false)),
        None => Ok((DEFAULT_MODE, true)),
    }
}

/// What shall become of permission bits.
#[derive(Debug, PartialEq, Eq)]
pub enum ModeWish {
    /// These.
    Set(u32),
    /// Others than before.
    Change(ModeChange),
}

/// Permission bits in octal, or a change of them in the symbolic form of `chmod`.
pub fn mode_change(text: &str) -> Result<ModeWish, ApiError> {
    match (mode(text), text.parse::<ModeChange>()) {
        (Ok(mode), _) => Ok(ModeWish::Set(mode)),
        (Err(_), Ok(change)) => Ok(ModeWish::Change(change)),
        (Err(_), Err(_)) => Err(ApiError::bad_request(
            "mode must be octal permission bits such as 0755, or changes of them such as u+x or a-w,go=",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<String, ApiError> {
        path(Some(text.to_owned()), "path")
    }

    #[test]
    fn names_are_just_names() {
        for good in [
            "/tmp/a b",
            "it's",
            "new\nline",
            "*",
            "..hidden",
            "a/../b",
            "/a/b/../../c",
            "../etc",
            "%2e%2e",
            ".",
        ] {
            assert_eq!(read(good).unwrap(), good);
        }
    }

    #[test]
    fn escapes_nul_and_long_paths_are_refused() {
        let long = format!("/tmp/{}", "x".repeat(4091));
        let wide = format!("/tmp/{}", "é".repeat(3000));
        for bad in
            ["", "/tmp/a\0b", "\0", &long, &wide, "../../etc/passwd", "/..", "/../../etc", "a/../../../b"]
        {
            assert!(read(bad).is_err(), "{bad:.40}");
        }
        assert!(path(None, "path").is_err());
    }

    #[test]
    fn modes_are_octal() {
        for (text, bits) in
            [("644", 0o644), ("0755", 0o755), ("0o600", 0o600), ("7777", 0o7777), ("0", 0), ("01777", 0o1777)]
        {
            assert_eq!(mode(text).unwrap(), bits, "{text}");
        }
        for bad in ["", "rwx", "99", "7777777", "-644", "+644", "u+x", "10000", "0o", " 644"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
        assert_eq!(mode_or_kept(Some("")).unwrap(), (DEFAULT_MODE, true));
        assert_eq!(mode_or_kept(Some("755")).unwrap(), (0o755, false));
        assert_eq!(mode_change("0755").unwrap(), ModeWish::Set(0o755));
        assert_eq!(mode_change("a-w,go=").unwrap(), ModeWish::Change("a-w,go=".parse().unwrap()));
        for bad in ["", "rwx", "99", "u+x,", "u+y"] {
            assert!(mode_change(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_taken_stays_below_the_root(parts in prop::collection::vec("\\.{1,2}|a|", 0..12), absolute: bool) {
            let text = format!("{}{}", if absolute { "/" } else { "x" }, parts.join("/"));
            if read(&text).is_ok() {
                let mut depth = if absolute { 0_i32 } else { 1 };
                for part in text.split('/') {
                    depth += match part { "" | "." => 0, ".." => -1, _ => 1 };
                    prop_assert!(depth >= 0);
                }
            }
        }
    }
}
