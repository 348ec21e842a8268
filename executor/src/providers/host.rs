//! What sandboxes share because the host counts it for all of them: what a provider cannot limit, an operator is told.

use std::path::Path;

/// How many pseudo terminals one process of a sandbox can open: a descriptor each, and as many as it may have.
const PTYS_OF_A_PROCESS: u64 = 16_384;
/// Fewer inotify instances than this are used up by a handful of ordinary programs.
const FEW_INOTIFY_INSTANCES: u64 = 1_024;

/// Counts of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Host {
    /// Pseudo terminals of the whole host.
    ptys: Option<u64>,
    /// inotify instances of one user.
    inotify_instances: Option<u64>,
    /// inotify watches of one user.
    inotify_watches: Option<u64>,
}

impl Host {
    /// As the kernel says them now.
    pub(super) fn look() -> Self {
        let number = |name: &str| {
            let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
            text.trim().parse().ok()
        };
        Self {
            ptys: number("kernel/pty/max"),
            inotify_instances: number("fs/inotify/max_user_instances"),
            inotify_watches: number("fs/inotify/max_user_watches"),
        }
    }

    /// What holds for all sandboxes of this machine.
    pub(super) fn ptys_shared(&self) -> Option<String> {
        let most = self.ptys.filter(|most| *most < PTYS_OF_A_PROCESS)?;
        Some(format!(
            "pseudo terminals are counted for the whole host, and one sandbox can open all {most} of them: raise kernel.pty.max"
        ))
    }

    /// What containers share with each other, and with the host, given what the engine says of its security.
    pub(super) fn users_shared(&self, security_options: &[String]) -> Option<String> {
        let apart = ["name=userns", "name=rootless"];
        let is_apart = security_options.iter().filter_map(|option| option.split(',').next());
        let is_apart = is_apart.into_iter().any(|option| apart.contains(&option));
        let said = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let counts = format!(
            "fs.inotify.max_user_instances = {}, fs.inotify.max_user_watches = {}",
            said(self.inotify_instances),
            said(self.inotify_watches)
        );
        if !is_apart {
            return Some(format!(
                "userns-remap is not on in the Docker engine: root in a sandbox is root on the host, and they share what is \
                 counted for a user ({counts})"
            ));
        }
        self.inotify_instances.filter(|most| *most < FEW_INOTIFY_INSTANCES)?;
        Some(format!("all sandboxes of the Docker engine share what is counted for a user ({counts})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { ptys: Some(4096), inotify_instances: Some(128), inotify_watches: Some(65_536) };

    #[test]
    fn what_the_host_does_not_limit_is_said_with_its_numbers() {
        assert!(HOST.ptys_shared().unwrap().contains("all 4096 of them"));
        let ample = Host { ptys: Some(1 << 20), inotify_instances: Some(8192), ..HOST };
        assert_eq!(ample.ptys_shared(), None);
        assert_eq!(Host::default().ptys_shared(), None);

        let options = |options: &[&str]| options.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let plain = options(&["name=apparmor", "name=seccomp,profile=default"]);
        for host in [HOST, ample, Host::default()] {
            assert!(host.users_shared(&plain).unwrap().starts_with("userns-remap is not on"));
        }
        for name in ["name=userns", "name=rootless", "name=userns,x=y"] {
            let apart = options(&["name=seccomp,profile=default", name]);
            let said = HOST.users_shared(&apart).unwrap();
            assert!(said.contains("max_user_instances = 128") && !said.contains("root"), "{said}");
            assert_eq!(ample.users_shared(&apart), None);
        }
        assert!(HOST.users_shared(&options(&["name=usernsx"])).unwrap().contains("userns-remap"));
    }
}
