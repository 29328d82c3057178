/*
 * Loads and stores. Each size has its own handler with the TLB hit test inlined (cpu.h); a miss
 * tail-calls a common slow handler, which finds size and extension in the step's aux.
 */
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/interp_tlb.h"

/* --- slow paths ----------------------------------------------------------------------------- */

/* Bring a loaded value into the form that the slot gets. */
static uint64_t extend(uint64_t value, unsigned aux)
{
    unsigned bits = 8u << (aux & IR_MEM_SIZE);
    if (bits < 64) {
        if (aux & IR_MEM_BOX) {
            return value | ~(uint64_t)0 << bits;
        }
        if (aux & IR_MEM_SIGN) {
            return (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
        }
    }
    return value;
}

INTERP_SLOW(perform_load)
{
    uint64_t value[2];
    unsigned aux = ip->mem.aux;
    interp_sync(cpu, ip);
    if (!access_load(cpu, interp_address(cpu, ip), aux, value)) {
        return false;
    }
    if (aux & IR_MEM_ACQUIRE) {
        atomic_thread_fence(memory_order_acquire);
    }
    if ((aux & IR_MEM_SIZE) == 4) {
        SLOT_HIGH(ip->d) = value[1];
        SLOT(ip->d) = value[0];
    } else {
        SLOT(ip->d) = extend(value[0], aux);
    }
    interp_unsync(cpu, ip);
    return true;
}

INTERP_SLOW(perform_store)
{
    unsigned aux = ip->mem.aux;
    const uint64_t value[2] = {SLOT(ip->b), (aux & IR_MEM_SIZE) == 4 ? SLOT_HIGH(ip->b) : 0};
    interp_sync(cpu, ip);
    if (aux & IR_MEM_RELEASE) {
        atomic_thread_fence(memory_order_release);
    }
    if (!access_store(cpu, interp_address(cpu, ip), aux, value)) {
        return false;
    }
    if (aux & IR_MEM_RELEASE) {
        /* So that a later acquire load of this CPU is not done before it (arm64's LDAR). */
        atomic_thread_fence(memory_order_seq_cst);
    }
    interp_unsync(cpu, ip);
    return true;
}

static INTERP_CALL void load_slow(INTERP_PARAMETERS)
{
    if (perform_load(cpu, ip)) {
        INTERP_NEXT_RELOAD(ip + 1);
    }
}

static INTERP_CALL void store_slow(INTERP_PARAMETERS)
{
    if (perform_store(cpu, ip)) {
        ip = interp_after_store(cpu, ip);
        INTERP_NEXT_RELOAD(ip);
    }
}

/* --- hit paths ------------------------------------------------------------------------------ */

#define LOAD(name, type, conversion)                                                               \
    INTERP_GUEST_HANDLER(load_##name)                                                              \
    {                                                                                              \
        uint64_t va = interp_address(cpu, ip);                                                     \
        const struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);                                 \
        if (!tlb_hit_read(entry, va, sizeof(type))) {                                              \
            __attribute__((musttail)) return load_slow(cpu, ip, tlb, tlb_mask);                    \
        }                                                                                          \
        type value = *(const volatile type *)tlb_host(entry, va);                                  \
        SLOT(ip->d) = (uint64_t)(conversion);                                                      \
        INTERP_NEXT();                                                                             \
    }

LOAD(u8, uint8_t, value)
LOAD(u16, guest_u16, value)
LOAD(u32, guest_u32, value)
LOAD(u64, guest_u64, value)
LOAD(s8, uint8_t, (int64_t)(int8_t)value)
LOAD(s16, guest_u16, (int64_t)(int16_t)value)
LOAD(s32, guest_u32, (int64_t)(int32_t)value)
LOAD(b16, guest_u16, value | UINT64_C(0xffffffffffff0000))
LOAD(b32, guest_u32, value | UINT64_C(0xffffffff00000000))

#define STORE(name, type)                                                                          \
    INTERP_GUEST_HANDLER(store_##name)                                                             \
    {                                                                                              \
        uint64_t va = interp_address(cpu, ip);                                                     \
        struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);                                       \
        if (!tlb_hit_write(entry, va, sizeof(type))) {                                             \
            __attribute__((musttail)) return store_slow(cpu, ip, tlb, tlb_mask);                   \
        }                                                                                          \
        *(volatile type *)tlb_host(entry, va) = (type)SLOT(ip->b);                                 \
        INTERP_NEXT();                                                                             \
    }

STORE(u8, uint8_t)
STORE(u16, guest_u16)
STORE(u32, guest_u32)
STORE(u64, guest_u64)

INTERP_GUEST_HANDLER(load_v128)
{
    uint64_t va = interp_address(cpu, ip);
    const struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);
    if (!tlb_hit_read(entry, va, 16)) {
        __attribute__((musttail)) return load_slow(cpu, ip, tlb, tlb_mask);
    }
    const uint8_t *host = tlb_host(entry, va);
    uint64_t low = *(const volatile guest_u64 *)host;
    SLOT_HIGH(ip->d) = *(const volatile guest_u64 *)(host + 8);
    SLOT(ip->d) = low;
    INTERP_NEXT();
}

INTERP_GUEST_HANDLER(store_v128)
{
    uint64_t va = interp_address(cpu, ip);
    struct tlb_entry *entry = tlb_at(tlb, tlb_mask, va);
    if (!tlb_hit_write(entry, va, 16)) {
        __attribute__((musttail)) return store_slow(cpu, ip, tlb, tlb_mask);
    }
    uint8_t *host = tlb_host(entry, va);
    *(volatile guest_u64 *)host = SLOT(ip->b);
    *(volatile guest_u64 *)(host + 8) = SLOT_HIGH(ip->b);
    INTERP_NEXT();
}

/* --- lowering ------------------------------------------------------------------------------- */

/* Rules that only the slow path knows. */
#define MEM_SPECIAL (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE)

static void lower_load(struct lowering *lowering, const struct ir_op *op,
                       const struct interp_operation *operation)
{
    static interp_handler *const zero[] = {load_u8, load_u16, load_u32, load_u64, load_v128};
    static interp_handler *const sign[] = {load_s8, load_s16, load_s32, load_u64, load_v128};
    static interp_handler *const boxed[] = {load_u8, load_b16, load_b32, load_u64, load_v128};
    interp_handler *const *handlers = op->aux & IR_MEM_BOX    ? boxed
                                      : op->aux & IR_MEM_SIGN ? sign
                                                              : zero;
    (void)operation;
    bool special = op->aux & MEM_SPECIAL || (op->aux & IR_MEM_SIZE) > 4;
    lower_memory_step(lowering, op, special ? load_slow : handlers[op->aux & IR_MEM_SIZE]);
}

static void lower_store(struct lowering *lowering, const struct ir_op *op,
                        const struct interp_operation *operation)
{
    static interp_handler *const handlers[] = {store_u8, store_u16, store_u32, store_u64,
                                               store_v128};
    (void)operation;
    bool special = op->aux & MEM_SPECIAL || (op->aux & IR_MEM_SIZE) > 4;
    lower_memory_step(lowering, op, special ? store_slow : handlers[op->aux & IR_MEM_SIZE]);
}

const struct interp_operation interp_load = {lower_load, {NULL}};
const struct interp_operation interp_loadf = {lower_load, {NULL}};
const struct interp_operation interp_loadv = {lower_load, {NULL}};
const struct interp_operation interp_store = {lower_store, {NULL}};
const struct interp_operation interp_storef = {lower_store, {NULL}};
const struct interp_operation interp_storev = {lower_store, {NULL}};
