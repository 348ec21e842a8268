//! What execs find in their environment: their own variables, over the sandbox's, over the image's, over defaults.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use super::users;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Letters beyond ASCII, in every image that has a C library at all.
const DEFAULT_LANG: &str = "C.UTF-8";
/// Set by whoever started the agent, about the agent: not the image's.
const STARTERS: [&[u8]; 4] = [b"PWD", b"OLDPWD", b"SHLVL", b"_"];

/// Names and values in the bytes of the kernel.
type Variables = BTreeMap<Vec<u8>, Vec<u8>>;

/// The environment that comes with the image.
#[derive(Default)]
pub struct ImageEnvironment(Variables);

impl ImageEnvironment {
    /// What the agent itself was started with.
    pub fn own() -> Self {
        let home_of_agent = users::home_of(rustix::process::geteuid().as_raw());
        let mut variables: Variables = std::env::vars_os()
            .map(|(name, value): (OsString, OsString)| (name.into_vec(), value.into_vec()))
            .filter(|(name, _)| !STARTERS.contains(&name.as_slice()))
            .collect();
        // Engines put the home of the agent's user there when the image says nothing.
        if variables.get(&b"HOME"[..]).is_some_and(|home| home == home_of_agent.as_bytes()) {
            variables.remove(&b"HOME"[..]);
        }
        Self(variables)
    }
}

/// Whom and how an exec runs, as far as its environment depends on it.
pub struct Circumstances<'a> {
    /// Their home, from the account file.
    pub home: &'a str,
    /// Whether the exec named its user: then the home that the image sets is not meant.
    pub user_was_named: bool,
    pub terminal: bool,
}

/// All of an exec's environment, and its `PATH`.
pub struct Complete {
    pub variables: Vec<CString>,
    pub path: Vec<u8>,
}

/// Completes `given` (which was checked) with what lies beneath it.
pub fn complete(
    given: &[(String, String)],
    image: &ImageEnvironment,
    circumstances: &Circumstances<'_>,
) -> Complete {
    let mut variables = image.0.clone();
    if circumstances.user_was_named {
        variables.remove(&b"HOME"[..]);
    }
    for (name, value) in given {
        variables.insert(name.clone().into_bytes(), value.clone().into_bytes());
    }
    let term = if circumstances.terminal { "xterm-256color" } else { "dumb" };
    for (name, value) in
        [("PATH", DEFAULT_PATH), ("LANG", DEFAULT_LANG), ("TERM", term), ("HOME", circumstances.home)]
    {
        variables.entry(name.into()).or_insert_with(|| value.into());
    }
    let path = variables.get(&b"PATH"[..]).cloned().unwrap_or_default();
    let variables = variables.into_iter().filter_map(|(mut name, value)| {
        name.push(b'=');
        name.extend(value);
        // Nothing here can hold a NUL byte: what was given was checked, the rest came from the kernel.
        CString::new(name).ok()
    });
    Complete { variables: variables.collect(), path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[(&str, &str)], image: &[(&str, &str)], named: bool, terminal: bool) -> Vec<String> {
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let image = image.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let circumstances = Circumstances { home: "/home/ann", user_was_named: named, terminal };
        let complete = complete(&given, &ImageEnvironment(image), &circumstances);
        complete.variables.into_iter().map(|variable| variable.into_string().unwrap()).collect()
    }

    #[test]
    fn the_nearest_layer_wins_and_defaults_fill_what_is_left() {
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(completed(&[], &[], false, false), ["HOME=/home/ann", "LANG=C.UTF-8", &path, "TERM=dumb"]);
        assert_eq!(
            completed(
                &[("LANG", "de_DE.UTF-8")],
                &[("PATH", "/go/bin"), ("LANG", "C"), ("TZ", "UTC")],
                false,
                true
            ),
            ["HOME=/home/ann", "LANG=de_DE.UTF-8", "PATH=/go/bin", "TERM=xterm-256color", "TZ=UTC"]
        );
    }

    #[test]
    fn the_home_of_the_image_is_its_own_users() {
        let image = [("HOME", "/app")];
        assert!(completed(&[], &image, false, false).contains(&"HOME=/app".to_owned()));
        assert!(completed(&[], &image, true, false).contains(&"HOME=/home/ann".to_owned()));
        assert!(completed(&[("HOME", "/x")], &image, true, false).contains(&"HOME=/x".to_owned()));
    }
}
