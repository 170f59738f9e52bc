/* Lists the frames of a migration stream and what they say, page contents left
 * out. Checks lengths and checksums; the order of records is the book's to
 * tell. Needs a C11 compiler and a little-endian machine:
 *
 *     cc -std=c11 -Wall -Wextra -pedantic -o list_stream list_stream.c
 *     ./list_stream stream.bin
 */
#include "xferry_migration.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint8_t payload[XFERRY_MAX_PAYLOAD_BYTES];

/* CRC-32C, one bit at a time; `crc` is all ones at the start, inverted at the end. */
static uint32_t extend(uint32_t crc, const void *data, size_t count)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < count; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
    }
    return crc;
}

static uint32_t checksum(struct xferry_frame_header header)
{
    header.crc = 0;
    return ~extend(extend(UINT32_MAX, &header, sizeof header), payload, header.length);
}

/* Copies a record out of the payload; 0 where the payload is shorter. */
#define TAKE(record, length) \
    ((length) >= sizeof(record) && memcpy(&(record), payload, sizeof(record)))

/* The same of a record that is followed by `count` things of `size` bytes. */
static int exactly(uint32_t length, size_t record, uint64_t count, size_t size)
{
    return length >= record && count <= XFERRY_MAX_PAYLOAD_BYTES && length - record == count * size;
}

static void id(const uint8_t *bytes)
{
    for (int i = 0; i < 16; i++)
        printf("%02x", bytes[i]);
}

