// One stub per interrupt vector 0 to 47, and what they have in common.
//
// Contract: every register is as it was when the handler returns, those of the
// extended state included: the handlers are soft-float code and touch none.
// On the stack for guest_interrupt: a Frame (interrupts.rs), 16-byte aligned,
// RDI = its address.

    .section .text.vectors, "ax", @progbits
    .code64
    .balign 16
    .globl guest_vectors
guest_vectors:
    .set vector, 0
    .rept 48
    .balign 16
    // These push an error code of their own (SDM Vol. 3, 6.13, and APM Vol. 2,
    // 8.2 for #VC and #SX): 8, 10-14, 17, 21, 29, 30.
    .if ((0x60227d00 >> vector) & 1) == 0
    pushq $0
    .endif
    pushq $vector
    jmp vector_common
    .set vector, vector + 1
    .endr

vector_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call guest_interrupt
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
