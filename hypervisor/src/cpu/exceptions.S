# From the processor's exception frame to Rust and back.
#
# In:  what the processor pushed (SS, RSP, RFLAGS, CS, RIP and, for some
#      exceptions, an error code), RSP 16-byte aligned before it.
# Out: exceptions::TrapFrame at RDI for {dispatch}, which may change it; all
#      registers are put back and the processor returns to where the frame says.
#
# Every vector has a stub of 16 bytes, so that `idt` needs only the first one's
# address.

    .section .text.traps, "ax"
    .code64

    .balign 16
    .globl xferry_trap_stubs
xferry_trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    # 1. An error code for each: the processor pushes one for #DF, #TS, #NP,
    #    #SS, #GP, #PF, #AC, #CP, #VC and #SX (SDM Vol. 3, Table 7-1; APM
    #    Vol. 2, 8.2).
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    # 2. The vector.
    push vector
    jmp 2f
    .set vector, vector + 1
    .endr
    .balign 16

2:  # 3. All general registers, R15 last, so that it is first in memory.
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    # 4. Rust wants DF = 0; 5 + 2 + 15 quadwords keep RSP 16-byte aligned.
    cld
    mov rdi, rsp
    call {dispatch}
    # 5. Back, without vector and error code.
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
