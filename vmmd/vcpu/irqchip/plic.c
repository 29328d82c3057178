#include "vmmd/vcpu/irqchip/plic.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORDS             ((PLIC_SOURCES_MAX + 32) / 32)
#define PENDING_BASE      0x1000u
#define ENABLE_BASE       0x2000u
#define ENABLE_STRIDE     0x80u
#define CONTEXT_BASE      0x200000u
#define CONTEXT_STRIDE    0x1000u
#define CONTEXT_THRESHOLD 0u
#define CONTEXT_CLAIM     4u

struct plic_context {
    uint32_t enabled[WORDS];
    uint8_t threshold;
    bool output;
    struct irq_line line;
};

struct plic {
    unsigned source_count, context_count;
    pthread_mutex_t lock; /* guards what follows */
    uint8_t priority[PLIC_SOURCES_MAX + 1];
    uint32_t levels[WORDS];  /* what the devices drive */
    uint32_t claimed[WORDS]; /* claimed and not yet completed: the gateway lets nothing through */
    struct plic_context contexts[PLIC_CONTEXTS_MAX];
};

static uint32_t pending_word(const struct plic *plic, unsigned word)
{
    return plic->levels[word] & ~plic->claimed[word];
}

/* The pending, enabled source of the highest priority (lowest number first) above `floor`, or 0. */
static unsigned best_source(const struct plic *plic, const struct plic_context *context,
                            unsigned floor)
{
    unsigned best = 0;
    for (unsigned word = 0; word < WORDS; word++) {
        uint32_t candidates = pending_word(plic, word) & context->enabled[word];
        while (candidates) {
            unsigned source = word * 32 + (unsigned)__builtin_ctz(candidates);
            candidates &= candidates - 1;
            if (plic->priority[source] > floor) {
                floor = plic->priority[source];
                best = source;
            }
        }
    }
    return best;
}

static void update_context(struct plic *plic, struct plic_context *context)
{
    bool output = best_source(plic, context, context->threshold) != 0;
    if (output != context->output) {
        context->output = output;
        irq_line_set(&context->line, output);
    }
}

static void update_all(struct plic *plic)
{
    for (unsigned i = 0; i < plic->context_count; i++) {
        update_context(plic, &plic->contexts[i]);
    }
}

void plic_set_source(void *controller, unsigned source, bool level)
{
    struct plic *plic = controller;
    if (source == 0 || source > plic->source_count) {
        return;
    }
    uint32_t bit = 1u << (source % 32);
    pthread_mutex_lock(&plic->lock);
    uint32_t *word = &plic->levels[source / 32];
    uint32_t changed = level ? *word | bit : *word & ~bit;
    if (changed != *word) {
        *word = changed;
        update_all(plic);
    }
    pthread_mutex_unlock(&plic->lock);
}

/* Claiming ignores the threshold: it holds back the notification only (specification, chapter 8).
 */
static uint32_t claim(struct plic *plic, struct plic_context *context)
{
    unsigned source = best_source(plic, context, 0);
    if (source != 0) {
        plic->claimed[source / 32] |= 1u << (source % 32);
        update_all(plic);
    }
    return source;
}

static void complete(struct plic *plic, struct plic_context *context, uint32_t source)
{
    if (source == 0 || source > plic->source_count) {
        return;
    }
    uint32_t bit = 1u << (source % 32);
    if (context->enabled[source / 32] & plic->claimed[source / 32] & bit) {
        plic->claimed[source / 32] &= ~bit;
        update_all(plic);
    }
}

/* Bits of `word` that stand for sources this controller has; source 0 does not exist. */
static uint32_t valid_mask(const struct plic *plic, unsigned word)
{
    uint32_t mask = word == 0 ? ~1u : ~0u;
    unsigned last = plic->source_count;
    if (word * 32 > last) {
        return 0;
    }
    if (word == last / 32 && last % 32 != 31) {
        mask &= (1u << (last % 32 + 1)) - 1;
    }
    return mask;
}

/* Where an enable register's offset points; false: not one of ours. */
static bool enable_position(const struct plic *plic, uint64_t offset, unsigned *context,
                            unsigned *word)
{
    if (offset < ENABLE_BASE || offset >= CONTEXT_BASE) {
        return false;
    }
    *context = (unsigned)((offset - ENABLE_BASE) / ENABLE_STRIDE);
    *word = (unsigned)((offset - ENABLE_BASE) % ENABLE_STRIDE / 4);
    return *context < plic->context_count && *word < WORDS;
}

