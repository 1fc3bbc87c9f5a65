//! Finds where the kernel's controllers are and makes Ashlar's own parent group below this process's.

use std::io;
use std::path::{Path, PathBuf};

/// Name of the group that holds those of all sandboxes.
pub(crate) const PARENT: &str = "ashlar";
/// The same for containers of OCI runtimes, which make device rules of their own: a child can't have more than [`PARENT`].
pub(crate) const RUNTIME_PARENT: &str = "ashlar-oci";
/// A group below the parent for steps that have no group of their own in a hierarchy that they are shown.
pub(crate) const COMMON: &str = "common";
/// The v1 controllers that language runtimes look for.
const SHOWN: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "cpuset"];
/// Group that this process moves to when its own v2 group has to hand controllers down.
const OWN_LEAF: &str = "ashlar-engine";

/// Which interface a controller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where one controller's groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) version: Version,
    /// Ashlar's parent group.
    pub(crate) parent: PathBuf,
}

/// A v1 hierarchy that steps are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Name of its mount point, such as `cpu` or `cpu,cpuacct`.
    pub(crate) name: String,
    /// Ashlar's parent group.
    pub(crate) parent: PathBuf,
}

impl Hierarchy {
    /// Makes the common group, able to have members.
    pub(crate) fn make_common(&self) -> io::Result<()> {
        let common = self.parent.join(COMMON);
        let own = self.parent.parent().unwrap_or(&self.parent);
        for group in [&self.parent, &common] {
            make_group(group)?;
            // A cpuset begins empty and then takes nobody.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if own.join(file).exists() {
                    std::fs::write(group.join(file), std::fs::read(own.join(file))?)?;
                }
            }
        }
        Ok(())
    }
}

/// The controllers of this machine that sandboxes use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) memory: Option<Controller>,
    pub(crate) pids: Option<Controller>,
    pub(crate) cpu: Option<Controller>,
    /// v1 only; v2 has no such controller, there `nodev` mounts alone keep devices out of reach.
    pub(crate) devices: Option<Controller>,
    /// The v1 hierarchies with a controller of [`SHOWN`].
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the layout, with groups below `parent`, from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(crate) fn parse(mountinfo: &str, own: &str, parent: &str) -> Self {
        let mut layout = Self::default();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some(mount) = parse_mount(line) else { continue };
            if mount.kind == "cgroup2" {
                unified = Some(mount);
                continue;
            }
            layout.add_hierarchy(&mount, own, parent);
            for option in mount.options.split(',') {
                let slot = match option {
                    "memory" => &mut layout.memory,
                    "pids" => &mut layout.pids,
                    "cpu" => &mut layout.cpu,
                    "devices" => &mut layout.devices,
                    _ => continue,
                };
                let group = own_group(own, Some(option));
                slot.get_or_insert(Controller {
                    version: Version::V1,
                    parent: mount.directory_of(group).join(parent),
                });
            }
        }
        if let Some(mount) = unified {
            layout.add_unified(&mount.directory_of(own_group(own, None)), parent);
        }
        layout
    }

    fn add_hierarchy(&mut self, mount: &MountLine<'_>, own: &str, parent: &str) {
        let mut options = mount.options.split(',');
        let Some(option) = options.find(|option| SHOWN.contains(option)) else { return };
        let Some(name) = Path::new(mount.point).file_name().and_then(|name| name.to_str()) else {
            return;
        };
        if self.hierarchies.iter().any(|hierarchy| hierarchy.name == name) {
            return;
        }
        let parent = mount.directory_of(own_group(own, Some(option))).join(parent);
        self.hierarchies.push(Hierarchy { name: name.to_owned(), parent });
    }

    /// Adds the controllers that v2 offers in the given group and v1 does not have.
    fn add_unified(&mut self, own: &Path, parent: &str) {
        let offered = std::fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        let slots =
            [("memory", &mut self.memory), ("pids", &mut self.pids), ("cpu", &mut self.cpu)];
        for (name, slot) in slots {
            if offered.split_whitespace().any(|word| word == name) {
                slot.get_or_insert(Controller { version: Version::V2, parent: own.join(parent) });
            }
        }
    }

    /// The controllers, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Controller> {
        [&self.memory, &self.pids, &self.cpu, &self.devices].into_iter().flatten()
    }

    /// The v2 parent group, when any controller is on v2.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.all().find(|c| c.version == Version::V2).map(|c| c.parent.as_path())
    }

    /// Makes the parent groups and hands the controllers down to them.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for controller in self.all() {
            make_group(&controller.parent)?;
        }
        if let Some(parent) = self.unified() {
            let own = parent.parent().unwrap_or(parent);
            let names = ["memory", "pids", "cpu"].into_iter();
            let slots = names.zip([&self.memory, &self.pids, &self.cpu]);
            let on_v2 = slots.filter(|(_, c)| c.as_ref().is_some_and(|c| c.version == Version::V2));
            let line: Vec<String> = on_v2.map(|(name, _)| format!("+{name}")).collect();
            hand_down(own, &line.join(" "))?;
            std::fs::write(parent.join("cgroup.subtree_control"), line.join(" "))?;
        }
        self.forbid_devices()
    }

    /// Lets members of the devices group open nothing but the harmless devices, as Docker does; making nodes stays
    /// allowed.
    fn forbid_devices(&self) -> io::Result<()> {
        let Some(devices) = &self.devices else { return Ok(()) };
        std::fs::write(devices.parent.join("devices.deny"), "a")?;
        // null, zero, full, random, urandom, tty, ptmx, pseudo terminals.
        for rule in [
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm",
            "c 136:* rwm",
        ] {
            std::fs::write(devices.parent.join("devices.allow"), rule)?;
        }
        Ok(())
    }
}

