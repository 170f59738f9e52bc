/* The wire formats of Xferry for C11: the extended-state blob, version 1, and
 * the domain migration stream, version 1.
 *
 * The standards are docs/src/wire-blob.md and docs/src/wire-stream.md; this
 * header says the same in C, and nothing else. All numbers on the wire are
 * little-endian. The structs have the wire's layout without padding, so on a
 * little-endian machine they may be filled by memcpy (the bytes of a file or a
 * socket need not be aligned); elsewhere each field must be converted.
 *
 * Nothing that came over a wire may be believed: check every length before
 * what it measures is read, and before a component's bytes are read, that they
 * lie in the image. read_blob.c does all of it for the blob.
 */
#ifndef XFERRY_MIGRATION_H
#define XFERRY_MIGRATION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define XFERRY_ASSERT(what) static_assert(what, #what)
#else
#define XFERRY_ASSERT(what) _Static_assert(what, #what)
#endif
#define XFERRY_AT(type, field, offset) \
    XFERRY_ASSERT(offsetof(struct type, field) == (offset))

/* ------------------------------------------------------------------ blob --
 *
 *  0        header_len         + dir_entries * dir_entry_len   + image_len
 *  | header | directory        | compacted XSAVE image          | CRC-32C |
 */

#define XFERRY_BLOB_MAGIC "XFXSTATE" /* without the final 0: 8 bytes */
#define XFERRY_BLOB_VERSION 1
#define XFERRY_BLOB_HEADER_BYTES 96
#define XFERRY_BLOB_MAX_HEADER_BYTES 128 /* a multiple of 8; skip what is beyond */
#define XFERRY_BLOB_ENTRY_BYTES 16
#define XFERRY_BLOB_MAX_ENTRY_BYTES 64 /* a multiple of 4; skip what is beyond */
#define XFERRY_BLOB_MAX_COMPONENTS 63
#define XFERRY_BLOB_MIN_IMAGE_BYTES 576
#define XFERRY_BLOB_MAX_IMAGE_BYTES 4194304
#define XFERRY_BLOB_CRC_BYTES 4

/* xferry_blob_header.incompatible; a reader refuses what it does not know. */
#define XFERRY_BLOB_CRC UINT32_C(1)      /* a CRC-32C of all before it ends the blob */
#define XFERRY_BLOB_NO_XSAVE UINT32_C(2) /* the policy has no XSAVE */

/* xferry_blob_entry.flags; others are refused. */
#define XFERRY_ENTRY_SUPERVISOR UINT32_C(1) /* enabled by IA32_XSS, not XCR0 */
#define XFERRY_ENTRY_ALIGN64 UINT32_C(2)    /* at a multiple of 64 when compacted */
#define XFERRY_ENTRY_XFD UINT32_C(4)        /* can be disabled by IA32_XFD */

struct xferry_blob_header {
    uint8_t magic[8];
    uint16_t version;
    uint16_t header_len;    /* the directory begins there */
    uint16_t dir_entry_len; /* of one entry */
    uint16_t dir_entries;   /* bits set in xstate_mask */
    uint32_t compatible;    /* may be ignored */
    uint32_t incompatible;  /* XFERRY_BLOB_... */
    uint64_t total_len;     /* of all, trailer included */
    uint64_t xstate_mask;   /* the policy: components that may ever be used */
    uint64_t xcr0;
    uint64_t xss;
    uint64_t xfd; /* the guest's, never one that the host armed */
    uint64_t xfd_err;
    uint64_t accum;    /* components that may hold state */
    uint64_t xcomp_bv; /* equal to the image's */
    uint32_t image_len;
    uint32_t reserved; /* 0 */
};
XFERRY_ASSERT(sizeof(struct xferry_blob_header) == XFERRY_BLOB_HEADER_BYTES);
XFERRY_AT(xferry_blob_header, compatible, 16);
XFERRY_AT(xferry_blob_header, total_len, 24);
XFERRY_AT(xferry_blob_header, xcomp_bv, 80);
XFERRY_AT(xferry_blob_header, image_len, 88);

