use std::fs;

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
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let group = fs::read("/etc/group").unwrap_or_default();
        find(specification, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group))
    }
}

/// Home of a user, for whom none is given.
pub fn home_of(uid: u32) -> String {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let home =
        accounts(&String::from_utf8_lossy(&passwd)).find(|account| account.uid == uid).map(|it| it.home);
    home.unwrap_or_else(|| default_home(uid))
}

fn default_home(uid: u32) -> String {
    if uid == 0 { "/root" } else { "/" }.to_owned()
}

fn find(specification: &str, passwd: &str, group: &str) -> Option<User> {
    let (user, wanted_group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (specification, None),
    };
    let by_number = user.parse::<u32>().ok();
    let account = accounts(passwd)
        .find(|account| by_number.map_or(account.name == user, |uid| account.uid == uid))
        .or_else(|| {
            let uid = by_number?;
            Some(Account { name: String::new(), uid, gid: 0, home: default_home(uid) })
        })?;
    let gid = match wanted_group {
        None => account.gid,
        Some(wanted) => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => groups(group).find(|(name, _, _)| *name == wanted)?.1,
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
            .collect(),
    };
    Some(User { uid: account.uid, gid, groups, home: account.home })
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?.to_owned();
        Some(Account { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> + '_ {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1001:Ann,,,:/home/ann:/bin/sh\n";
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
        assert_eq!(find("nobody", PASSWD, GROUP), None);
        assert_eq!(find("ann:nogroup", PASSWD, GROUP), None);
        assert_eq!(find("", PASSWD, GROUP), None);
    }
}
