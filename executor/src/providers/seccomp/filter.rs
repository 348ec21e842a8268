use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
};

use super::syscalls::{
    ALLOWED, AUDIT, CLONE, CLONE3, FAMILIES, IO_SETUP, NAMESPACE_FLAGS, PERSONALITIES, PERSONALITY, SOCKET,
    Syscall,
};

/// `AUDIT_ARCH_X86_64`, which libc does not have.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Calls of the x32 ABI have this bit in their number.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`; the machine is little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const THIRD_ARGUMENT: u32 = 32;

const REFUSE: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// The filter as a program for the kernel, in the bytes that `bwrap --seccomp` reads.
pub(crate) fn filter() -> Vec<u8> {
    let mut bytes = Vec::new();
    for Instruction { code, jump_true, jump_false, value } in program() {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[jump_true, jump_false]);
        bytes.extend_from_slice(&value.to_ne_bytes());
    }
    bytes
}

struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

fn load(offset: u32) -> Instruction {
    Instruction { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jump_true: 0, jump_false: 0, value: offset }
}

fn jump(condition: u32, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: (BPF_JMP | condition | BPF_K) as u16, jump_true, jump_false, value }
}

fn answer(value: u32) -> Instruction {
    Instruction { code: (BPF_RET | BPF_K) as u16, jump_true: 0, jump_false: 0, value }
}

fn program() -> Vec<Instruction> {
    let mut program = vec![
        load(ARCH),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        jump(BPF_JGE, X32, 0, 1),
        answer(SECCOMP_RET_KILL_PROCESS),
    ];
    // Before the families: this one is among them. Either way the number of the call is looked at again.
    program.extend([
        jump(BPF_JEQ, number(SOCKET), 0, 6),
        load(FIRST_ARGUMENT),
        jump(BPF_JEQ, libc::AF_NETLINK as u32, 0, 3),
        load(THIRD_ARGUMENT),
        jump(BPF_JEQ, AUDIT as u32, 0, 1),
        answer(SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32),
        load(NUMBER),
    ]);
    one_of(&mut program, SOCKET, &FAMILIES.map(|family| family as u32));
    one_of(&mut program, PERSONALITY, &PERSONALITIES);
    program.extend([
        jump(BPF_JEQ, number(CLONE), 0, 4),
        load(FIRST_ARGUMENT),
        jump(BPF_JSET, NAMESPACE_FLAGS, 0, 1),
        answer(REFUSE),
        answer(SECCOMP_RET_ALLOW),
        jump(BPF_JEQ, number(CLONE3), 1, 0),
        jump(BPF_JEQ, number(IO_SETUP), 0, 1),
        answer(SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]);
    for (first, last) in ranges() {
        program.extend([
            jump(BPF_JGT, last, 3, 0),
            jump(BPF_JGE, first, 0, 1),
            answer(SECCOMP_RET_ALLOW),
            answer(REFUSE),
        ]);
    }
    program.push(answer(REFUSE));
    program
}

/// Allows a call when its first argument, a 32-bit number, is one of `values`.
fn one_of(program: &mut Vec<Instruction>, syscall: Syscall, values: &[u32]) {
    let count = values.len() as u8;
    program.push(jump(BPF_JEQ, number(syscall), 0, count + 3));
    program.push(load(FIRST_ARGUMENT));
    for (index, value) in values.iter().enumerate() {
        program.push(jump(BPF_JEQ, *value, count - index as u8, 0));
    }
    program.push(answer(REFUSE));
    program.push(answer(SECCOMP_RET_ALLOW));
}

fn number(syscall: Syscall) -> u32 {
    syscall.1 as u32
}

/// The allowed numbers as ascending runs, both ends included.
fn ranges() -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = ALLOWED.iter().map(|syscall| number(*syscall)).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            Some(_) | None => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(arch: u32, call: u32, first_argument: u32) -> u32 {
        verdict_of(arch, call, first_argument, 0)
    }

    fn verdict_of(arch: u32, call: u32, first_argument: u32, third_argument: u32) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = &program[at];
            at += 1;
            let code = u32::from(instruction.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                accumulator = match instruction.value {
                    ARCH => arch,
                    NUMBER => call,
                    FIRST_ARGUMENT => first_argument,
                    THIRD_ARGUMENT => third_argument,
                    other => panic!("load from {other}"),
                };
                continue;
            }
            if code == BPF_RET | BPF_K {
                return instruction.value;
            }
            let holds = match code & 0xf0 {
                BPF_JEQ => accumulator == instruction.value,
                BPF_JGE => accumulator >= instruction.value,
                BPF_JGT => accumulator > instruction.value,
                BPF_JSET => accumulator & instruction.value != 0,
                other => panic!("jump {other}"),
            };
            at += usize::from(if holds { instruction.jump_true } else { instruction.jump_false });
        }
    }

    #[test]
    fn allowed_calls_are_allowed_and_no_others() {
        for call in 0..600 {
            let listed = ALLOWED.iter().any(|syscall| number(*syscall) == call);
            let special =
                [SOCKET, PERSONALITY, CLONE, CLONE3, IO_SETUP].iter().any(|syscall| number(*syscall) == call);
            if !special {
                assert_eq!(
                    verdict(ARCHITECTURE, call, 0),
                    if listed { SECCOMP_RET_ALLOW } else { REFUSE },
                    "{call}"
                );
            }
        }
    }

    #[test]
    fn arguments_decide() {
        let socket = |family: i32| verdict(ARCHITECTURE, number(SOCKET), family as u32);
        assert_eq!(socket(libc::AF_INET6), SECCOMP_RET_ALLOW);
        assert_eq!(socket(libc::AF_NETLINK), SECCOMP_RET_ALLOW);
        let netlink = |protocol: i32| {
            verdict_of(ARCHITECTURE, number(SOCKET), libc::AF_NETLINK as u32, protocol as u32)
        };
        assert_eq!(netlink(libc::NETLINK_GENERIC), SECCOMP_RET_ALLOW);
        assert_eq!(netlink(libc::NETLINK_AUDIT), SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32);
        assert_eq!(
            verdict_of(ARCHITECTURE, number(SOCKET), libc::AF_INET as u32, AUDIT as u32),
            SECCOMP_RET_ALLOW
        );
        assert_eq!(socket(libc::AF_ALG), REFUSE);
        assert_eq!(socket(libc::AF_VSOCK), REFUSE);
        let clone = |flags: i32| verdict(ARCHITECTURE, number(CLONE), flags as u32);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_THREAD), SECCOMP_RET_ALLOW);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_NEWUSER), REFUSE);
        for unknown in [CLONE3, IO_SETUP] {
            assert_eq!(verdict(ARCHITECTURE, number(unknown), 0), SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        }
        assert_eq!(verdict(ARCHITECTURE, number(PERSONALITY), 0xffff_ffff), SECCOMP_RET_ALLOW);
        assert_eq!(verdict(ARCHITECTURE, number(PERSONALITY), 8), REFUSE);
    }

    #[test]
    fn other_abis_die() {
        assert_eq!(verdict(0x4000_0003, 3, 0), SECCOMP_RET_KILL_PROCESS);
        assert_eq!(verdict(ARCHITECTURE, X32 | 41, 38), SECCOMP_RET_KILL_PROCESS);
    }
}
