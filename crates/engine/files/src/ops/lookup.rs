//! Users and groups of a tree: `/etc/passwd` and `/etc/group`, never those of this machine.

use std::collections::BTreeSet;
use std::io;

use ashlar_core::graph::{Owner, OwnerPart};

use crate::context::read_regular;
use crate::path::shown;
use crate::root::{Root, resolve_in};

/// The largest file with users or groups that is read.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most supplementary groups of a process (Linux, `NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, sorted: `gid`, and when no group was named those that list the user.
    pub groups: Vec<u32>,
    /// The user's home directory, if `/etc/passwd` has the user.
    pub home: Option<String>,
}

/// A user or group cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The name is in no line of `/etc/passwd`.
    #[error(
        "the user '{0}' is not in /etc/passwd of the tree; add it there first, or use its number"
    )]
    UnknownUser(String),
    /// The name is in no line of `/etc/group`.
    #[error(
        "the group '{0}' is not in /etc/group of the tree; add it there first, or use its number"
    )]
    UnknownGroup(String),
    /// A file cannot be read.
    #[error("cannot read '/{path}' of the tree")]
    Io {
        /// Which one.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Resolves a user as `USER` and `RUN` write it: `name|uid[:group|gid]`; empty means root.
///
/// # Errors
/// When a name is unknown, or the tree's files cannot be read.
pub fn resolve_user(root: &Root, text: &str) -> Result<Ids, LookupError> {
    Accounts::load(|_| root)?.resolve(text)
}

/// Resolves a user by the text of a tree's `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// When a name is unknown.
pub fn resolve_user_by(passwd: &[u8], group: &[u8], text: &str) -> Result<Ids, LookupError> {
    let (passwd, group) = (String::from_utf8_lossy(passwd), String::from_utf8_lossy(group));
    Accounts::parse(&passwd, &group).resolve(text)
}

/// The users and groups of one tree.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads both files; a missing one has no lines. `pick` says by which root to look at a path.
    pub(crate) fn load<'a>(pick: impl Fn(&[u8]) -> &'a Root) -> Result<Self, LookupError> {
        let passwd = read(&pick, b"etc/passwd")?;
        let group = read(&pick, b"etc/group")?;
        Ok(Self::parse(&passwd, &group))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(User::parse).collect(),
            groups: group.lines().filter_map(Group::parse).collect(),
        }
    }

    /// As the container runtimes resolve it: a name wins over a number.
    fn resolve(&self, text: &str) -> Result<Ids, LookupError> {
        let (user, group) = text.split_once(':').map_or((text, ""), |(u, g)| (u, g));
        let number = number(user);
        let found = self.users.iter().find(|u| match user {
            "" => u.uid == 0,
            _ => u.name == user || number == Some(u.uid),
        });
        let mut ids = match (found, number) {
            (Some(u), _) => {
                Ids { uid: u.uid, gid: u.gid, groups: Vec::new(), home: Some(u.home.clone()) }
            }
            (None, Some(uid)) => Ids { uid, ..Ids::default() },
            (None, None) if user.is_empty() => Ids::default(),
            (None, None) => return Err(LookupError::UnknownUser(shown(user.as_bytes()))),
        };
        match (group, found) {
            ("", Some(user)) => ids.groups = self.groups_of(&user.name),
            ("", None) => {}
            (group, _) => ids.gid = self.gid(group)?,
        }
        // As runtimes do it: a process without its own group here could leave it, and with that
        // what is forbidden to the group.
        if let Err(at) = ids.groups.binary_search(&ids.gid) {
            ids.groups.insert(at, ids.gid);
        }
        Ok(ids)
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let mine = self.groups.iter().filter(|g| g.members.iter().any(|m| m == user));
        let mut gids: Vec<u32> = mine.map(|g| g.gid).take(GROUPS_MAX).collect();
        gids.sort_unstable();
        gids.dedup();
        gids
    }

    fn gid(&self, text: &str) -> Result<u32, LookupError> {
        let named = self.groups.iter().find(|g| g.name == text).map(|g| g.gid);
        named
            .or_else(|| number(text))
            .ok_or_else(|| LookupError::UnknownGroup(shown(text.as_bytes())))
    }

    /// Refuses names that the tree does not know.
    pub(crate) fn check(&self, owner: &Owner) -> Result<(), LookupError> {
        if let OwnerPart::Name(name) = &owner.user
            && !self.users.iter().any(|u| u.name == *name)
        {
            return Err(LookupError::UnknownUser(shown(name.as_bytes())));
        }
        match &owner.group {
            Some(OwnerPart::Name(name)) => self.gid(name).map(drop),
            Some(OwnerPart::Id(_)) | None => Ok(()),
        }
    }

    /// Returns user and group of `--chown`: a name without a group brings its own group, a number
    /// is the group's number too. Names that the tree does not know are added to `unknown`.
    ///
    /// As in BuildKit, an unknown user is root, and an unknown group is that of the user: real
    /// Dockerfiles name users that only a later image has.
    pub(crate) fn owner(&self, owner: &Owner, unknown: &mut BTreeSet<String>) -> (u32, u32) {
        let (uid, own_gid) = match &owner.user {
            OwnerPart::Id(id) => (*id, *id),
            OwnerPart::Name(name) => match self.users.iter().find(|u| u.name == *name) {
                Some(user) => (user.uid, user.gid),
                None => {
                    // `:group` names no user.
                    let named = (!name.is_empty()).then(|| shown(name.as_bytes()));
                    unknown.extend(named);
                    (0, 0)
                }
            },
        };
        let gid = match &owner.group {
            None => own_gid,
            Some(OwnerPart::Id(gid)) => *gid,
            Some(OwnerPart::Name(name)) => self.gid(name).unwrap_or_else(|_| {
                unknown.insert(shown(name.as_bytes()));
                own_gid
            }),
        };
        (uid, gid)
    }
}

