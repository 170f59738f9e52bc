//! The one piece of assembly that plays a script.

use std::arch::naked_asm;

pub const XSAVE: u64 = 0;
pub const XSAVEC: u64 = 1;
pub const XSAVEOPT: u64 = 2;
pub const XRSTOR: u64 = 3;
pub const XGETBV1: u64 = 4;
pub const FLIP: u64 = 5;
pub const ONES: u64 = 6;

/// What the assembly reads; the offsets are written there.
#[repr(C)]
pub struct RawStep {
    pub instruction: u64,
    pub image: *mut u8,
    /// RFBM, or an offset in bytes.
    pub rfbm: u64,
    pub result: u64,
}

const _: () = assert!(std::mem::offset_of!(RawStep, image) == 8);
const _: () = assert!(std::mem::offset_of!(RawStep, rfbm) == 16);
const _: () = assert!(std::mem::offset_of!(RawStep, result) == 24);
const _: () = assert!(size_of::<RawStep>() == 32);

/// Plays RSI steps at RDI; RDX is an image for the thread's own state, RCX its
/// RFBM. Returns how many were done.
///
/// 1. R12: step, R13: steps left, R14: own image, R15: own RFBM, RBX: done.
/// 2. Save the thread's state. 3. Each step: EDX:EAX = RFBM, RDI = image.
/// 4. Restore the thread's state. A fault enters at `faulted` with the
///    exception's vector in R8.
///
/// # Safety
/// The processor has every instruction of the list. Images are aligned to 64
/// bytes and have room for all that XCR0 has; offsets are within them. The
/// handler of `fault` is installed.
#[unsafe(naked)]
pub unsafe extern "C" fn play(steps: *mut RawStep, count: u64, mine: *mut u8, xcr0: u64) -> u64 {
    naked_asm!(
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov r12, rdi",
        "mov r13, rsi",
        "mov r14, rdx",
        "mov r15, rcx",
        "xor ebx, ebx",
        "mov eax, r15d",
        "mov rdx, r15",
        "shr rdx, 32",
        "xsave64 [r14]",
        ".globl xstate_capture_script",
        "xstate_capture_script:",
        "2:",
        "cmp rbx, r13",
        "je 9f",
        "mov rcx, [r12]",
        "mov rdi, [r12 + 8]",
        "mov eax, [r12 + 16]",
        "mov edx, [r12 + 20]",
        "cmp ecx, 1",
        "jb 3f",
        "je 4f",
        "cmp ecx, 3",
        "jb 5f",
        "je 6f",
        "cmp ecx, 5",
        "je 7f",
        "ja 10f",
        "mov ecx, 1",
        "xgetbv",
        "shl rdx, 32",
        "or rax, rdx",
        "mov [r12 + 24], rax",
        "jmp 8f",
        "3:",
        "xsave64 [rdi]",
        "jmp 8f",
        "4:",
        "xsavec64 [rdi]",
        "jmp 8f",
        "5:",
        "xsaveopt64 [rdi]",
        "jmp 8f",
        "6:",
        "xrstor64 [rdi]",
        "jmp 8f",
        "7:",
        "xor byte ptr [rdi + rax], 0xff",
        "jmp 8f",
        "10:",
        "pcmpeqd xmm0, xmm0",
        "8:",
        "add r12, 32",
        "inc rbx",
        "jmp 2b",
        ".globl xstate_capture_faulted",
        "xstate_capture_faulted:",
        "mov [r12 + 24], r8",
        "9:",
        "mov eax, r15d",
        "mov rdx, r15",
        "shr rdx, 32",
        "xrstor64 [r14]",
        "mov rax, rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "ret",
    )
}
