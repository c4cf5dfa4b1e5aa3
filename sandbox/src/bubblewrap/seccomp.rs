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

/// Answered with EPERM.
const DENIED: &[i64] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // namespaces and mounts
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // the kernel's wide surfaces
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_memfd_secret,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    // keys belong to a user, not to a namespace
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // the machine
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// The program as the kernel reads it.
pub(super) fn program() -> Vec<u8> {
    let refuse = answer(ERRNO | libc::EPERM as u32);
    let mut all = vec![load(ARCH), unless(THIS_ARCH), answer(KILL_PROCESS), load(NUMBER)];
    // The second numbering of x86-64 (x32) would pass by every line below.
    #[cfg(target_arch = "x86_64")]
    all.extend([Instruction { code: AT_LEAST, jump_true: 0, jump_false: 1, value: 0x4000_0000 }, refuse]);
    for number in DENIED {
        all.extend([when(*number as u32), refuse]);
    }
    // Its flags lie in memory, which a filter cannot read; a C library then uses `clone`.
    all.extend([when(libc::SYS_clone3 as u32), answer(ERRNO | libc::ENOSYS as u32)]);

    all.extend(of_call(libc::SYS_clone, &[load(ARGUMENT_0), has_bits(NEW_NAMESPACES), refuse]));
    // What is typed into the terminal of another.
    let typing = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
    let mut ioctl = vec![load(ARGUMENT_1)];
    typing.iter().for_each(|request| ioctl.extend([when(*request), refuse]));
    all.extend(of_call(libc::SYS_ioctl, &ioctl));
    let mut socket = vec![load(ARGUMENT_0)];
    SOCKETS.iter().for_each(|family| socket.extend([when(*family as u32), answer(ALLOW)]));
    socket.push(refuse);
    all.extend(of_call(libc::SYS_socket, &socket));
    all.push(answer(ALLOW));
    all.iter().flat_map(Instruction::bytes).collect()
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
