/// The first release without CVE-2026-41567, CVE-2026-41568 and CVE-2026-42306.
const FLOOR: [u32; 3] = [29, 5, 1];

/// What an operator should know about an engine of this version.
pub(super) fn warnings(version: &str) -> Vec<String> {
    if numbers(version) >= FLOOR {
        return Vec::new();
    }
    let [major, minor, patch] = FLOOR;
    vec![format!(
        "Docker {version} has known vulnerabilities (CVE-2026-41567, CVE-2026-41568, CVE-2026-42306): use \
         {major}.{minor}.{patch} or newer"
    )]
}

/// Whatever is not a number counts as 0.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version
        .split('.')
        .map(|part| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()));
    [(); 3].map(|()| parts.next().flatten().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_engines_are_warned_about() {
        for (version, warned) in
            [("20.10.24+dfsg1", true), ("29.5.0", true), ("29.5.1", false), ("30.0", false), ("", true)]
        {
            assert_eq!(!warnings(version).is_empty(), warned, "{version}");
        }
    }
}