/* One for each bit of xstate_mask, ascending. */
struct xferry_blob_entry {
    uint32_t index; /* 0 to 62 */
    uint32_t size;
    uint32_t flags;           /* XFERRY_ENTRY_... */
    uint32_t standard_offset; /* 0 for supervisor components */
};
XFERRY_ASSERT(sizeof(struct xferry_blob_entry) == XFERRY_BLOB_ENTRY_BYTES);

/* Places in any XSAVE image. */
#define XFERRY_IMAGE_FCW 0
#define XFERRY_IMAGE_MXCSR 24
#define XFERRY_IMAGE_XSTATE_BV 512
#define XFERRY_IMAGE_XCOMP_BV 520
#define XFERRY_IMAGE_EXTENDED 576 /* components 2 and above begin here */
#define XFERRY_XCOMP_COMPACTED (UINT64_C(1) << 63)

/* ---------------------------------------------------------------- stream -- */

#define XFERRY_STREAM_MAGIC "XFSTREAM" /* without the final 0: 8 bytes */
#define XFERRY_STREAM_VERSION 1
#define XFERRY_FRAME_HEADER_BYTES 16
#define XFERRY_MAX_PAYLOAD_BYTES 1048576
#define XFERRY_PAGE_BYTES 4096
#define XFERRY_NAME_BYTES 32
#define XFERRY_MAX_LEAVES 256
#define XFERRY_MAX_VCPUS 4096
#define XFERRY_MAX_PAGES 64
#define XFERRY_MAX_OUTPUT_BYTES 4096
#define XFERRY_MAX_TEXT_BYTES 512
#define XFERRY_HANDOVER_VERSION 1

/* xferry_frame_header.flags: who does not know the type skips the record. */
#define XFERRY_FRAME_OPTIONAL UINT16_C(1)

/* In front of each payload. */
struct xferry_frame_header {
    uint32_t length;   /* of the payload */
    uint16_t type;     /* enum xferry_record */
    uint16_t flags;
    uint32_t sequence; /* counts the frames of one direction from 0, wrapping */
    uint32_t crc;      /* CRC-32C of these 16 bytes with this field 0, then of the payload */
};
XFERRY_ASSERT(sizeof(struct xferry_frame_header) == XFERRY_FRAME_HEADER_BYTES);

enum xferry_record {
    XFERRY_HEADER = 1,         /* struct xferry_stream_header */
    XFERRY_DOMAIN = 2,         /* struct xferry_domain, then its leaves */
    XFERRY_PAGES = 3,          /* struct xferry_pages, then the pages */
    XFERRY_ZERO_PAGES = 4,     /* struct xferry_zero_pages */
    XFERRY_CONSOLE = 5,        /* struct xferry_console, then the output */
    XFERRY_VCPU_REGISTERS = 6, /* struct xferry_vcpu_registers */
    XFERRY_VCPU_XSTATE = 7,    /* struct xferry_vcpu_xstate, then a blob */
    XFERRY_END = 8,            /* struct xferry_end */
    /* Messages of the handover: struct xferry_message, then what is said here. */
    XFERRY_HELLO = 0x100,   /* struct xferry_speaker: enum xferry_role */
    XFERRY_ACCEPT = 0x101,  /* nothing */
    XFERRY_REFUSE = 0x102,  /* struct xferry_reason, then its text */
    XFERRY_READY = 0x103,   /* nothing */
    XFERRY_COMMIT = 0x104,  /* nothing */
    XFERRY_RUNNING = 0x105, /* nothing */
    XFERRY_DONE = 0x106,    /* nothing */
    XFERRY_ABORT = 0x107,   /* struct xferry_reason, then its text */
    XFERRY_QUERY = 0x108,   /* nothing */
    XFERRY_STATUS = 0x109   /* struct xferry_speaker: the state, by the handover's numbers */
};

struct xferry_stream_header {
    uint8_t magic[8];
    uint16_t version;
    uint16_t header_len; /* the payload's length; skip what is beyond 48 */
    uint32_t page_size;
    uint32_t compatible;
    uint32_t incompatible; /* none is defined */
    uint8_t migration_id[16];
    uint64_t boot_nonce;
};
XFERRY_ASSERT(sizeof(struct xferry_stream_header) == 48);
XFERRY_AT(xferry_stream_header, migration_id, 24);

