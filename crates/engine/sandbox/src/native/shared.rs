//! What all sandboxes of one engine have in common.

use crate::cgroup::{Janitor, Layout};
use crate::mounts::cgroups::Cgroups;
use crate::mounts::rootfs::Staging;
use crate::network::Isolated;
use crate::security::seccomp::Profile;

/// Made once, read by every sandbox.
pub(crate) struct Shared {
    pub(crate) staging: Staging,
    pub(crate) cgroups: Cgroups,
    pub(crate) profile: Profile,
    pub(crate) layout: Layout,
    pub(crate) janitor: Janitor,
    pub(crate) isolated: Isolated,
}
