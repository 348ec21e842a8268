//! What somebody may have meant who wrote a name that there is not.

/// The known name that looks most like `given`, if one looks enough like it. Case and separators make no difference;
/// a name of which the other is the beginning or the end counts as near.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is compared costs time with the product of the lengths, and no name of ours is longer.
    const MAX_CHARS: usize = 64;
    let given = plain(given);
    let length = given.chars().count();
    if length == 0 || length > MAX_CHARS {
        return None;
    }
    let allowed = (length / 3).max(1);
    known
        .into_iter()
        .filter_map(|name| {
            let other = plain(name);
            let distance = strsim::damerau_levenshtein(&given, &other);
            let shorter = length.min(other.chars().count());
            let within = |long: &str, short: &str| long.starts_with(short) || long.ends_with(short);
            let extends = shorter >= 3 && (within(&given, &other) || within(&other, &given));
            // One letter for another in a name of one or two letters is another name.
            let near = distance == 0 || (distance <= allowed && shorter >= 3);
            (near || extends).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '-' | '_' | '.' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant_and_nothing_else_does() {
        let known = ["command", "args", "env", "timeout", "workdir", "memory_mb", "stdin", "tty"];
        for (given, meant) in [
            ("timout", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("time-out", Some("timeout")),
            ("memoryMb", Some("memory_mb")),
            ("memory", Some("memory_mb")),
            ("environment", Some("env")),
            ("comand", Some("command")),
            ("arg", Some("args")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
        assert_eq!(nearest(&"timeout".repeat(100_000), known), None);
    }
}
