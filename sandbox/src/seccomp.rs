//! The system calls a command may not make. Everything else is allowed: namespaces decide what it reaches.

/// Of a kernel's classic BPF: `struct sock_filter`.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

// Offsets in `struct seccomp_data`; of an argument the low half, all machines here are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;
const ARGUMENT_1: u32 = 24;

const LOAD: u16 = 0x20;
const EQUALS: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const HAS_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

#[cfg(target_arch = "x86_64")]
const THIS_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCH: u32 = 0xc000_00b7;

/// `CLONE_NEW*` of mount, cgroup, uts, ipc, user, pid, net and time.
const NEW_NAMESPACES: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x80;

/// A socket to the hypervisor, say, passes by every network namespace.
const SOCKETS: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// System calls by name and number.
macro_rules! calls {
    ($($(#[$only:meta])? $name:ident),+ $(,)?) => {
        &[$($(#[$only])? (stringify!($name), libc::$name)),+]
    };
}

/// What is typed into the terminal of another.
const TYPING: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Answered with EPERM.
const DENIED: &[(&str, i64)] = calls![
    // other processes
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_getfd,
    // namespaces and mounts
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_swapon,
    SYS_swapoff,
    // the kernel's wide surfaces
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_fanotify_init,
    SYS_lookup_dcookie,
    SYS_memfd_secret,
    SYS_move_pages,
    SYS_migrate_pages,
    SYS_mbind,
    SYS_set_mempolicy,
    // keys belong to a user, not to a namespace
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    // the machine
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_acct,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    SYS_modify_ldt,
];

/// The program as the kernel reads it.
pub(crate) fn program() -> Vec<u8> {
    let refuse = answer(ERRNO | libc::EPERM as u32);
    let mut all = vec![load(ARCH), unless(THIS_ARCH), answer(KILL_PROCESS), load(NUMBER)];
    // The second numbering of x86-64 (x32) would pass by every line below.
    #[cfg(target_arch = "x86_64")]
    all.extend([Instruction { code: AT_LEAST, jump_true: 0, jump_false: 1, value: 0x4000_0000 }, refuse]);
    for (_, number) in DENIED {
        all.extend([when(*number as u32), refuse]);
    }
    // Its flags lie in memory, which a filter cannot read; a C library then uses `clone`.
    all.extend([when(libc::SYS_clone3 as u32), answer(ERRNO | libc::ENOSYS as u32)]);

    all.extend(of_call(libc::SYS_clone, &[load(ARGUMENT_0), has_bits(NEW_NAMESPACES), refuse]));
    let mut ioctl = vec![load(ARGUMENT_1)];
    TYPING.iter().for_each(|request| ioctl.extend([when(*request), refuse]));
    all.extend(of_call(libc::SYS_ioctl, &ioctl));
    let mut socket = vec![load(ARGUMENT_0)];
    SOCKETS.iter().for_each(|family| socket.extend([when(*family as u32), answer(ALLOW)]));
    socket.push(refuse);
    all.extend(of_call(libc::SYS_socket, &socket));
    all.push(answer(ALLOW));
    all.iter().flat_map(Instruction::bytes).collect()
}

/// The same rules as an engine of containers reads them.
pub(crate) fn profile() -> serde_json::Value {
    use serde_json::json;
    let refuse = |names: Vec<&str>, args: serde_json::Value| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM, "args": args });
    // Several conditions on one argument would all have to hold, so each is a rule.
    let bits = |index: u32, mask: u32, bits: u32| json!([{ "index": index, "value": mask, "valueTwo": bits, "op": "SCMP_CMP_MASKED_EQ" }]);
    let denied = DENIED.iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect();
    let mut rules = vec![
        refuse(denied, json!([])),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS, "args": [] }),
    ];
    let flags = (0..u32::BITS).map(|bit| 1 << bit).filter(|flag| NEW_NAMESPACES & flag != 0);
    rules.extend(flags.map(|flag| refuse(vec!["clone"], bits(0, flag, flag))));
    rules.extend(TYPING.iter().map(|request| refuse(vec!["ioctl"], bits(1, u32::MAX, *request))));
    let last = SOCKETS.iter().copied().max().unwrap_or(0);
    let others = (0..last).filter(|family| !SOCKETS.contains(family));
    let is = |value: i32, op: &str| json!([{ "index": 0, "value": value, "op": op }]);
    rules.extend(others.map(|family| refuse(vec!["socket"], is(family, "SCMP_CMP_EQ"))));
    rules.push(refuse(vec!["socket"], is(last, "SCMP_CMP_GT")));
    // Rules hold in the second numbering of x86-64, too; what comes in any other is killed.
    let machine = if cfg!(target_arch = "x86_64") {
        json!({ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"] })
    } else {
        json!({ "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": [] })
    };
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "archMap": [machine], "syscalls": rules })
}

/// `then` if the call is this; its answers may fall through to an allowed end.
fn of_call(number: i64, then: &[Instruction]) -> Vec<Instruction> {
    let skip = u8::try_from(then.len() + 1).expect("the parts of a call are few");
    let mut all = vec![Instruction { code: EQUALS, jump_true: 0, jump_false: skip, value: number as u32 }];
    all.extend(then);
    all.push(answer(ALLOW));
    all
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, value: offset }
}

fn answer(value: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, value }
}

/// Skips the next instruction unless the loaded value is this.
fn when(value: u32) -> Instruction {
    Instruction { code: EQUALS, jump_true: 0, jump_false: 1, value }
}

fn unless(value: u32) -> Instruction {
    Instruction { code: EQUALS, jump_true: 1, jump_false: 0, value }
}

fn has_bits(value: u32) -> Instruction {
    Instruction { code: HAS_BITS, jump_true: 0, jump_false: 1, value }
}

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.jump_true;
        bytes[3] = self.jump_false;
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}
