/* Reads an extended-state blob, checks all that the format says and that its
 * components lie in its image, and prints what is in it. Needs a C11 compiler and a little-endian machine:
 *
 *     cc -std=c11 -Wall -Wextra -pedantic -o read_blob read_blob.c
 *     ./read_blob blob.bin
 *
 * What the state means (may this host take it, are the registers' values
 * legal) is another question, which the format does not answer.
 */
#include "xferry_migration.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The largest blob there can be. */
#define MAX_BLOB                                                              \
    (XFERRY_BLOB_MAX_HEADER_BYTES +                                           \
     XFERRY_BLOB_MAX_COMPONENTS * XFERRY_BLOB_MAX_ENTRY_BYTES +               \
     XFERRY_BLOB_MAX_IMAGE_BYTES + XFERRY_BLOB_CRC_BYTES)

static uint8_t bytes[MAX_BLOB + 1];
static size_t length;

/* A blob whose lengths are in order: where its parts are. */
struct blob {
    struct xferry_blob_header header;
    size_t directory;
    size_t image;
    bool crc;
};

/* The rule that is broken, by the name that the book has, and where. */
static bool broken(const char *rule, size_t offset)
{
    fprintf(stderr, "%s at byte %zu\n", rule, offset);
    return false;
}

/* Numbers are copied out: nothing says that they are aligned. */
static uint64_t u64_at(size_t offset)
{
    uint64_t value;
    memcpy(&value, bytes + offset, sizeof value);
    return value;
}

static struct xferry_blob_entry entry_at(const struct blob *blob, unsigned number)
{
    struct xferry_blob_entry entry;
    memcpy(&entry, bytes + blob->directory + (size_t)number * blob->header.dir_entry_len,
           sizeof entry);
    return entry;
}

/* CRC-32C, one bit at a time. */
static uint32_t crc32c(const uint8_t *data, size_t count)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
    }
    return ~crc;
}

static unsigned bits(uint64_t mask)
{
    unsigned count = 0;
    for (; mask; mask &= mask - 1)
        count++;
    return count;
}

#define FIELD(field) offsetof(struct xferry_blob_header, field)

/* The header's own rules, then its lengths: nothing beyond the header is read. */
static bool read_header(struct blob *blob)
{
    struct xferry_blob_header *h = &blob->header;
    /* Of every version the first ten bytes mean the same. */
    if (length < 8)
        return broken("blob-length", 0);
    if (memcmp(bytes, XFERRY_BLOB_MAGIC, 8) != 0)
        return broken("blob-magic", 0);
    if (length < 10)
        return broken("blob-length", 0);
    memcpy(&h->version, bytes + FIELD(version), sizeof h->version);
    if (h->version != XFERRY_BLOB_VERSION)
        return broken("blob-version", FIELD(version));
    if (length < sizeof *h)
        return broken("blob-length", 0);
    memcpy(h, bytes, sizeof *h);
    if (h->incompatible & ~(XFERRY_BLOB_CRC | XFERRY_BLOB_NO_XSAVE))
        return broken("blob-incompatible", FIELD(incompatible));
    if (h->header_len < XFERRY_BLOB_HEADER_BYTES ||
        h->header_len > XFERRY_BLOB_MAX_HEADER_BYTES || h->header_len % 8)
        return broken("blob-header-length", FIELD(header_len));
    if (h->dir_entry_len < XFERRY_BLOB_ENTRY_BYTES ||
        h->dir_entry_len > XFERRY_BLOB_MAX_ENTRY_BYTES || h->dir_entry_len % 4)
        return broken("blob-entry-length", FIELD(dir_entry_len));
    if (h->dir_entries > XFERRY_BLOB_MAX_COMPONENTS)
        return broken("blob-directory", FIELD(dir_entries));
    if (h->xstate_mask >> XFERRY_BLOB_MAX_COMPONENTS)
        return broken("blob-mask", FIELD(xstate_mask));
    if (h->image_len < XFERRY_BLOB_MIN_IMAGE_BYTES || h->image_len > XFERRY_BLOB_MAX_IMAGE_BYTES)
        return broken("blob-image-length", FIELD(image_len));
    if (h->reserved)
        return broken("blob-reserved", FIELD(reserved));

    blob->crc = h->incompatible & XFERRY_BLOB_CRC;
    blob->directory = h->header_len;
    blob->image = blob->directory + (size_t)h->dir_entries * h->dir_entry_len;
    size_t total = blob->image + h->image_len + (blob->crc ? XFERRY_BLOB_CRC_BYTES : 0);
    if (h->total_len != total)
        return broken("blob-total", FIELD(total_len));
    if (length != total)
        return broken("blob-length", 0);
    return true;
}

