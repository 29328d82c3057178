#include "libshared/isa/riscv64/imsic.h"

/* siselect (3.7) */
#define SELECT_DELIVERY  0x70u
#define SELECT_THRESHOLD 0x72u
#define SELECT_PENDING   0x80u /* eip0; of RV64 every other one */
#define SELECT_ENABLED   0xc0u /* eie0 */
#define SELECT_LAST      0xffu

bool riscv64_imsic_message(struct riscv64_imsic *file, uint64_t identity)
{
    if (identity == 0 || identity > RISCV64_IMSIC_IDENTITIES) {
        return false;
    }
    uint64_t bit = UINT64_C(1) << (identity % 64);
    atomic_fetch_add_explicit(&file->messages, 1, memory_order_relaxed);
    if (atomic_fetch_or(&file->pending[identity / 64], bit) & bit) {
        return false; /* who set it told the hart, or what enables it will look */
    }
    uint32_t threshold = atomic_load(&file->threshold);
    return atomic_load(&file->delivery) != 0 &&
           (atomic_load(&file->enabled[identity / 64]) & bit) != 0 &&
           (threshold == 0 || identity < threshold);
}

unsigned riscv64_imsic_top(const struct riscv64_imsic *file)
{
    for (unsigned word = 0; word < RISCV64_IMSIC_WORDS; word++) {
        uint64_t due = atomic_load(&file->pending[word]) &
                       atomic_load_explicit(&file->enabled[word], memory_order_relaxed);
        if (due != 0) {
            unsigned identity = word * 64 + (unsigned)__builtin_ctzll(due);
            uint32_t threshold = atomic_load_explicit(&file->threshold, memory_order_relaxed);
            return threshold == 0 || identity < threshold ? identity : 0;
        }
    }
    return 0;
}

void riscv64_imsic_claim(struct riscv64_imsic *file, unsigned identity)
{
    if (identity != 0 && identity <= RISCV64_IMSIC_IDENTITIES) {
        atomic_fetch_and(&file->pending[identity / 64], ~(UINT64_C(1) << (identity % 64)));
    }
}

/* --- registers ------------------------------------------------------------------------------ */

static bool is_array(uint64_t select)
{
    return select >= SELECT_PENDING && select <= SELECT_LAST;
}

bool riscv64_imsic_has(uint64_t select)
{
    return select >= SELECT_DELIVERY && select <= SELECT_LAST &&
           !(is_array(select) && select % 2 != 0);
}

/* Which word of its array a register is. False: identities so high do not exist. */
static bool array_word(uint64_t select, uint64_t *word)
{
    *word = (select - (select >= SELECT_ENABLED ? SELECT_ENABLED : SELECT_PENDING)) / 2;
    return *word < RISCV64_IMSIC_WORDS;
}

uint64_t riscv64_imsic_read(const struct riscv64_imsic *file, uint64_t select)
{
    if (is_array(select)) {
        uint64_t word;
        if (!array_word(select, &word)) {
            return 0;
        }
        return atomic_load(select >= SELECT_ENABLED ? &file->enabled[word] : &file->pending[word]);
    }
    switch (select) {
    case SELECT_DELIVERY:
        return atomic_load(&file->delivery);
    case SELECT_THRESHOLD:
        return atomic_load(&file->threshold);
    default:
        return 0;
    }
}

static void write_array(struct riscv64_imsic *file, uint64_t select, uint64_t value, uint64_t mask)
{
    uint64_t word;
    if (!array_word(select, &word)) {
        return;
    }
    if (word == 0) {
        mask &= ~UINT64_C(1); /* there is no identity 0 */
    }
    /* Bits that are not written stay what others make them meanwhile. */
    _Atomic uint64_t *bits = select >= SELECT_ENABLED ? &file->enabled[word] : &file->pending[word];
    if (value & mask) {
        atomic_fetch_or(bits, value & mask);
    }
    if (~value & mask) {
        atomic_fetch_and(bits, value | ~mask);
    }
}

void riscv64_imsic_write(struct riscv64_imsic *file, uint64_t select, uint64_t value, uint64_t mask)
{
    if (is_array(select)) {
        write_array(file, select, value, mask);
        return;
    }
    uint64_t merged = (riscv64_imsic_read(file, select) & ~mask) | (value & mask);
    if (select == SELECT_DELIVERY && merged <= 1) {
        atomic_store(&file->delivery, (uint32_t)merged); /* other values: it keeps its own */
    } else if (select == SELECT_THRESHOLD) {
        atomic_store(&file->threshold, (uint32_t)(merged & RISCV64_IMSIC_IDENTITIES));
    }
}