/// Makes one group; an existing one is fine.
fn make_group(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Enables controllers for the children of `own`; a v2 group other than the root may not have processes of its own
/// then, so they move to a leaf.
fn hand_down(own: &Path, line: &str) -> io::Result<()> {
    let control = own.join("cgroup.subtree_control");
    match std::fs::write(&control, line) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        result => return result,
    }
    let leaf = own.join(OWN_LEAF);
    make_group(&leaf)?;
    for pid in std::fs::read_to_string(own.join("cgroup.procs"))?.lines() {
        // A process that has just ended can't be moved and need not be.
        let _ = std::fs::write(leaf.join("cgroup.procs"), pid);
    }
    std::fs::write(control, line)
}

struct MountLine<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl MountLine<'_> {
    /// The directory of a group below this mount.
    fn directory_of(&self, group: &str) -> PathBuf {
        let inside = group.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(group);
        Path::new(self.point).join(inside.trim_start_matches('/'))
    }
}

/// One line of mountinfo, when it is about cgroups: `.. root point options [tags] - kind source super-options`.
fn parse_mount(line: &str) -> Option<MountLine<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, _, options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
    kind.starts_with("cgroup").then_some(MountLine { root, point, kind, options })
}

/// This process's group for a v1 controller, or on v2, from the text of `/proc/self/cgroup`.
fn own_group<'a>(text: &'a str, controller: Option<&str>) -> &'a str {
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let found = match controller {
            Some(wanted) => names.split(',').any(|name| name == wanted),
            None => id == "0" && names.is_empty(),
        };
        if found {
            return path;
        }
    }
    "/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machines_use_the_v1_controllers() {
        let mounts = "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 1 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 1 0:28 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n3:pids:/\n2:cpu,cpuacct:/x\n0::/\n";
        let layout = Layout::parse(mounts, own, PARENT);
        let parent = |c: &Option<Controller>| {
            let c = c.as_ref().unwrap();
            assert_eq!(c.version, Version::V1);
            c.parent.to_str().unwrap().to_owned()
        };
        assert_eq!(parent(&layout.memory), "/sys/fs/cgroup/memory/a/b/ashlar");
        assert_eq!(parent(&layout.pids), "/sys/fs/cgroup/pids/ashlar");
        assert_eq!(parent(&layout.cpu), "/sys/fs/cgroup/cpu/x/ashlar");
        assert_eq!(layout.devices, None);
        assert_eq!(layout.unified(), None);
        let shown: Vec<&str> = layout.hierarchies.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(shown, ["memory", "pids", "cpu"]);
        assert_eq!(layout.hierarchies[2].parent, Path::new("/sys/fs/cgroup/cpu/x/ashlar"));
    }

    #[test]
    fn unified_machines_use_v2_below_the_own_group() {
        let tree = tempfile::tempdir().unwrap();
        let own = tree.path().join("system.slice/ashlar.service");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let mounts = format!("33 1 0:29 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
        let layout = Layout::parse(&mounts, "0::/system.slice/ashlar.service\n", PARENT);
        assert_eq!(layout.unified(), Some(own.join("ashlar").as_path()));
        assert!(layout.memory.is_some() && layout.pids.is_some() && layout.cpu.is_some());
        assert_eq!((layout.devices.as_ref(), layout.hierarchies.len()), (None, 0));

        layout.prepare().unwrap();
        let handed = std::fs::read_to_string(own.join("cgroup.subtree_control")).unwrap();
        assert_eq!(handed, "+memory +pids +cpu");
        let handed = std::fs::read_to_string(own.join("ashlar/cgroup.subtree_control")).unwrap();
        assert_eq!(handed, "+memory +pids +cpu");
    }

    #[test]
    fn a_group_seen_from_a_container_is_found_below_its_mount() {
        let mounts = "30 1 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let layout = Layout::parse(mounts, "4:memory:/docker/abc/inner\n", PARENT);
        let parent = layout.memory.unwrap().parent;
        assert_eq!(parent, Path::new("/sys/fs/cgroup/memory/inner/ashlar"));
    }
}