/* xstate_mask spelled out: each component once, ascending. */
static bool check_directory(const struct blob *blob)
{
    uint64_t left = blob->header.xstate_mask;
    if (blob->header.dir_entries != bits(left))
        return broken("blob-directory", FIELD(dir_entries));
    for (unsigned i = 0; i < blob->header.dir_entries; i++, left &= left - 1) {
        struct xferry_blob_entry entry = entry_at(blob, i);
        size_t at = blob->directory + (size_t)i * blob->header.dir_entry_len;
        if (entry.index > 62 || UINT64_C(1) << entry.index != (left & (~left + 1)))
            return broken("blob-directory", at);
        if (entry.flags & ~(XFERRY_ENTRY_SUPERVISOR | XFERRY_ENTRY_ALIGN64 | XFERRY_ENTRY_XFD))
            return broken("blob-entry-flags", at + 8);
        /* x87 and SSE have no leaf of their own: there is one way to write them. */
        if (entry.index < 2) {
            if (entry.size != (entry.index ? 256 : 160))
                return broken("blob-legacy-entry", at + 4);
            if (entry.flags)
                return broken("blob-legacy-entry", at + 8);
            if (entry.standard_offset != (entry.index ? 160 : 0))
                return broken("blob-legacy-entry", at + 12);
        }
        if (entry.flags & XFERRY_ENTRY_SUPERVISOR && entry.standard_offset)
            return broken("blob-supervisor-offset", at + 12);
    }
    return true;
}

static bool read_blob(struct blob *blob)
{
    if (!read_header(blob))
        return false;
    /* The checksum before anything past the header is believed. */
    if (blob->crc) {
        uint32_t trailer;
        size_t covered = length - sizeof trailer;
        memcpy(&trailer, bytes + covered, sizeof trailer);
        if (trailer != crc32c(bytes, covered))
            return broken("blob-crc", covered);
    }
    if (!check_directory(blob))
        return false;
    if (u64_at(blob->image + XFERRY_IMAGE_XCOMP_BV) != blob->header.xcomp_bv)
        return broken("blob-xcomp-bv", blob->image + XFERRY_IMAGE_XCOMP_BV);
    return true;
}

/* Where a component begins that is not in the legacy region, and the next one
 * after it: SDM Vol. 1, 13.4.3, by the directory's sizes. 63 sizes of 32 bits
 * do not overflow 64. */
static uint64_t place(const struct xferry_blob_entry *entry, uint64_t *next)
{
    uint64_t at = *next;
    if (entry->flags & XFERRY_ENTRY_ALIGN64)
        at = (at + 63) / 64 * 64;
    *next = at + entry->size;
    return at;
}

/* Whether every component lies within the image: without this, no byte of one
 * may be read. The format leaves it to whoever takes the state. */
static bool check_components(const struct blob *blob)
{
    uint64_t layout = blob->header.xcomp_bv;
    uint64_t xstate_bv = u64_at(blob->image + XFERRY_IMAGE_XSTATE_BV);
    if (!(layout & XFERRY_XCOMP_COMPACTED))
        return broken("xcomp-bv-bit-63", FIELD(xcomp_bv));
    layout &= ~XFERRY_XCOMP_COMPACTED;
    if (layout & ~blob->header.xstate_mask)
        return broken("xcomp-bv-policy", FIELD(xcomp_bv));
    if (xstate_bv & ~layout)
        return broken("xstate-bv-xcomp-bv", blob->image + XFERRY_IMAGE_XSTATE_BV);
    uint64_t end = XFERRY_IMAGE_EXTENDED;
    for (unsigned i = 0; i < blob->header.dir_entries; i++) {
        struct xferry_blob_entry entry = entry_at(blob, i);
        if (entry.index >= 2 && layout >> entry.index & 1)
            place(&entry, &end);
    }
    if (end != blob->header.image_len)
        return broken("image-length", FIELD(image_len));
    return true;
}

