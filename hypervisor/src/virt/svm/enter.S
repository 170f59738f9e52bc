# svm_enter(guest_vmcb: rdi, gprs: rsi, host_vmcb: rdx): into the guest and back.
#
#   in   rdi  physical address of the guest's VMCB (RAX, RSP, RIP in it are set)
#        rsi  address of the guest's 16 general registers, [Gprs]
#        rdx  physical address of a VMCB that holds the host's VMSAVE state
#   out  the guest's registers in [rsi], but RAX and RSP, which are in the VMCB
#   The System V callee-saved registers are kept. Called with IF = 0; returns
#   so. RFLAGS.IF is 1 between STI and CLI, but GIF = 0 holds interrupts back:
#   with V_INTR_MASKING the processor (and QEMU, to the letter) lets a physical
#   interrupt end the guest only if the host's IF was 1 at VMRUN.
#
# x87, vector state, XCR0 and PKRU are the guest's on both sides of this code.

    .section .text.svm_enter, "ax", @progbits
    .globl svm_enter
    .type svm_enter, @function
svm_enter:
    # 1. Keep the host's callee-saved registers and the two pointers.
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rsi
    # 2. The guest's general registers. RAX carries the VMCB's address.
    mov rax, rdi
    mov rcx, [rsi + 1*8]
    mov rdx, [rsi + 2*8]
    mov rbx, [rsi + 3*8]
    mov rbp, [rsi + 5*8]
    mov rdi, [rsi + 7*8]
    mov r8,  [rsi + 8*8]
    mov r9,  [rsi + 9*8]
    mov r10, [rsi + 10*8]
    mov r11, [rsi + 11*8]
    mov r12, [rsi + 12*8]
    mov r13, [rsi + 13*8]
    mov r14, [rsi + 14*8]
    mov r15, [rsi + 15*8]
    mov rsi, [rsi + 6*8]
    # 3. Enter. #VMEXIT brings back RAX, RSP and clears GIF.
    clgi
    sti
    vmload rax
    vmrun rax
    vmsave rax
    cli
    # 4. Keep the guest's registers; RAX is free, the stack is ours again.
    mov rax, [rsp]
    mov [rax + 1*8], rcx
    mov [rax + 2*8], rdx
    mov [rax + 3*8], rbx
    mov [rax + 5*8], rbp
    mov [rax + 6*8], rsi
    mov [rax + 7*8], rdi
    mov [rax + 8*8], r8
    mov [rax + 9*8], r9
    mov [rax + 10*8], r10
    mov [rax + 11*8], r11
    mov [rax + 12*8], r12
    mov [rax + 13*8], r13
    mov [rax + 14*8], r14
    mov [rax + 15*8], r15
    # 5. The host's FS, GS, TR, LDTR and SYSCALL state; then interrupts exist again.
    mov rax, [rsp + 8]
    vmload rax
    stgi
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
    .size svm_enter, . - svm_enter