/// Whether an owner has a name that must be looked up.
pub(crate) fn has_names(owner: &Owner) -> bool {
    let named = |part: &OwnerPart| matches!(part, OwnerPart::Name(_));
    named(&owner.user) || owner.group.as_ref().is_some_and(named)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn read<'a>(pick: &impl Fn(&[u8]) -> &'a Root, path: &[u8]) -> Result<String, LookupError> {
    let fail = |source: io::Error| LookupError::Io { path: shown(path), source };
    let resolved = resolve_in(pick, path).map_err(|e| fail(e.into()))?;
    if resolved.stat.is_none() {
        return Ok(String::new());
    }
    let bytes = read_regular(pick(&resolved.path), &resolved.path, FILE_BYTES_MAX).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl User {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = fields(line)?;
        let (uid, gid) = (number(fields.get(2)?)?, number(fields.get(3)?)?);
        let home = fields.get(5).unwrap_or(&"").to_string();
        Some(Self { name: fields[0].to_owned(), uid, gid, home })
    }
}

impl Group {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = fields(line)?;
        let members = fields.get(3).unwrap_or(&"").split(',').map(str::trim);
        let members = members.filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(Self { name: fields[0].to_owned(), gid: number(fields.get(2)?)?, members })
    }
}

/// Splits a line; comments, empty lines and NIS marks are none.
fn fields(line: &str) -> Option<Vec<&str>> {
    let line = line.trim();
    let odd = line.is_empty() || line.starts_with(['#', '+', '-', ':']);
    (!odd).then(|| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no\n+nis\nbroken:x\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n77:x:5:6::/seven:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\nvideo:x:44:app\nwheel:x:10\n";

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(dir.path().join("etc/real"), GROUP).unwrap();
        symlink("/etc/real", dir.path().join("etc/group")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn users_resolve_as_in_container_runtimes() {
        let (_dir, root) = tree();
        let ids = |uid, gid, groups: &[u32], home: Option<&str>| Ids {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.map(str::to_owned),
        };
        let table = [
            ("", ids(0, 0, &[0], Some("/root"))),
            ("root", ids(0, 0, &[0], Some("/root"))),
            ("app", ids(1000, 1001, &[44, 50, 1001], Some("/home/app"))),
            ("1000", ids(1000, 1001, &[44, 50, 1001], Some("/home/app"))),
            ("app:staff", ids(1000, 50, &[50], Some("/home/app"))),
            ("app:7", ids(1000, 7, &[7], Some("/home/app"))),
            ("4242", ids(4242, 0, &[0], None)),
            ("4242:video", ids(4242, 44, &[44], None)),
            ("77", ids(5, 6, &[6], Some("/seven"))),
        ];
        for (text, want) in table {
            assert_eq!(resolve_user(&root, text).unwrap(), want, "{text}");
        }
        assert!(matches!(resolve_user(&root, "nobody"), Err(LookupError::UnknownUser(_))));
        assert!(matches!(resolve_user(&root, "app:none"), Err(LookupError::UnknownGroup(_))));
        assert!(resolve_user(&root, "4294967296").is_err());
    }

    #[test]
    fn owners_resolve_as_chown_does() {
        let (_dir, root) = tree();
        let accounts = Accounts::load(|_| &root).unwrap();
        let name = |n: &str| OwnerPart::Name(n.into());
        let owner = |user, group| {
            let mut unknown = BTreeSet::new();
            let ids = accounts.owner(&Owner { user, group }, &mut unknown);
            (ids, unknown.into_iter().collect::<Vec<_>>().join(" "))
        };
        let table = [
            (name("app"), None, (1000, 1001), ""),
            (OwnerPart::Id(5), None, (5, 5), ""),
            (OwnerPart::Id(5), Some(name("staff")), (5, 50), ""),
            (name(""), Some(name("staff")), (0, 50), ""),
            (name("gone"), None, (0, 0), "gone"),
            (name("app"), Some(name("lost")), (1000, 1001), "lost"),
        ];
        for (user, group, ids, unknown) in table {
            assert_eq!(owner(user, group), (ids, unknown.to_owned()));
        }
    }

    #[test]
    fn this_machines_users_are_never_asked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), PASSWD).unwrap();
        symlink(outside.path(), dir.path().join("etc/passwd")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(resolve_user(&root, "app").is_err());
        assert_eq!(resolve_user(&root, "1000").unwrap().home, None);
    }
}