static struct plic_context *context_at(struct plic *plic, uint64_t offset, unsigned *reg)
{
    if (offset < CONTEXT_BASE) {
        return NULL;
    }
    uint64_t index = (offset - CONTEXT_BASE) / CONTEXT_STRIDE;
    *reg = (unsigned)((offset - CONTEXT_BASE) % CONTEXT_STRIDE);
    return index < plic->context_count ? &plic->contexts[index] : NULL;
}

static uint32_t read_locked(struct plic *plic, uint64_t offset)
{
    unsigned index, word, reg;
    if (offset < PENDING_BASE) {
        return offset / 4 <= plic->source_count ? plic->priority[offset / 4] : 0;
    }
    if (offset < PENDING_BASE + WORDS * 4) {
        return pending_word(plic, (unsigned)(offset - PENDING_BASE) / 4);
    }
    if (enable_position(plic, offset, &index, &word)) {
        return plic->contexts[index].enabled[word];
    }
    struct plic_context *context = context_at(plic, offset, &reg);
    if (context && reg == CONTEXT_THRESHOLD) {
        return context->threshold;
    }
    if (context && reg == CONTEXT_CLAIM) {
        return claim(plic, context);
    }
    return 0;
}

static void write_locked(struct plic *plic, uint64_t offset, uint32_t value)
{
    unsigned index, word, reg;
    if (offset < PENDING_BASE) {
        if (offset != 0 && offset / 4 <= plic->source_count) {
            plic->priority[offset / 4] = (uint8_t)(value & PLIC_PRIORITY_MAX);
            update_all(plic);
        }
        return;
    }
    if (enable_position(plic, offset, &index, &word)) {
        plic->contexts[index].enabled[word] = value & valid_mask(plic, word);
        update_context(plic, &plic->contexts[index]);
        return;
    }
    struct plic_context *context = context_at(plic, offset, &reg);
    if (context && reg == CONTEXT_THRESHOLD) {
        context->threshold = (uint8_t)(value & PLIC_PRIORITY_MAX);
        update_context(plic, context);
    } else if (context && reg == CONTEXT_CLAIM) {
        complete(plic, context, value);
    }
}

static bool plic_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct plic *plic = device;
    if (size != 4 || offset % 4 != 0) {
        return false;
    }
    pthread_mutex_lock(&plic->lock);
    *value = read_locked(plic, offset);
    pthread_mutex_unlock(&plic->lock);
    return true;
}

static bool plic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct plic *plic = device;
    if (size != 4 || offset % 4 != 0) {
        return false;
    }
    pthread_mutex_lock(&plic->lock);
    write_locked(plic, offset, (uint32_t)value);
    pthread_mutex_unlock(&plic->lock);
    return true;
}

const struct bus_ops plic_bus_ops = {.read = plic_read, .write = plic_write};

struct plic *plic_create(unsigned sources, unsigned contexts, const struct irq_line *outputs)
{
    if (sources == 0 || sources > PLIC_SOURCES_MAX || contexts == 0 ||
        contexts > PLIC_CONTEXTS_MAX) {
        return NULL;
    }
    struct plic *plic = calloc(1, sizeof(*plic));
    if (!plic) {
        return NULL;
    }
    if (pthread_mutex_init(&plic->lock, NULL) != 0) {
        free(plic);
        return NULL;
    }
    plic->source_count = sources;
    plic->context_count = contexts;
    for (unsigned i = 0; i < contexts; i++) {
        plic->contexts[i].line = outputs[i];
    }
    return plic;
}

void plic_destroy(struct plic *plic)
{
    if (plic) {
        pthread_mutex_destroy(&plic->lock);
        free(plic);
    }
}

void plic_reset(struct plic *plic)
{
    pthread_mutex_lock(&plic->lock);
    memset(plic->priority, 0, sizeof(plic->priority));
    memset(plic->claimed, 0, sizeof(plic->claimed));
    for (unsigned i = 0; i < plic->context_count; i++) {
        struct plic_context *context = &plic->contexts[i];
        memset(context->enabled, 0, sizeof(context->enabled));
        context->threshold = 0;
        context->output = false;
        irq_line_set(&context->line, false);
    }
    pthread_mutex_unlock(&plic->lock);
}
