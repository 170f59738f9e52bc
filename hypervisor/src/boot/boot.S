# From the boot loader to Rust: the Multiboot2 header, and the way from 32-bit
# protected mode to 64-bit mode.
#
# In  (Multiboot2 3.3): EAX = magic, EBX = physical address of the boot
#     information, protected mode, paging off, interrupts off, flat segments;
#     .bss is already zero, because the loader honours p_memsz.
# Out (System V): EDI = magic, ESI = address, RSP on the boot stack, GS base 0,
#     the first 4 GiB identity-mapped read-write-execute until mm::paging has
#     built the real tables.

    .section .multiboot2, "a"
    .balign 8
header:
    .long 0xe85250d6                    # magic
    .long 0                             # architecture: i386, protected mode
    .long header_end - header
    .long -(0xe85250d6 + 0 + (header_end - header))
    .balign 8                           # tag: modules start on a page
    .short 6, 0
    .long 8
    .balign 8                           # tag: end
    .short 0, 0
    .long 8
header_end:

    .section .text.boot, "ax"
    .code32
    .globl _start
_start:
    # 1. Keep what the loader gave, before CPUID destroys it.
    cli
    cld
    mov edi, eax
    mov esi, ebx
    mov esp, offset {stack} + {stack_bytes}

    # 2. Without long mode (CPUID 8000_0001:EDX[29]) there is nothing to do but
    #    say so.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb 9f
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc 9f

    # 3. Long mode: PAE, tables, EFER.LME, then paging (SDM Vol. 3, 11.8.5
    #    Initializing IA-32e Mode).
    mov eax, 0x20
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000011                 # PG, ET, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    ljmp 0x08, offset long_mode

9:  # "!64" on the first serial port, whatever its baud rate.
    mov dx, 0x3f8
    mov al, 0x21
    out dx, al
    mov al, 0x36
    out dx, al
    mov al, 0x34
    out dx, al
8:  hlt
    jmp 8b

    .code64
long_mode:
    # 4. 64-bit segments, then Rust, which does not come back.
    mov eax, 0x10
    mov ss, eax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [rip + {stack} + {stack_bytes}]
    xor ebp, ebp
    call {entry}
    ud2

    .section .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff            # 0x10: data
boot_gdt_pointer:
    .short . - boot_gdt - 1
    .long boot_gdt

    # Written by the processor (accessed and dirty bits), hence data.
    .section .data.boot, "aw"
    .balign 4096
boot_pml4:
    .quad boot_pdpt + 3
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 3, boot_pd + 0x1003, boot_pd + 0x2003, boot_pd + 0x3003
    .fill 508, 8, 0
boot_pd:
    .set address, 0
    .rept 2048
    .quad address + 0x83                # 2 MiB, present, writable
    .set address, address + 0x200000
    .endr
