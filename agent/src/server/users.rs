use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most of an account file that is read: the sandbox can write it, and may make it as large as it likes.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// The most supplementary groups that Linux lets a process have.
const MOST_GROUPS: usize = 65_536;

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

/// One line of `/etc/passwd`.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl User {
    /// Finds `uid`, `uid:gid`, `name` or `name:group`. The static agent has no name service; it reads the
    /// sandbox's own files.
    pub fn find(specification: &str) -> Option<Self> {
        find(specification, &read("/etc/passwd"), &read("/etc/group"))
    }
}

/// What shows that an account file is the same as before: where it is, how long, and when it was last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([(u64, u64, i64, i64, i64); 2]);

/// A file that was changed more recently may be changed again without showing it: its times are that coarse.
const SETTLED_SECONDS: i64 = 2;

/// That of the account files as they are; nothing where that would not show a change.
pub fn stamp() -> Option<Stamp> {
    Some(Stamp([stamp_of(c"/etc/passwd")?, stamp_of(c"/etc/group")?]))
}

fn stamp_of(path: &std::ffi::CStr) -> Option<(u64, u64, i64, i64, i64)> {
    let stat = rustix::fs::stat(path).ok()?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let settled = now.checked_sub(stat.st_ctime).is_some_and(|age| age > SETTLED_SECONDS);
    let nanoseconds = i64::try_from(stat.st_ctime_nsec).ok()?;
    settled.then_some((stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime, nanoseconds))
}

/// Home of a user, for whom none is given.
pub fn home_of(uid: u32) -> String {
    let home = accounts(&read("/etc/passwd")).find(|account| account.uid == uid).map(|account| account.home);
    home.unwrap_or_else(|| default_home(uid))
}

/// What an account file says. Whatever the sandbox has made of it (a pipe, a link to a device, a huge file), reading
/// it does not wait and takes little.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(Path::new(path));
    if let Ok(file) = opened
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // What could be read counts.
        let _ = file.take(MOST_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn default_home(uid: u32) -> String {
    if uid == 0 { "/root" } else { "/" }.to_owned()
}

/// A user or group number. The greatest means "leave as it is" to the kernel and names nobody.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number != u32::MAX)
}

fn find(specification: &str, passwd: &str, group: &str) -> Option<User> {
    let (user, wanted_group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (specification, None),
    };
    let account = accounts(passwd)
        .find(|account| account.name == user)
        .or_else(|| {
            let uid = number(user)?;
            accounts(passwd).find(|account| account.uid == uid)
        })
        .or_else(|| {
            let uid = number(user)?;
            Some(Account { name: String::new(), uid, gid: 0, home: default_home(uid) })
        })?;
    let gid = match wanted_group {
        None => account.gid,
        Some(wanted) => match groups(group).find(|(name, _, _)| *name == wanted) {
            Some((_, gid, _)) => gid,
            None => number(wanted)?,
        },
    };
    // A group that was asked for is the only one, as `docker exec --user` has it.
    let groups = match wanted_group {
        Some(_) => Vec::new(),
        None => groups(group)
            .filter(|(_, _, members)| {
                members.split(',').any(|member| !member.is_empty() && member == account.name)
            })
            .map(|(_, gid, _)| gid)
            .take(MOST_GROUPS)
            .collect(),
    };
    Some(User { uid: account.uid, gid, groups, home: account.home })
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = match fields.nth(1)? {
            home if home.starts_with('/') => home.to_owned(),
            _ => default_home(uid),
        };
        Some(Account { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> + '_ {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some((name, gid, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1001:Ann,,,:/home/ann:/bin/sh\n\
                          homeless:x:1002:1002:::/bin/sh\nevil:x:4294967295:0::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\nwheel:x:10:bob,ann\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> Option<User> {
        Some(User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(find("ann", PASSWD, GROUP), user(1000, 1001, &[10], "/home/ann"));
        assert_eq!(find("1000", PASSWD, GROUP), user(1000, 1001, &[10], "/home/ann"));
        assert_eq!(find("1000:7", PASSWD, GROUP), user(1000, 7, &[], "/home/ann"));
        assert_eq!(find("ann:wheel", PASSWD, GROUP), user(1000, 10, &[], "/home/ann"));
        assert_eq!(find("4711", PASSWD, GROUP), user(4711, 0, &[], "/"));
        assert_eq!(find("4711:4712", "", ""), user(4711, 4712, &[], "/"));
        assert_eq!(find("homeless", PASSWD, GROUP), user(1002, 1002, &[], "/"));
        assert_eq!(find("0", "", ""), user(0, 0, &[], "/root"));
        assert_eq!(find("nobody", PASSWD, GROUP), None);
        assert_eq!(find("ann:nogroup", PASSWD, GROUP), None);
        assert_eq!(find("", PASSWD, GROUP), None);
    }

    #[test]
    fn what_the_kernel_would_take_for_no_change_names_nobody() {
        for specification in
            ["4294967295", "4294967295:0", "0:4294967295", "evil", "+0", "-1", "0x0", "1e3", " 0"]
        {
            assert_eq!(find(specification, PASSWD, GROUP), None, "{specification}");
        }
    }

    #[test]
    fn files_that_were_just_changed_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        assert_eq!(stamp_of(&path), None, "it may be changed again within the same tick");
        assert_eq!(stamp_of(c"/no/such/file"), None);
    }

    #[test]
    fn an_account_file_that_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        assert_eq!(read(pipe.to_str().unwrap()), "");
        assert_eq!(read("/dev/zero"), "");
        assert_eq!(read("/no/such/file"), "");
    }
}
