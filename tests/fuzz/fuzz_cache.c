/*
 * What jitd finds when it starts: entries of the code cache that anybody may have written, with a
 * checksum that holds or not, and the journal of a life that ran wild before it ended.
 */
#include "libshared/jit/cache_entry.h"
#include "libshared/jit/journal.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/unit/jit_sample.h"
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#define CHECKSUM 48u /* where it stands in an entry, 16 bytes */

static volatile uint8_t sink;

static void touch(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sink = (uint8_t)(sink ^ ((const uint8_t *)bytes)[i]);
    }
}

static void sign(uint8_t *bytes, size_t size)
{
    XXH128_canonical_t canonical;

    memset(bytes + CHECKSUM, 0, 16);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, size));
    memcpy(bytes + CHECKSUM, canonical.digest, 16);
}

/* A sound region that was changed here and there; sound or not. */
static void take_region(struct fuzz_input *input, struct region *region)
{
    jit_sample_region(region, (uint32_t)fuzz_take(input, 1));
    for (unsigned count = fuzz_pick(input, 6); count > 0; count--) {
        struct region_block *block = &region->blocks[fuzz_pick(input, 4)];
        switch (fuzz_pick(input, 8)) {
        case 0:
            block->page = (uint8_t)fuzz_number(input);
            break;
        case 1:
            block->start = (uint16_t)fuzz_number(input);
            break;
        case 2:
            block->length = (uint16_t)fuzz_number(input);
            break;
        case 3:
            block->bytes = (uint16_t)fuzz_number(input);
            break;
        case 4:
            region->block_count = (uint16_t)(fuzz_number(input) % (REGION_BLOCKS_MAX + 1));
            break;
        case 5:
            region->edge_count = (uint16_t)(fuzz_number(input) % (REGION_EDGES_MAX + 1));
            break;
        case 6:
            region->page_delta[fuzz_pick(input, 4)] = (int32_t)fuzz_number(input);
            break;
        default:
            region->edges[fuzz_pick(input, 4)].to = (uint16_t)fuzz_number(input);
            break;
        }
    }
}

static void entry(struct fuzz_input *input)
{
    static struct cache_subject subject;
    static struct cache_entry read;
    static struct region region;
    uint8_t blob[JIT_SAMPLE_BLOB];
    size_t size = 0;

    take_region(input, &region);
    if (region_check(&region)) { /* unsound: its message is made of a sound one */
        jit_sample_region(&region, 1);
    }
    jit_sample_blob(&region, 0x90, blob);
    for (unsigned count = fuzz_pick(input, 4); count > 0; count--) {
        blob[fuzz_pick(input, 24)] = (uint8_t)fuzz_take(input, 1);
    }
    cache_subject_of(&region, "a compiler", &subject);
    uint8_t *bytes = cache_entry_write(&subject, blob, sizeof(blob), &size);
    fuzz_require(bytes != NULL, "memory");
    for (unsigned count = fuzz_pick(input, 5); count > 0; count--) {
        bytes[fuzz_number(input) % size] = (uint8_t)fuzz_take(input, 1);
    }
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    if (!(how & 1)) {
        sign(bytes, size);
    }
    size_t short_by = how & 2 ? (size_t)fuzz_take(input, 1) : 0;
    size_t length = short_by < size ? size - short_by : 0;
    uint8_t *copy = malloc(length ? length : 1);
    fuzz_require(copy != NULL, "memory");
    memcpy(copy, bytes, length);
    if (!cache_entry_read(&read, copy, length)) {
        touch(read.identity, read.identity_size);
        touch(read.packed, read.packed_size);
        touch(read.blob, read.blob_size);
        fuzz_require(!region_check(&read.region), "an entry's region is sound");
    }
    free(copy);
    free(bytes);
}

static void suspected(const struct region *region, const struct cache_subject *subject,
                      unsigned deaths, void *context)
{
    unsigned *count = context;

    fuzz_require(!region_check(region), "a suspect is sound");
    fuzz_require(deaths >= 1, "a suspect has died");
    fuzz_require(subject->packed_size <= sizeof(subject->packed), "a subject fits");
    touch(subject->packed, subject->packed_size);
    ++*count;
}

static void journal(struct fuzz_input *input)
{
    static struct cache_subject subject;
    static struct region region;
    static int fd = -1;
    unsigned count = 0;

    if (fd < 0) {
        fd = memfd_create("journal", MFD_CLOEXEC);
    }
    fuzz_require(ftruncate(fd, 0) == 0 && ftruncate(fd, sizeof(struct journal)) == 0, "a journal");
    struct journal *log = journal_map(fd);
    fuzz_require(log != NULL, "a journal");
    while (input->size) {
        unsigned slot = fuzz_pick(input, JOURNAL_SLOTS);
        size_t at;
        switch (fuzz_pick(input, 6)) {
        case 0:
            take_region(input, &region);
            if (!region_check(&region)) {
                cache_subject_of(&region, "a compiler", &subject);
                journal_begin(log, slot, &subject);
            }
            break;
        case 1:
            journal_end(log, slot);
            break;
        case 2: /* run wild: over the head and the suspects, or a slot */
            at = (size_t)fuzz_take(input, 2) % offsetof(struct journal, slots);
            ((uint8_t *)log)[at] = (uint8_t)fuzz_take(input, 1);
            break;
        case 3:
            at = (size_t)fuzz_take(input, 1) % 64;
            ((uint8_t *)&log->slots[slot])[at] = (uint8_t)fuzz_take(input, 1);
            break;
        case 4:
            journal_unmap(log);
            log = journal_map(fd);
            fuzz_require(log != NULL, "a journal");
            break;
        default:
            journal_settle(log, fuzz_take(input, 1) & 1, "a compiler", suspected, &count);
            break;
        }
        if (subject.packed_size) {
            journal_deaths(log, &subject.key);
        }
    }
    journal_unmap(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (fuzz_take(&input, 1) & 1) {
        journal(&input);
    } else {
        entry(&input);
    }
    return 0;
}