/* xferry_domain.flags */
#define XFERRY_DOMAIN_PAUSED UINT32_C(1)

struct xferry_domain {
    uint8_t uuid[16];
    uint8_t name[XFERRY_NAME_BYTES]; /* printable ASCII, padded with zeros */
    uint64_t memory_pages;
    uint64_t clock_ns; /* guest system time at the pause */
    uint64_t xstate_deferred;
    uint32_t vcpus;
    uint32_t tsc_khz;
    uint32_t leaf_count;
    uint32_t flags;
};
XFERRY_ASSERT(sizeof(struct xferry_domain) == 88);
XFERRY_AT(xferry_domain, memory_pages, 48);
XFERRY_AT(xferry_domain, leaf_count, 80);

struct xferry_policy_leaf {
    uint32_t leaf;
    uint32_t subleaf;
    uint32_t eax;
    uint32_t ebx;
    uint32_t ecx;
    uint32_t edx;
};
XFERRY_ASSERT(sizeof(struct xferry_policy_leaf) == 24);

struct xferry_pages {
    uint64_t first_gfn;
    uint32_t count; /* 1 to XFERRY_MAX_PAGES */
    uint32_t reserved;
};
XFERRY_ASSERT(sizeof(struct xferry_pages) == 16);

struct xferry_zero_pages {
    uint64_t first_gfn;
    uint64_t count;
};
XFERRY_ASSERT(sizeof(struct xferry_zero_pages) == 16);

struct xferry_console {
    uint8_t ier;
    uint8_t lcr;
    uint8_t mcr;
    uint8_t scr;
    uint8_t dll;
    uint8_t dlm;
    uint8_t fcr;
    uint8_t reserved;
    uint32_t output_len;
    uint32_t reserved2;
};
XFERRY_ASSERT(sizeof(struct xferry_console) == 16);

struct xferry_vcpu_xstate {
    uint32_t vcpu;
    uint32_t reserved;
};
XFERRY_ASSERT(sizeof(struct xferry_vcpu_xstate) == 8);

struct xferry_end {
    uint64_t data_pages;
    uint64_t zero_pages;
    uint32_t vcpus;
    uint32_t reserved;
};
XFERRY_ASSERT(sizeof(struct xferry_end) == 24);

/* ------------------------------------------------------------- registers -- */

#define XFERRY_REGISTERS_VERSION 1
#define XFERRY_REGISTERS_BYTES 640
#define XFERRY_EVENTS 8
#define XFERRY_NONE UINT64_MAX /* no clock page, no timer */

/* xferry_segment.attributes */
#define XFERRY_SEGMENT_UNUSABLE (UINT32_C(1) << 16)
#define XFERRY_SEGMENT_ATTRIBUTES UINT32_C(0x1f0ff) /* every bit that may be set */

struct xferry_segment {
    uint64_t base;
    uint32_t limit; /* in bytes */
    uint16_t selector;
    uint16_t reserved;
    uint32_t attributes; /* as in a VMCS: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15 */
    uint32_t reserved2;
};
XFERRY_ASSERT(sizeof(struct xferry_segment) == 24);

struct xferry_table {
    uint64_t base;
    uint32_t limit; /* at most 0xffff */
    uint32_t reserved;
};
XFERRY_ASSERT(sizeof(struct xferry_table) == 16);

/* xferry_event.kind; XFERRY_EVENT_INTERRUPTED is added to it. */
#define XFERRY_EVENT_NONE 0
#define XFERRY_EVENT_INTERRUPT 1
#define XFERRY_EVENT_NMI 2
#define XFERRY_EVENT_EXCEPTION 3
#define XFERRY_EVENT_SOFTWARE_INTERRUPT 4
#define XFERRY_EVENT_SOFTWARE_EXCEPTION 5
#define XFERRY_EVENT_INTERRUPTED 0x80

struct xferry_event {
    uint8_t kind;
    uint8_t vector;
    uint8_t has_error;
    uint8_t insn_len;
    uint32_t error_code;
};
XFERRY_ASSERT(sizeof(struct xferry_event) == 8);

