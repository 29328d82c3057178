/* Atomic read-modify-write, load-reserved and store-conditional, fences. */
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/exclusive.h"
#include "vmmd/vcpu/engine/interp_tlb.h"

/* Old values come zero-extended. */
static inline uint64_t extend_old(uint64_t value, unsigned aux)
{
    unsigned shift = 64 - (8u << (aux & IR_MEM_SIZE));
    return aux & IR_MEM_SIGN ? (uint64_t)((int64_t)(value << shift) >> shift) : value;
}

/* --- read-modify-write ---------------------------------------------------------------------- */

INTERP_SLOW(perform_amo)
{
    uint64_t old;
    interp_sync(cpu, ip);
    if (!exclusive_amo(cpu, interp_address(cpu, ip), ip->mem.aux, SLOT(ip->b), &old)) {
        return false;
    }
    SLOT(ip->d) = extend_old(old, ip->mem.aux);
    interp_unsync(cpu, ip);
    return true;
}

static INTERP_CALL void amo_slow(INTERP_PARAMETERS)
{
    if (perform_amo(cpu, ip)) {
        ip = interp_after_store(cpu, ip);
        INTERP_NEXT_RELOAD(ip);
    }
}

#define AMO(name, type, stype, expression)                                                         \
    INTERP_HANDLER(amo_##name##_##type)                                                            \
    {                                                                                              \
        uint64_t va = interp_address(cpu, ip);                                                     \
        struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);                                       \
        if (!tlb_hit_write(entry, va, sizeof(type)) || va % sizeof(type) != 0) {                   \
            __attribute__((musttail)) return amo_slow(cpu, ip, tlb, tlb_mask);                     \
        }                                                                                          \
        type *at = (type *)(void *)tlb_host(entry, va);                                            \
        type b = (type)SLOT(ip->b);                                                                \
        SLOT(ip->d) = (uint64_t)(int64_t)(stype)(expression);                                      \
        exclusive_settle();                                                                        \
        INTERP_NEXT();                                                                             \
    }

/* The inlined ones, for 4 and 8 bytes; 4-byte results are sign-extended. */
#define AMO_INLINED(X)                                                                             \
    X(SWAP, swap, __atomic_exchange_n(at, b, __ATOMIC_SEQ_CST))                                    \
    X(ADD, add, __atomic_fetch_add(at, b, __ATOMIC_SEQ_CST))                                       \
    X(AND, and, __atomic_fetch_and(at, b, __ATOMIC_SEQ_CST))                                       \
    X(OR, or, __atomic_fetch_or(at, b, __ATOMIC_SEQ_CST))                                          \
    X(XOR, xor, __atomic_fetch_xor(at, b, __ATOMIC_SEQ_CST))

#define X(operation, name, expression)                                                             \
    AMO(name, uint32_t, int32_t, expression)                                                       \
    AMO(name, uint64_t, int64_t, expression)
AMO_INLINED(X)
#undef X

