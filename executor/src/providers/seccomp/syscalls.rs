use libc::*;

/// A system call by its name and its number.
pub(super) type Syscall = (&'static str, c_long);

macro_rules! syscalls {
    ($($name:ident)*) => { &[$((stringify!($name), $name)),*] };
}

/// Allowed with any arguments. Names here carry libc's prefix; see [`name`].
#[rustfmt::skip]
pub(super) const ALLOWED: &[Syscall] = syscalls! {
    // Files.
    SYS_read SYS_write SYS_open SYS_openat SYS_openat2 SYS_creat SYS_close SYS_close_range SYS_stat
    SYS_fstat SYS_lstat SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2 SYS_lseek
    SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_dup SYS_dup2 SYS_dup3 SYS_fcntl SYS_flock SYS_ioctl SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs
    SYS_sync_file_range SYS_truncate SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_readahead
    SYS_getdents SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_renameat SYS_renameat2
    SYS_mkdir SYS_mkdirat SYS_rmdir SYS_link SYS_linkat SYS_unlink SYS_unlinkat SYS_symlink
    SYS_symlinkat SYS_readlink SYS_readlinkat SYS_chmod SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_chown
    SYS_fchown SYS_lchown SYS_fchownat SYS_umask SYS_mknod SYS_mknodat SYS_utime SYS_utimes
    SYS_futimesat SYS_utimensat SYS_statfs SYS_fstatfs SYS_copy_file_range SYS_sendfile SYS_splice
    SYS_tee SYS_vmsplice SYS_name_to_handle_at SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr
    SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr
    SYS_lremovexattr SYS_fremovexattr SYS_inotify_init SYS_inotify_init1 SYS_inotify_add_watch
    SYS_inotify_rm_watch
    // Waiting.
    SYS_poll SYS_ppoll SYS_select SYS_pselect6 SYS_epoll_create SYS_epoll_create1 SYS_epoll_ctl
    SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd SYS_eventfd2 SYS_signalfd SYS_signalfd4
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_pipe SYS_pipe2
    SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents
    // Memory.
    SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_msync SYS_mincore SYS_madvise SYS_process_madvise
    SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall SYS_munlockall SYS_brk SYS_memfd_create
    SYS_memfd_secret SYS_membarrier SYS_remap_file_pages SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect
    SYS_mseal SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt
    // Processes.
    SYS_fork SYS_vfork SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill
    SYS_tkill SYS_tgkill SYS_pidfd_open SYS_pidfd_send_signal SYS_pidfd_getfd SYS_process_mrelease
    SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_getpgrp SYS_setpgid SYS_getsid SYS_setsid
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid
    SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid
    SYS_setgroups SYS_capget SYS_capset SYS_prctl SYS_arch_prctl SYS_set_tid_address SYS_set_robust_list
    SYS_get_robust_list SYS_rseq SYS_futex SYS_futex_waitv SYS_sched_yield SYS_sched_getparam
    SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_sched_getaffinity SYS_sched_setaffinity
    SYS_sched_getattr SYS_sched_setattr SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set
    SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_times SYS_ptrace SYS_process_vm_readv
    SYS_process_vm_writev SYS_get_thread_area SYS_set_thread_area SYS_modify_ldt SYS_seccomp
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self SYS_restart_syscall
    SYS_getcpu
    // Signals.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait
    SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_pause
    // Time.
    SYS_time SYS_gettimeofday SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep
    SYS_alarm SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime
    SYS_timer_getoverrun SYS_timer_delete SYS_adjtimex
    // Sockets.
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_shutdown SYS_getsockname
    SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg
    SYS_sendmmsg SYS_recvmmsg
    // Messages between processes.
    SYS_semget SYS_semop SYS_semctl SYS_semtimedop SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
    // The machine.
    SYS_uname SYS_sysinfo SYS_getrandom
};

/// Allowed with certain first arguments: families of sockets.
pub(super) const SOCKET: Syscall = ("SYS_socket", SYS_socket);
/// The families.
pub(super) const FAMILIES: [c_int; 4] = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];

/// A protocol of netlink that the box is told the kernel does not have: work that finds it wants to report to the host's
/// audit, as `su` and `useradd` do, and gives up when it may not.
pub(super) const AUDIT: c_int = NETLINK_AUDIT;

/// Allowed with certain first arguments: execution domains.
pub(super) const PERSONALITY: Syscall = ("SYS_personality", SYS_personality);
/// Linux, and asking; with and without `ADDR_NO_RANDOMIZE`, which debuggers want.
pub(super) const PERSONALITIES: [u32; 3] = [0, 0x0004_0000, 0xffff_ffff];

/// Allowed without certain flags.
pub(super) const CLONE: Syscall = ("SYS_clone", SYS_clone);
/// The flags that make namespaces.
pub(super) const NAMESPACE_FLAGS: u32 = (CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET) as u32;

/// Refused as if the kernel did not know it.
pub(super) const CLONE3: Syscall = ("SYS_clone3", SYS_clone3);
/// The same: what it makes is counted for the whole host (`fs.aio-max-nr`), so that one box could leave none to others.
pub(super) const IO_SETUP: Syscall = ("SYS_io_setup", SYS_io_setup);

/// The name without libc's prefix.
pub(super) fn name(syscall: Syscall) -> &'static str {
    syscall.0.trim_start_matches("SYS_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_dangerous_is_allowed() {
        let allowed: BTreeSet<_> = ALLOWED.iter().map(|syscall| name(*syscall)).collect();
        assert_eq!(allowed.len(), ALLOWED.len(), "a name stands twice");
        for refused in [
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "setns",
            "unshare",
            "clone",
            "clone3",
            "socket",
            "bpf",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "io_setup",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "open_by_handle_at",
            "perf_event_open",
            "userfaultfd",
            "reboot",
            "swapon",
            "swapoff",
            "syslog",
            "acct",
            "quotactl",
            "iopl",
            "ioperm",
            "settimeofday",
            "clock_settime",
            "move_mount",
            "fsopen",
            "fsmount",
            "open_tree",
            "mount_setattr",
            "fanotify_init",
            "kcmp",
            "sethostname",
            "setdomainname",
            "personality",
            "vhangup",
            "nfsservctl",
        ] {
            assert!(!allowed.contains(refused), "{refused}");
        }
    }
}
