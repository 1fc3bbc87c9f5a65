//! One row a trick. Numbers of system calls are those of x86-64; the name of the row says which call it is.

use super::trick::{Expect, Trick};

/// All of them.
pub(crate) const TRICKS: &[Trick] = &[
    Trick {
        name: "core_pattern through /proc/sys",
        script: "echo '|/x' >/proc/sys/kernel/core_pattern",
        expect: Expect::Refused(&["Read-only"]),
    },
    Trick {
        name: "any other write to /proc/sys",
        script: "echo 1 >/proc/sys/kernel/sysrq; echo /x >/proc/sys/kernel/modprobe; echo 1 >/proc/sys/vm/overcommit_memory",
        expect: Expect::Refused(&["Read-only", "nonexistent"]),
    },
    Trick {
        name: "sysrq-trigger",
        script: "echo b >/proc/sysrq-trigger",
        expect: Expect::Refused(&["Read-only", "can't create"]),
    },
    Trick {
        name: "write to /sys",
        script: "echo 1 >/sys/kernel/profiling; echo add >/sys/bus/pci/rescan",
        expect: Expect::Refused(&["Read-only"]),
    },
    Trick {
        name: "uevent_helper",
        script: "echo /x >/sys/kernel/uevent_helper",
        expect: Expect::Refused(&["Read-only", "Permission denied", "nonexistent"]),
    },
    Trick {
        name: "kernel memory, keys and timers through /proc",
        script: "for f in kcore keys timer_list interrupts; do test ! -e /proc/$f || wc -c </proc/$f; done | sort -u",
        expect: Expect::Harmless { output: "0", why: "they are /dev/null" },
    },
    Trick {
        name: "firmware tables",
        script: "ls -A /sys/firmware",
        expect: Expect::Harmless { output: "", why: "an empty directory covers them" },
    },
    Trick {
        name: "uncover a masked path",
        script: "umount /proc/kcore 2>&1; umount /sys/firmware 2>&1; mount -o remount,rw /proc/sys 2>&1; mount -t proc p /tmp 2>&1",
        expect: Expect::Refused(&["not permitted", "denied", "must be"]),
    },
    Trick {
        name: "root of pid 1",
        script: "ls /proc/1/root | tr \"\\n\" \" \"",
        expect: Expect::Harmless {
            output: "bin dev etc lib lib64 probe proc root sys tmp",
            why: "pid 1 is the step itself",
        },
    },
    Trick {
        name: "working directory of pid 1",
        script: "cd /proc/1/cwd/../../../..; ls -d home var 2>/dev/null; pwd",
        expect: Expect::Harmless { output: "/", why: "pid 1 is the step itself" },
    },
    Trick {
        name: "climbing with ..",
        script: "cd /../../..; ls -d ../../../usr 2>/dev/null; pwd",
        expect: Expect::Harmless {
            output: "/",
            why: "the root of the mount namespace is the sandbox's own",
        },
    },
    Trick {
        name: "leaving a chroot",
        script: "/probe chroot-escape",
        expect: Expect::Harmless {
            output: "bin dev etc lib lib64 probe proc root sys tmp",
            why: "the chroot is left, but the root below it is the sandbox's own (pivot_root)",
        },
    },
    Trick {
        name: "mount",
        script: "/probe call 165 s:none s:/tmp s:tmpfs 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "bind mount of the root",
        script: "/probe call 165 s:/ s:/tmp s:none 4096 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "umount",
        script: "/probe call 166 s:/proc 2",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "pivot_root",
        script: "/probe call 155 s:. s:.",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "new mount API",
        script: "/probe call 430 s:tmpfs 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "open_tree",
        script: "/probe call 428 -100 s:/ 1",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "unshare of a user namespace",
        script: "/probe call 272 268435456",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "unshare of a mount namespace",
        script: "/probe call 272 131072",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "clone of a user namespace",
        script: "/probe call 56 268435473 0 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "clone3, whose flags no filter can read",
        script: "/probe call 435 z:88 88",
        expect: Expect::Refused(&["not implemented"]),
    },
    Trick {
        name: "setns",
        script: "/probe call 308 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "cgroup release_agent",
        script: "mkdir /tmp/cg && mount -t cgroup -o memory cgroup /tmp/cg 2>&1; mount -t cgroup2 none /tmp/cg 2>&1",
        expect: Expect::Refused(&["not permitted", "denied"]),
    },
    Trick {
        name: "cgroup files",
        script: "find /sys/fs/cgroup -name release_agent -o -name '[0-9]*.[0-9]*-*' | wc -l; ls /sys/fs/cgroup/../cgroup/memory/../.. 2>/dev/null | grep -c ashlar; awk '/ - cgroup/ && $4 != \"/\"' /proc/self/mountinfo; cut -d: -f3 /proc/self/cgroup | sort -u",
        expect: Expect::Harmless {
            output: "0\n0\n/",
            why: "only the step's own groups are bound, no top of a hierarchy and no other sandbox, and the namespace shows them as the root",
        },
    },
    Trick {
        name: "writing to the own cgroup",
        script: "cd /sys/fs/cgroup; for f in $(find . -type f -perm -200); do echo 1 >$f; done",
        expect: Expect::Refused(&["Read-only"]),
    },
    Trick {
        name: "making, moving and removing cgroups",
        script: "cd /sys/fs/cgroup; for d in $(find . -type d); do mkdir $d/x; rmdir $d; done; mv memory other",
        expect: Expect::Refused(&["Read-only", "busy", "Invalid argument"]),
    },
    Trick {
        name: "making the own cgroup writable",
        script: "for d in $(find /sys/fs/cgroup -type d); do mount -o remount,rw $d; mount -o remount,bind,rw $d; mount -o bind $d /tmp; umount $d; done 2>&1; /probe call 442 -100 s:/sys/fs/cgroup 0 x:0000000000000000010000000000000000000000000000000000000000000000 32",
        expect: Expect::Refused(&["not permitted", "denied", "must be"]),
    },
    Trick {
        name: "a node of the disk",
        script: "mknod /tmp/disk b 254 0; mknod /tmp/sda b 8 0; head -c 1 /tmp/disk; head -c 1 /tmp/sda",
        expect: Expect::Refused(&["denied", "not permitted"]),
    },
    Trick {
        name: "a node of the disk in /dev",
        script: "mknod /dev/disk b 254 0; head -c 1 /dev/disk; mknod /dev/shm/d b 254 0; head -c 1 /dev/shm/d",
        expect: Expect::Refused(&["denied", "not permitted"]),
    },
    Trick {
        name: "kernel memory nodes",
        script: "mknod /dev/mem c 1 1; head -c 1 /dev/mem; mknod /dev/kmsg c 1 11; head -c 1 /dev/kmsg; mknod /dev/port c 1 4; head -c 1 /dev/port",
        expect: Expect::Refused(&["denied", "not permitted"]),
    },
    Trick {
        name: "tun, fuse and loop devices",
        script: "for n in \"tun c 10 200\" \"fuse c 10 229\" \"loop-control c 10 237\" \"loop0 b 7 0\"; do mknod /tmp/$n; head -c 1 /tmp/${n%% *}; done",
        expect: Expect::Refused(&["denied", "not permitted"]),
    },
    Trick {
        name: "keyctl",
        script: "/probe call 250 0 -3 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "add_key",
        script: "/probe call 248 s:user s:x s:y 1 -3",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "request_key",
        script: "/probe call 249 s:user s:x 0 -3",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "bpf",
        script: "/probe call 321 0 z:64 64",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "perf_event_open",
        script: "/probe call 298 z:128 0 -1 -1 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "userfaultfd",
        script: "/probe call 323 1",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "io_uring",
        script: "/probe call 425 8 z:120",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "kexec_load",
        script: "/probe call 246 0 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "init_module",
        script: "/probe call 175 z:16 16 s:",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "finit_module",
        script: "/probe call 313 0 s: 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "delete_module",
        script: "/probe call 176 s:overlay 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "swapon",
        script: "/probe call 167 s:/tmp/x 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "reboot",
        script: "/probe call 169 4276215469 672274793 19088743 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "acct",
        script: "/probe call 163 s:/tmp/x",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "quotactl",
        script: "/probe call 179 2147483904 s:/dev/vda 0 z:64",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "iopl",
        script: "/probe call 172 3",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "ioperm",
        script: "/probe call 173 0 1024 1",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "kernel log",
        script: "/probe call 103 3 z:64 64",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "setting the time",
        script: "/probe call 164 z:16 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "clock_settime",
        script: "/probe call 227 0 x:00e1f505000000000000000000000000",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "adjtimex with a change",
        script: "/probe call 159 x:01000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "sethostname",
        script: "/probe call 170 s:evil 4",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "setdomainname",
        script: "/probe call 171 s:evil 4",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "open_by_handle_at",
        script: "/probe call 304 -100 x:08000000010000000200000000000000 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "lookup_dcookie",
        script: "/probe call 212 0 z:64 64",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "kcmp",
        script: "/probe call 312 1 1 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "pidfd_getfd",
        script: "/probe call 438 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "vhangup",
        script: "/probe call 153 ",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "move_pages",
        script: "/probe call 279 0 0 0 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "personality READ_IMPLIES_EXEC",
        script: "/probe call 135 4194304",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "vsock to the hypervisor",
        script: "/probe call 41 40 1 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "fanotify",
        script: "/probe call 300 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "nfsservctl, gone from the kernel",
        script: "/probe call 180 0 0 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick { name: "32-bit gate", script: "/probe int80", expect: Expect::Killed },
    Trick {
        name: "killing beyond the namespace",
        script: "kill -9 99999 2>/dev/null || echo no such process",
        expect: Expect::Harmless {
            output: "no such process",
            why: "pids of the host don't exist inside",
        },
    },
    Trick {
        name: "ptrace of a process outside",
        script: "/probe call 101 16 99999 0 0",
        expect: Expect::Refused(&["No such process"]),
    },
    Trick {
        name: "memory of a process outside",
        script: "/probe call 310 99999 0 0 0 0 0",
        expect: Expect::Refused(&["No such process", "= 0"]),
    },
    Trick {
        name: "raising the priority above the host",
        script: "renice -n -5 -p $$ 2>&1",
        expect: Expect::Refused(&["ermission denied"]),
    },
    Trick {
        name: "real-time scheduling",
        script: "/probe call 144 0 1 x:01000000",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "a lower oom score than the engine gave",
        script: "echo -1000 >/proc/self/oom_score_adj",
        expect: Expect::Refused(&["ermission denied"]),
    },
    Trick {
        name: "raising a hard limit",
        script: "/probe call 302 0 7 x:00002000000000000000200000000000 0",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "typing into a controlling terminal (TIOCSTI)",
        script: "/probe call 16 0 21522 s:x; cat </dev/tty",
        expect: Expect::Refused(&[
            "not permitted",
            "Inappropriate ioctl",
            "No such device",
            "can't open",
        ]),
    },
    Trick {
        name: "packet sockets",
        script: "/probe call 41 17 3 768 | grep -c =",
        expect: Expect::Harmless {
            output: "1",
            why: "CAP_NET_RAW is among Docker's; the namespace has only its own loopback",
        },
    },
    Trick {
        name: "a new address, route or link",
        script: "ip addr add 10.9.9.9/8 dev lo 2>&1; ip route add default dev lo 2>&1; ip link add x type dummy 2>&1",
        expect: Expect::Refused(&["not permitted"]),
    },
    Trick {
        name: "the host's interfaces",
        script: "ls /sys/class/net; wc -l </proc/net/route",
        expect: Expect::Harmless {
            output: "lo\n1",
            why: "the network namespace is the step's own",
        },
    },
    Trick {
        name: "shared memory and queues of the host",
        script: "ipcs -m 2>/dev/null | grep -c 0x; ls -A /dev/mqueue | wc -l",
        expect: Expect::Harmless { output: "0\n0", why: "the ipc namespace is the step's own" },
    },
    Trick {
        name: "a file with capabilities",
        script: "cp /bin/busybox /tmp/b; grep CapBnd /proc/self/status | cut -f2",
        expect: Expect::Harmless {
            output: "00000000a80425fb",
            why: "the bounding set caps what any file can give",
        },
    },
];