static int print_record(const struct xferry_frame_header *frame)
{
    uint32_t length = frame->length;
    switch (frame->type) {
    case XFERRY_HEADER: {
        struct xferry_stream_header h;
        if (!TAKE(h, length) || memcmp(h.magic, XFERRY_STREAM_MAGIC, 8) != 0 || h.header_len != length)
            return 0;
        printf("header version %u id ", h.version);
        id(h.migration_id);
        printf(" boot %" PRIx64 "\n", h.boot_nonce);
        return 1;
    }
    case XFERRY_DOMAIN: {
        struct xferry_domain d;
        if (!TAKE(d, length) || !exactly(length, sizeof d, d.leaf_count, sizeof(struct xferry_policy_leaf)))
            return 0;
        printf("domain %.32s pages %" PRIu64 " clock %" PRIu64 " deferred %" PRIx64
               " vcpus %" PRIu32 " tsc %" PRIu32 " paused %" PRIu32 "\n",
               (const char *)d.name, d.memory_pages, d.clock_ns, d.xstate_deferred, d.vcpus, d.tsc_khz,
               d.flags & XFERRY_DOMAIN_PAUSED);
        for (uint32_t i = 0; i < d.leaf_count; i++) {
            struct xferry_policy_leaf leaf;
            memcpy(&leaf, payload + sizeof d + (size_t)i * sizeof leaf, sizeof leaf);
            printf("leaf %" PRIx32 ".%" PRIx32 " %" PRIx32 " %" PRIx32 " %" PRIx32 " %" PRIx32 "\n",
                   leaf.leaf, leaf.subleaf, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx);
        }
        return 1;
    }
    case XFERRY_PAGES: {
        struct xferry_pages p;
        if (!TAKE(p, length) || !exactly(length, sizeof p, p.count, XFERRY_PAGE_BYTES))
            return 0;
        printf("pages %" PRIu64 " from %" PRIx64 "\n", (uint64_t)p.count, p.first_gfn);
        return 1;
    }
    case XFERRY_ZERO_PAGES: {
        struct xferry_zero_pages p;
        if (!TAKE(p, length) || length != sizeof p)
            return 0;
        printf("zero pages %" PRIu64 " from %" PRIx64 "\n", p.count, p.first_gfn);
        return 1;
    }
    case XFERRY_CONSOLE: {
        struct xferry_console c;
        if (!TAKE(c, length) || !exactly(length, sizeof c, c.output_len, 1))
            return 0;
        printf("console ier %x lcr %x mcr %x scr %x dll %x dlm %x fcr %x unread %" PRIu32 "\n", c.ier,
               c.lcr, c.mcr, c.scr, c.dll, c.dlm, c.fcr, c.output_len);
        return 1;
    }
    case XFERRY_VCPU_REGISTERS: {
        struct xferry_vcpu_registers v;
        if (!TAKE(v, length) || length != sizeof v)
            return 0;
        const struct xferry_registers *r = &v.registers;
        printf("vcpu %" PRIu32 " rip %" PRIx64 " rsp %" PRIx64 " cr3 %" PRIx64 " cs %x gs base %" PRIx64
               " tsc %" PRIu64 " event %x/%u timer %" PRIu64 "\n",
               v.vcpu, r->rip, r->gpr[4], r->cr3, r->cs.selector, r->gs.base, r->tsc,
               r->pending_event.kind, r->pending_event.vector, r->timer_deadline_ns);
        return 1;
    }
    case XFERRY_VCPU_XSTATE: {
        struct xferry_vcpu_xstate x;
        if (!TAKE(x, length))
            return 0;
        printf("vcpu %" PRIu32 " blob of %zu bytes\n", x.vcpu, (size_t)length - sizeof x);
        return 1;
    }
    case XFERRY_END: {
        struct xferry_end e;
        if (!TAKE(e, length) || length != sizeof e)
            return 0;
        printf("end data %" PRIu64 " zero %" PRIu64 " vcpus %" PRIu32 "\n", e.data_pages, e.zero_pages,
               e.vcpus);
        return 1;
    }
    case XFERRY_HELLO:
    case XFERRY_STATUS: {
        struct xferry_message m;
        struct xferry_speaker s;
        if (!TAKE(m, length) || length != sizeof m + sizeof s)
            return 0;
        memcpy(&s, payload + sizeof m, sizeof s);
        if (frame->type == XFERRY_STATUS)
            printf("status %" PRIu32, s.code);
        else
            printf("hello from the %s", s.code == XFERRY_SOURCE ? "source" : "receiver");
        printf(", boot %" PRIx64 ", id ", s.boot_nonce);
        id(m.migration_id);
        printf("\n");
        return 1;
    }
    case XFERRY_REFUSE:
    case XFERRY_ABORT: {
        struct xferry_reason r;
        size_t at = sizeof(struct xferry_message);
        if (length < at + sizeof r)
            return 0;
        memcpy(&r, payload + at, sizeof r);
        if (!exactly(length, at + sizeof r, r.text_len, 1))
            return 0;
        printf("%s: error %" PRIu32 ", rule %" PRIx32 "\n", frame->type == XFERRY_REFUSE ? "refuse" : "abort",
               r.error, r.reason);
        return 1;
    }
    case XFERRY_ACCEPT:
    case XFERRY_READY:
    case XFERRY_COMMIT:
    case XFERRY_RUNNING:
    case XFERRY_DONE:
    case XFERRY_QUERY:
        printf("message %x\n", frame->type);
        return length == sizeof(struct xferry_message);
    default:
        /* Who does not know it skips it, if it may be skipped. */
        printf("type %x\n", frame->type);
        return frame->flags & XFERRY_FRAME_OPTIONAL;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: list_stream FILE\n");
        return 2;
    }
    FILE *file = fopen(argv[1], "rb");
    if (!file) {
        perror(argv[1]);
        return 2;
    }
    struct xferry_frame_header frame;
    size_t got;
    int right = 1;
    while (right && (got = fread(&frame, 1, sizeof frame, file)) != 0) {
        right = got == sizeof frame && frame.length <= XFERRY_MAX_PAYLOAD_BYTES &&
                (frame.flags & ~XFERRY_FRAME_OPTIONAL) == 0 &&
                fread(payload, 1, frame.length, file) == frame.length && frame.crc == checksum(frame);
        if (right) {
            printf("%3" PRIu32 " ", frame.sequence);
            right = print_record(&frame);
        }
        if (!right && !ferror(file))
            fprintf(stderr, "a frame is short, damaged or unknown\n");
    }
    if (ferror(file)) {
        perror(argv[1]);
        fclose(file);
        return 2;
    }
    fclose(file);
    return right ? 0 : 1;
}
