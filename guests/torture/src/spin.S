// Waiting with a pattern in every general-purpose register but RSP.
//
// torture_spin(RDI = array of 16 words in the order of their encoding,
//              RSI = TSC value to wait for, RDX = bits to flip in R13 at the end)
// On return the array holds the registers as they were at the end of the wait;
// its word 4 (RSP) is left alone. While it waits the array is zero: what the
// registers hold is the only copy. Other registers as System V demands.

    .section .text.spin, "ax", @progbits
    .globl torture_spin
    .balign 16
torture_spin:
    // 1. The caller's registers, and what the wait needs:
    //    [rsp] turns left, [rsp + 8] TSC value, [rsp + 16] array, [rsp + 24] flip.
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rdi
    push rsi
    push 0

    // 2. The pattern into the registers, RDI's by way of the stack.
    push [rdi + 8 * 7]
    mov rax, [rdi + 8 * 0]
    mov rcx, [rdi + 8 * 1]
    mov rdx, [rdi + 8 * 2]
    mov rbx, [rdi + 8 * 3]
    mov rbp, [rdi + 8 * 5]
    mov rsi, [rdi + 8 * 6]
    mov r8, [rdi + 8 * 8]
    mov r9, [rdi + 8 * 9]
    mov r10, [rdi + 8 * 10]
    mov r11, [rdi + 8 * 11]
    mov r12, [rdi + 8 * 12]
    mov r13, [rdi + 8 * 13]
    mov r14, [rdi + 8 * 14]
    mov r15, [rdi + 8 * 15]

    // 3. No copy stays behind.
    .irp n, 0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    mov qword ptr [rdi + 8 * \n], 0
    .endr
    pop rdi
    mov qword ptr [rsp - 8], 0

    // 4. Turns that need no register, then a look at the TSC, for which RAX and
    //    RDX step aside: about one instruction in two hundred.
1:  mov qword ptr [rsp], 1000
2:  dec qword ptr [rsp]
    jnz 2b
    push rax
    push rdx
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, [rsp + 16 + 8]
    pop rdx
    pop rax
    jb 1b

    // 5. The registers into the array.
    xor r13, [rsp + 24]
    push rdi
    mov rdi, [rsp + 8 + 16]
    mov [rdi + 8 * 0], rax
    mov [rdi + 8 * 1], rcx
    mov [rdi + 8 * 2], rdx
    mov [rdi + 8 * 3], rbx
    mov [rdi + 8 * 5], rbp
    mov [rdi + 8 * 6], rsi
    mov [rdi + 8 * 8], r8
    mov [rdi + 8 * 9], r9
    mov [rdi + 8 * 10], r10
    mov [rdi + 8 * 11], r11
    mov [rdi + 8 * 12], r12
    mov [rdi + 8 * 13], r13
    mov [rdi + 8 * 14], r14
    mov [rdi + 8 * 15], r15
    pop rax
    mov [rdi + 8 * 7], rax

    // 6. The caller's registers.
    add rsp, 32
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
