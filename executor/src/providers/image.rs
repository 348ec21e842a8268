//! What an image says about itself, beside its files.

use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

/// The most that is read of a configuration file, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;
/// The longest path that Linux takes, in bytes.
const MOST_PATH: usize = 4096;
/// The longest name of a user, in bytes, with its group.
const MOST_USER: usize = 256;

/// What an image's author meant for its processes. Its entrypoint and command are left out: they are not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ImageConfig {
    /// `NAME=VALUE`.
    env: Option<Vec<String>>,
    /// Where they start.
    working_dir: Option<String>,
    /// Whom they run as: `uid`, `uid:gid`, `name` or `name:group`.
    user: Option<String>,
}

impl ImageConfig {
    pub(super) fn new(env: Option<Vec<String>>, working_dir: Option<String>, user: Option<String>) -> Self {
        Self { env, working_dir, user }
    }

    /// Reads the file that stands beside a root file system; one that is not there says nothing.
    pub(super) fn beside(rootfs: &Path) -> io::Result<Self> {
        let mut name = rootfs.as_os_str().to_owned();
        name.push(".json");
        let file = match std::fs::File::open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    /// Its variables; what is none is passed over.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.env.iter().flatten().filter_map(|variable| variable.split_once('='));
        pairs.filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
    }

    /// Where its processes start, if that is said and is more than the root.
    pub(super) fn directory(&self) -> Option<&str> {
        let directory = self.working_dir.as_deref()?;
        let good = directory.starts_with('/') && directory.len() < MOST_PATH && !directory.contains('\0');
        (good && !directory.trim_matches('/').is_empty()).then_some(directory)
    }

    /// Whom its processes run as, if that is said and is somebody else than root.
    pub(super) fn user(&self) -> Option<&str> {
        let user = self.user.as_deref()?;
        let root = ["", "0", "root", "0:0", "root:root", "0:root", "root:0"];
        (!root.contains(&user) && user.len() <= MOST_USER && !user.contains('\0')).then_some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ImageConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_an_image_says_is_read_and_the_rest_passed_over() {
        let said = config(
            r#"{"Env":["PATH=/go/bin:/bin","EMPTY=","A=b=c","=x","none"],"WorkingDir":"/go","User":"app:grp",
                "Cmd":["sh"],"Entrypoint":null,"Labels":{"a":"b"}}"#,
        );
        let variables: Vec<_> = said.variables().collect();
        assert_eq!(variables, [("PATH", "/go/bin:/bin"), ("EMPTY", ""), ("A", "b=c")]);
        assert_eq!((said.directory(), said.user()), (Some("/go"), Some("app:grp")));
    }

    #[test]
    fn an_image_that_says_nothing_or_the_usual_has_no_wishes() {
        for json in [
            "{}",
            r#"{"Env":null,"WorkingDir":"","User":""}"#,
            r#"{"WorkingDir":"/","User":"root"}"#,
            r#"{"WorkingDir":"relative","User":"0:0"}"#,
        ] {
            let said = config(json);
            assert_eq!((said.variables().count(), said.directory(), said.user()), (0, None, None), "{json}");
        }
    }

    #[test]
    fn a_file_beside_the_root_file_system_is_optional_and_must_make_sense() {
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("base.tar");
        assert_eq!(ImageConfig::beside(&rootfs).unwrap(), ImageConfig::default());
        std::fs::write(directory.path().join("base.tar.json"), r#"{"User":"app"}"#).unwrap();
        assert_eq!(ImageConfig::beside(&rootfs).unwrap().user(), Some("app"));
        std::fs::write(directory.path().join("base.tar.json"), "not JSON").unwrap();
        assert!(ImageConfig::beside(&rootfs).is_err());
    }
}