static void lower_amo(struct lowering *lowering, const struct ir_op *op,
                      const struct interp_operation *operation)
{
    static interp_handler *const handlers[IR_AMO_MAXU + 1][2] = {
#define X(operation, name, expression)                                                             \
    [IR_AMO_##operation] = {amo_##name##_uint32_t, amo_##name##_uint64_t},
        AMO_INLINED(X)
#undef X
    };
    (void)operation;
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    interp_handler *handler = NULL;
    if (size_log2 == 3 || (size_log2 == 2 && op->aux & IR_MEM_SIGN)) {
        handler = handlers[op->aux >> IR_MEM_AMO_SHIFT][size_log2 - 2];
    }
    lower_memory_step(lowering, op, handler ? handler : amo_slow);
}
const struct interp_operation interp_amo = {lower_amo, {NULL}};

INTERP_SLOW(perform_compare_swap)
{
    uint64_t old;
    interp_sync(cpu, ip);
    if (!exclusive_compare_swap(cpu, interp_address(cpu, ip), ip->mem.aux, SLOT(ip->b),
                                SLOT(ip->mem.c), &old)) {
        return false;
    }
    SLOT(ip->d) = extend_old(old, ip->mem.aux);
    interp_unsync(cpu, ip);
    return true;
}

static INTERP_CALL void cas_slow(INTERP_PARAMETERS)
{
    if (perform_compare_swap(cpu, ip)) {
        ip = interp_after_store(cpu, ip);
        INTERP_NEXT_RELOAD(ip);
    }
}

static void lower_step(struct lowering *lowering, const struct ir_op *op,
                       const struct interp_operation *operation)
{
    lower_memory_step(lowering, op, operation->handlers[0]);
}
const struct interp_operation interp_cas = {lower_step, {cas_slow}};

/* --- reservations: the constrained ones that hit the TLB are done here ------------------------ */

INTERP_SLOW(perform_reserve)
{
    uint64_t value;
    interp_sync(cpu, ip);
    if (!exclusive_load_reserved(cpu, interp_address(cpu, ip), ip->mem.aux, &value)) {
        return false;
    }
    SLOT(ip->d) = extend_old(value, ip->mem.aux);
    interp_unsync(cpu, ip);
    return true;
}

static INTERP_CALL void reserve_slow(INTERP_PARAMETERS)
{
    if (perform_reserve(cpu, ip)) {
        INTERP_NEXT_RELOAD(ip + 1);
    }
}

INTERP_SLOW(perform_conditional)
{
    uint64_t failed;
    interp_sync(cpu, ip);
    if (!exclusive_store_conditional(cpu, interp_address(cpu, ip), ip->mem.aux, SLOT(ip->b),
                                     &failed)) {
        return false;
    }
    SLOT(ip->d) = failed;
    interp_unsync(cpu, ip);
    return true;
}

static INTERP_CALL void conditional_slow(INTERP_PARAMETERS)
{
    if (perform_conditional(cpu, ip)) {
        ip = interp_after_store(cpu, ip);
        INTERP_NEXT_RELOAD(ip);
    }
}

#define EXCLUSIVE(type, stype, log2)                                                               \
    INTERP_HANDLER(reserve_##type)                                                                 \
    {                                                                                              \
        uint64_t va = interp_address(cpu, ip);                                                     \
        const struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);                                 \
        if (!tlb_hit_read(entry, va, sizeof(type)) || va % sizeof(type) != 0) {                    \
            __attribute__((musttail)) return reserve_slow(cpu, ip, tlb, tlb_mask);                 \
        }                                                                                          \
        uint8_t *host = tlb_host(entry, va);                                                       \
        type value = __atomic_load_n((type *)(void *)host, __ATOMIC_SEQ_CST);                      \
        engine_cpu_of(cpu)->reservation = (struct reservation){                                    \
            .kind = RESERVATION_VALUE, .size = log2, .host = host, .value = value};                \
        SLOT(ip->d) = (uint64_t)(int64_t)(stype)value;                                             \
        INTERP_NEXT();                                                                             \
    }                                                                                              \
    INTERP_HANDLER(conditional_##type)                                                             \
    {                                                                                              \
        uint64_t va = interp_address(cpu, ip);                                                     \
        struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);                                       \
        uint8_t *host = tlb_host(entry, va);                                                       \
        struct reservation *reservation = &engine_cpu_of(cpu)->reservation;                        \
        if (!tlb_hit_write(entry, va, sizeof(type)) || va % sizeof(type) != 0 ||                   \
            reservation->kind != RESERVATION_VALUE || reservation->host != host ||                 \
            reservation->size != log2) {                                                           \
            __attribute__((musttail)) return conditional_slow(cpu, ip, tlb, tlb_mask);             \
        }                                                                                          \
        type expected = (type)reservation->value;                                                  \
        reservation->kind = RESERVATION_NONE;                                                      \
        SLOT(ip->d) =                                                                              \
            !__sync_bool_compare_and_swap((type *)(void *)host, expected, (type)SLOT(ip->b));      \
        exclusive_settle();                                                                        \
        INTERP_NEXT();                                                                             \
    }

EXCLUSIVE(uint32_t, int32_t, 2)
EXCLUSIVE(uint64_t, int64_t, 3)

static void lower_reserve(struct lowering *lowering, const struct ir_op *op,
                          const struct interp_operation *operation)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    interp_handler *handler = reserve_slow;
    if (op->aux & IR_MEM_CONSTRAINED) {
        handler = size_log2 == 3                            ? reserve_uint64_t
                  : size_log2 == 2 && op->aux & IR_MEM_SIGN ? reserve_uint32_t
                                                            : reserve_slow;
    }
    (void)operation;
    lower_memory_step(lowering, op, handler);
}
const struct interp_operation interp_lr = {lower_reserve, {NULL}};

static void lower_conditional(struct lowering *lowering, const struct ir_op *op,
                              const struct interp_operation *operation)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    (void)operation;
    lower_memory_step(lowering, op,
                      size_log2 == 3   ? conditional_uint64_t
                      : size_log2 == 2 ? conditional_uint32_t
                                       : conditional_slow);
}
const struct interp_operation interp_sc = {lower_conditional, {NULL}};

/* --- fences --------------------------------------------------------------------------------- */

INTERP_HANDLER(fence_full)
{
    atomic_thread_fence(memory_order_seq_cst);
    INTERP_NEXT();
}

INTERP_HANDLER(fence_partial)
{
    atomic_thread_fence(memory_order_acq_rel);
    INTERP_NEXT();
}

/* imm: predecessor (bits 7-4) and successor (3-0) sets, each input, output, read, write from the
 * top. Only an earlier write against a later read needs more than the host's acquire and release.
 */
static void lower_fence(struct lowering *lowering, const struct ir_op *op,
                        const struct interp_operation *operation)
{
    bool write_before = op->imm & 0x50;
    bool read_after = op->imm & 0x0a;
    (void)operation;
    lower_emit(lowering, op, write_before && read_after ? fence_full : fence_partial);
}
const struct interp_operation interp_fence = {lower_fence, {NULL}};
