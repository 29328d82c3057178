#include "libshared/jit/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define JOURNAL_MAGIC   UINT32_C(0x4c4a5650) /* "PVJL" */
#define JOURNAL_VERSION 1u

struct journal *journal_map(int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return NULL;
    }
    if ((uint64_t)status.st_size < sizeof(struct journal)) {
        errno = EINVAL;
        return NULL;
    }
    struct journal *journal =
        mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (journal == MAP_FAILED) {
        return NULL;
    }
    if (journal->magic != JOURNAL_MAGIC || journal->version != JOURNAL_VERSION) {
        memset(journal->suspects, 0, sizeof(journal->suspects));
        for (unsigned i = 0; i < JOURNAL_SLOTS; i++) {
            atomic_store(&journal->slots[i].busy, 0);
        }
        journal->next_suspect = 0;
        journal->magic = JOURNAL_MAGIC;
        journal->version = JOURNAL_VERSION;
    }
    return journal;
}

void journal_unmap(struct journal *journal)
{
    if (journal) {
        munmap(journal, sizeof(*journal));
    }
}

void journal_begin(struct journal *journal, unsigned slot, const struct cache_subject *subject)
{
    struct journal_slot *to = &journal->slots[slot];

    to->size = (uint32_t)subject->packed_size;
    memcpy(to->packed, subject->packed, subject->packed_size);
    atomic_store_explicit(&to->busy, 1, memory_order_release);
}

void journal_end(struct journal *journal, unsigned slot)
{
    atomic_store_explicit(&journal->slots[slot].busy, 0, memory_order_release);
}

static struct journal_suspect *suspect_find(struct journal *journal, const struct cache_key *key)
{
    for (unsigned i = 0; i < JOURNAL_SUSPECTS; i++) {
        if (journal->suspects[i].deaths && !memcmp(&journal->suspects[i].key, key, sizeof(*key))) {
            return &journal->suspects[i];
        }
    }
    return NULL;
}

unsigned journal_deaths(const struct journal *journal, const struct cache_key *key)
{
    const struct journal_suspect *suspect = suspect_find((struct journal *)journal, key);

    return suspect ? suspect->deaths : 0;
}

void journal_pardon(struct journal *journal, const struct cache_key *key)
{
    struct journal_suspect *suspect = suspect_find(journal, key);

    if (suspect) {
        suspect->deaths = 0;
    }
}

/* The deaths of this job, this one included. */
static unsigned suspect_note(struct journal *journal, const struct cache_key *key)
{
    struct journal_suspect *suspect = suspect_find(journal, key);

    if (!suspect) {
        suspect = &journal->suspects[journal->next_suspect % JOURNAL_SUSPECTS];
        journal->next_suspect = (journal->next_suspect + 1) % JOURNAL_SUSPECTS;
        suspect->key = *key;
        suspect->deaths = 0;
    }
    if (suspect->deaths < JOURNAL_DEATHS) {
        suspect->deaths++;
    }
    return suspect->deaths;
}

static bool slot_subject(const struct journal_slot *slot, const char *identity,
                         struct region *region, struct cache_subject *subject)
{
    size_t size = slot->size;

    if (size > sizeof(subject->packed)) {
        return false;
    }
    memcpy(subject->packed, slot->packed, size);
    if (!region_unpack(region, subject->packed, size, NULL)) {
        return false;
    }
    cache_subject_of(region, identity, subject);
    return true;
}

void journal_settle(struct journal *journal, bool crashed, const char *identity,
                    journal_suspect_fn *suspected, void *context)
{
    struct cache_subject *subject = malloc(sizeof(*subject));
    struct region *region = malloc(sizeof(*region));

    for (unsigned i = 0; i < JOURNAL_SLOTS; i++) {
        struct journal_slot *slot = &journal->slots[i];
        if (atomic_exchange(&slot->busy, 0) && crashed && subject && region &&
            slot_subject(slot, identity, region, subject)) {
            suspected(region, subject, suspect_note(journal, &subject->key), context);
        }
    }
    free(region);
    free(subject);
}
