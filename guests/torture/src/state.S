// The instructions that put a pattern into registers and take it out again.
//
// Contract of every function here (System V calling convention): RDI = memory,
// RSI = further argument; RAX, RCX, RDX, RSI, RDI may change, and of the
// extended state only what the name says. Vector register n is at 64 * n,
// opmask n at 8 * n, tile n at 1024 * n.

    .section .text.state, "ax", @progbits

    .macro function name
    .globl \name
    .balign 16
\name:
    .endm

function torture_load_sse
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu xmm\n, [rdi + 64 * \n]
    .endr
    ret

function torture_store_sse
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu [rdi + 64 * \n], xmm\n
    .endr
    ret

function torture_load_avx
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu ymm\n, [rdi + 64 * \n]
    .endr
    ret

function torture_store_avx
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu [rdi + 64 * \n], ymm\n
    .endr
    ret

function torture_load_avx512
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovdqu64 zmm\n, [rdi + 64 * \n]
    .endr
    ret

function torture_store_avx512
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovdqu64 [rdi + 64 * \n], zmm\n
    .endr
    ret

// AVX512F alone has no instruction for more than 16 bits of an opmask.
function torture_load_opmask16
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovw k\n, [rdi + 8 * \n]
    .endr
    ret

function torture_store_opmask16
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    mov qword ptr [rdi + 8 * \n], 0
    kmovw [rdi + 8 * \n], k\n
    .endr
    ret

function torture_load_opmask64
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq k\n, [rdi + 8 * \n]
    .endr
    ret

function torture_store_opmask64
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq [rdi + 8 * \n], k\n
    .endr
    ret

// The configuration says how much of each tile there is; it comes first.
function torture_load_tilecfg
    ldtilecfg [rdi]
    ret

function torture_store_tilecfg
    sttilecfg [rdi]
    ret

function torture_load_tiles
    mov esi, 64
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    tileloadd tmm\n, [rdi + rsi]
    add rdi, 1024
    .endr
    ret

function torture_store_tiles
    mov esi, 64
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    tilestored [rdi + rsi], tmm\n
    add rdi, 1024
    .endr
    ret

function torture_load_mxcsr
    ldmxcsr [rdi]
    ret

function torture_store_mxcsr
    stmxcsr [rdi]
    ret

// 108 bytes: environment with the full tag word, and the stack in ST order.
function torture_frstor
    frstor [rdi]
    ret

// The same, and the x87 unit is as after FNINIT.
function torture_fnsave
    fnsave [rdi]
    ret

function torture_fxsave
    fxsave64 [rdi]
    ret

function torture_fxrstor
    fxrstor64 [rdi]
    ret

// RSI = requested components.
function torture_xsave
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xsave64 [rdi]
    ret

function torture_xrstor
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xrstor64 [rdi]
    ret

function torture_load_pkru
    mov eax, [rdi]
    xor ecx, ecx
    xor edx, edx
    wrpkru
    ret

function torture_store_pkru
    xor ecx, ecx
    rdpkru
    mov [rdi], eax
    ret