/* Names of the components that have one; the format needs none of them. */
static const char *name(uint32_t index)
{
    static const char *const names[] = {
        "x87",  "sse",   "avx",   "bndregs", "bndcsr", "opmask", "zmm_hi256", "hi16_zmm", "pt",  "pkru",
        "pasid", "cet_u", "cet_s", "hdc",     "uintr",  "lbr",    "hwp",       "tilecfg",  "tiledata", "apx",
    };
    return index < sizeof names / sizeof *names ? names[index] : index == 62 ? "lwp" : "?";
}

static void print_registers(const struct xferry_blob_header *h)
{
    printf("blob version %u, %" PRIu64 " bytes%s%s\n", h->version, h->total_len,
           h->incompatible & XFERRY_BLOB_CRC ? ", checksum right" : "",
           h->incompatible & XFERRY_BLOB_NO_XSAVE ? ", policy without XSAVE" : "");
    printf("xstate_mask 0x%" PRIx64 "\n", h->xstate_mask);
    printf("xcr0 0x%" PRIx64 "\n", h->xcr0);
    printf("xss 0x%" PRIx64 "\n", h->xss);
    printf("xfd 0x%" PRIx64 "\n", h->xfd);
    printf("xfd_err 0x%" PRIx64 "\n", h->xfd_err);
    printf("accum 0x%" PRIx64 "\n", h->accum);
    printf("xcomp_bv 0x%" PRIx64 "\n", h->xcomp_bv);
}

/* Where each component is. */
static void print_components(const struct blob *blob)
{
    uint64_t xstate_bv = u64_at(blob->image + XFERRY_IMAGE_XSTATE_BV);
    uint64_t next = XFERRY_IMAGE_EXTENDED;
    for (unsigned i = 0; i < blob->header.dir_entries; i++) {
        struct xferry_blob_entry entry = entry_at(blob, i);
        bool there = entry.index < 2 || blob->header.xcomp_bv >> entry.index & 1;
        bool held = xstate_bv >> entry.index & 1;
        printf("%2" PRIu32 " %-9s %5" PRIu32 " bytes", entry.index, name(entry.index), entry.size);
        if (there) {
            /* The legacy region is the same in both forms. */
            uint64_t at = entry.index < 2 ? entry.standard_offset : place(&entry, &next);
            printf(" at %5" PRIu64 " %s\n", at, held ? "held" : "INIT");
        } else {
            printf(" not in the image: INIT\n");
        }
    }
    /* MXCSR of a compacted image counts with XSTATE_BV[1] alone. */
    uint32_t mxcsr = 0x1f80;
    if (xstate_bv & 2)
        memcpy(&mxcsr, bytes + blob->image + XFERRY_IMAGE_MXCSR, sizeof mxcsr);
    printf("mxcsr 0x%" PRIx32 "\n", mxcsr);
    printf("image %" PRIu32 " bytes at %zu, components end at %" PRIu64 "\n", blob->header.image_len,
           blob->image, next);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: read_blob FILE\n");
        return 2;
    }
    FILE *file = fopen(argv[1], "rb");
    if (!file) {
        perror(argv[1]);
        return 2;
    }
    /* One byte more than the largest: what is longer breaks a length. */
    length = fread(bytes, 1, sizeof bytes, file);
    if (ferror(file)) {
        perror(argv[1]);
        fclose(file);
        return 2;
    }
    fclose(file);

    struct blob blob = {.crc = false};
    if (!read_blob(&blob) || !check_components(&blob))
        return 1;
    print_registers(&blob.header);
    print_components(&blob);
    return 0;
}