struct xferry_registers {
    uint64_t gpr[16]; /* RAX RCX RDX RBX RSP RBP RSI RDI R8 ... R15 */
    uint64_t rip;
    uint64_t rflags;
    uint64_t cr0;
    uint64_t cr2;
    uint64_t cr3;
    uint64_t cr4;
    uint64_t cr8;
    uint64_t efer;
    uint64_t dr0;
    uint64_t dr1;
    uint64_t dr2;
    uint64_t dr3;
    uint64_t dr6;
    uint64_t dr7;
    struct xferry_segment es;
    struct xferry_segment cs;
    struct xferry_segment ss;
    struct xferry_segment ds;
    struct xferry_segment fs;
    struct xferry_segment gs;
    struct xferry_segment ldtr;
    struct xferry_segment tr;
    struct xferry_table gdtr;
    struct xferry_table idtr;
    uint64_t star;
    uint64_t lstar;
    uint64_t cstar;
    uint64_t sfmask;
    uint64_t kernel_gs_base;
    uint64_t sysenter_cs;
    uint64_t sysenter_esp;
    uint64_t sysenter_eip;
    uint64_t pat;
    uint64_t tsc_aux;
    uint64_t debugctl;
    uint64_t s_cet;
    uint64_t ssp;
    uint64_t isst;
    uint64_t tsc;
    struct xferry_event pending_event;
    uint8_t interrupt_shadow; /* 0 none, 1 STI, 2 MOV SS */
    uint8_t nmi_blocked;      /* 0 or 1 */
    uint8_t activity;         /* 0 running, 1 halted, 2 shutdown, 3 waits for SIPI */
    uint8_t reserved[5];
    uint64_t pending_debug;
    uint64_t clock_page_gpa;    /* or XFERRY_NONE */
    uint64_t timer_deadline_ns; /* or XFERRY_NONE */
    uint8_t event_vectors[XFERRY_EVENTS];
    uint64_t pending_events;
};
XFERRY_ASSERT(sizeof(struct xferry_registers) == XFERRY_REGISTERS_BYTES);
XFERRY_AT(xferry_registers, rip, 128);
XFERRY_AT(xferry_registers, es, 240);
XFERRY_AT(xferry_registers, gdtr, 432);
XFERRY_AT(xferry_registers, star, 464);
XFERRY_AT(xferry_registers, pending_event, 584);
XFERRY_AT(xferry_registers, pending_debug, 600);
XFERRY_AT(xferry_registers, pending_events, 632);

struct xferry_vcpu_registers {
    uint32_t vcpu;
    uint16_t version; /* XFERRY_REGISTERS_VERSION */
    uint16_t length;  /* XFERRY_REGISTERS_BYTES */
    struct xferry_registers registers;
};
XFERRY_ASSERT(sizeof(struct xferry_vcpu_registers) == 8 + XFERRY_REGISTERS_BYTES);

/* -------------------------------------------------------------- handover -- */

struct xferry_message {
    uint16_t version; /* XFERRY_HANDOVER_VERSION, independent of the stream's */
    uint16_t reserved;
    uint32_t reserved2;
    uint8_t migration_id[16];
};
XFERRY_ASSERT(sizeof(struct xferry_message) == 24);

enum xferry_role { XFERRY_SOURCE = 1, XFERRY_RECEIVER = 2 };

struct xferry_speaker {
    uint32_t code; /* HELLO: enum xferry_role; STATUS: a state */
    uint32_t reserved;
    uint64_t boot_nonce;
};
XFERRY_ASSERT(sizeof(struct xferry_speaker) == 16);

struct xferry_reason {
    uint32_t error;    /* errno, 0 for none */
    uint32_t reason;   /* code of the rule that was broken, 0 for none */
    uint32_t text_len; /* at most XFERRY_MAX_TEXT_BYTES, UTF-8 */
    uint32_t reserved;
};
XFERRY_ASSERT(sizeof(struct xferry_reason) == 16);

#endif /* XFERRY_MIGRATION_H */
