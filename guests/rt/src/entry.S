// The way from the PVH entry to Rust.
//
// Contract on entry (Xen's "PVH boot ABI"): 32-bit protected mode, paging off,
// flat segments, interrupts off, EBX = physical address of hvm_start_info.
// Contract on leaving: 64-bit mode, the first 1 GiB identity-mapped, own GDT
// and stack, interrupts off, RDI = that address; calls guest_start, which does
// not return.

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                         // bytes of name
    .long 8                         // bytes of value
    .long 18                        // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad guest_entry

    .section .text.entry, "ax", @progbits
    .code32
    .globl guest_entry
guest_entry:
    cld
    cli
    movl %ebx, %edi

    // 1. CR4.PAE, and the page tables below.
    movl %cr4, %eax
    orl $(1 << 5), %eax
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3

    // 2. EFER.LME.
    movl $0xc0000080, %ecx
    rdmsr
    orl $(1 << 8), %eax
    wrmsr

    // 3. CR0: PG, WP, NE (x87 errors as #MF), MP and ET; EM and TS off.
    movl %cr0, %eax
    andl $~((1 << 2) | (1 << 3)), %eax
    orl $((1 << 31) | (1 << 16) | (1 << 5) | (1 << 4) | (1 << 1) | 1), %eax
    movl %eax, %cr0

    // 4. Into the 64-bit code segment.
    lgdt guest_gdt_pointer
    ljmp $0x08, $guest_entry64

    .code64
guest_entry64:
    // 5. Data segments, stack, and a zero frame pointer to end back-traces.
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $guest_stack_top, %esp
    xorl %ebp, %ebp
    movl %edi, %edi
    call guest_start
    ud2

    .section .data.tables, "aw", @progbits
    .balign 4096
guest_pml4:
    .quad guest_pdpt + 0x3
    .fill 511, 8, 0
guest_pdpt:
    .quad guest_pd + 0x3
    .fill 511, 8, 0
guest_pd:
    // 512 pages of 2 MiB: present, writable, large.
    .set page, 0
    .rept 512
    .quad (page << 21) | 0x83
    .set page, page + 1
    .endr

    .balign 8
guest_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // 0x08: 64-bit code, accessed
    .quad 0x00cf93000000ffff        // 0x10: data, accessed
guest_gdt_pointer:
    .word 23
    .long guest_gdt
    .long 0

    .section .bss.stack, "aw", @nobits
    .balign 4096
    .skip 131072
guest_stack_top:
