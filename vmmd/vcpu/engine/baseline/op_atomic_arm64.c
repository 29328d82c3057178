/*
 * Atomic read-modify-write, load-reserved and store-conditional, fences. What hits the TLB and is
 * aligned is done here, as the interpreter does it (interp_atomic.c, exclusive.c).
 *
 * Order: the host is as weak as the guests, so what the operation does not ask for it does not get.
 * A release is the host's own. An acquire must order all that follows behind the whole operation,
 * its store included; the host's acquire orders it behind the load only. With acquire and release
 * together the single instructions of FEAT_LSE are full barriers (Arm ARM,
 * "Barrier-ordered-before"); pairs of exclusives get one.
 */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

/* 8 bytes, or 4 that are sign-extended. */
static bool native_size(const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    return compile_addressable(op) && (size_log2 == 3 || (size_log2 == 2 && op->aux & IR_MEM_SIGN));
}

static void define_old(struct compiler *c, const struct ir_op *op, unsigned reg)
{
    if ((op->aux & IR_MEM_SIZE) == 2) {
        emit_extend(c->hot, 2, true, reg, reg);
    }
    registers_define(c, op->d, reg);
}

struct order {
    bool acquire, release, fence; /* fence: behind exclusives */
};

static struct order order_of(const struct ir_op *op)
{
    bool acquire = op->aux & IR_MEM_ACQUIRE;
    return (struct order){acquire, acquire || op->aux & IR_MEM_RELEASE, acquire};
}

/* The address in a register of its own. */
static unsigned translate_to_register(struct compiler *c, const struct ir_op *op, bool is_write)
{
    struct host_memory memory = compile_translate(c, op, op->aux & IR_MEM_SIZE, is_write, true);
    emit_address(c->hot, true, memory.base, memory);
    return memory.base;
}

/* --- read-modify-write ------------------------------------------------------------------------ */

/* to = old op b, for exclusives */
static void apply(struct compiler *c, unsigned operation, bool wide, unsigned to, unsigned old,
                  unsigned b)
{
    static const struct {
        uint32_t arithmetic;
        uint8_t keep_old;
    } forms[] = {
        [IR_AMO_ADD] = {HOST_ADD, 0},
        [IR_AMO_AND] = {HOST_AND, 0},
        [IR_AMO_OR] = {HOST_OR, 0},
        [IR_AMO_XOR] = {HOST_XOR, 0},
        [IR_AMO_MINS] = {HOST_SUB_FLAGS, HOST_LESS},
        [IR_AMO_MAXS] = {HOST_SUB_FLAGS, HOST_GREATER},
        [IR_AMO_MINU] = {HOST_SUB_FLAGS, HOST_BELOW},
        [IR_AMO_MAXU] = {HOST_SUB_FLAGS, HOST_ABOVE},
    };
    if (forms[operation].arithmetic == HOST_SUB_FLAGS) {
        emit_compare(c->hot, wide, old, b);
        emit_select(c->hot, wide, (enum host_condition)forms[operation].keep_old, to, old, b);
    } else {
        emit_arithmetic(c->hot, wide, (enum host_arithmetic)forms[operation].arithmetic, to, old,
                        b);
    }
}

static void exclusive_loop(struct compiler *c, const struct ir_op *op, unsigned operation,
                           unsigned old, unsigned b, unsigned address)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    struct order order = order_of(op);
    uint32_t again = c->hot->at;
    unsigned next = b;
    emit_load_exclusive(c->hot, size_log2, order.acquire, old, address);
    if (operation != IR_AMO_SWAP) {
        next = HOST_X17;
        apply(c, operation, size_log2 == 3, next, old, b);
    }
    emit_store_exclusive(c->hot, size_log2, order.release, HOST_X16, next, address);
    emit_land_at(c->hot, emit_jump_zero(c->hot, false, true, HOST_X16), again);
    if (order.fence) {
        emit_fence(c->hot, HOST_FENCE_ALL);
    }
}

static void single_instruction(struct compiler *c, const struct ir_op *op, unsigned operation,
                               unsigned old, unsigned b, unsigned address)
{
    static const uint16_t forms[] = {
        [IR_AMO_SWAP] = HOST_ATOMIC_SWAP, [IR_AMO_ADD] = HOST_ATOMIC_ADD,
        [IR_AMO_AND] = HOST_ATOMIC_CLEAR, [IR_AMO_OR] = HOST_ATOMIC_OR,
        [IR_AMO_XOR] = HOST_ATOMIC_XOR,   [IR_AMO_MINS] = HOST_ATOMIC_MINS,
        [IR_AMO_MAXS] = HOST_ATOMIC_MAXS, [IR_AMO_MINU] = HOST_ATOMIC_MINU,
        [IR_AMO_MAXU] = HOST_ATOMIC_MAXU,
    };
    struct order order = order_of(op);
    if (operation == IR_AMO_AND) {
        emit_arithmetic(c->hot, true, HOST_OR_NOT, HOST_X17, HOST_ZERO, b);
        b = HOST_X17;
    }
    emit_atomic(c->hot, op->aux & IR_MEM_SIZE, (enum host_atomic)forms[operation], order.acquire,
                order.release, old, b, address);
}

bool compile_amo(struct compiler *c, const struct ir_op *op)
{
    unsigned operation = op->aux >> IR_MEM_AMO_SHIFT;
    if (!native_size(op)) {
        return false;
    }
    unsigned b = registers_use(c, op->b);
    unsigned old = registers_allocate(c, FILE_GENERAL);
    unsigned address = translate_to_register(c, op, true);
    if (c->features.lse) {
        single_instruction(c, op, operation, old, b, address);
    } else {
        exclusive_loop(c, op, operation, old, b, address);
    }
    define_old(c, op, old);
    return true;
}

/* Store `desired` if memory holds `expected`; old is what it held, and the flags compare the two.
 */
static void exchange_if_equal(struct compiler *c, const struct ir_op *op, unsigned old,
                              unsigned expected, unsigned desired, unsigned address)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    struct order order = order_of(op);
    if (c->features.lse) {
        emit_move(c->hot, true, old, expected);
        emit_compare_exchange(c->hot, size_log2, order.acquire, order.release, old, desired,
                              address);
        emit_compare(c->hot, size_log2 == 3, old, expected);
        return;
    }
    uint32_t again = c->hot->at;
    emit_load_exclusive(c->hot, size_log2, order.acquire, old, address);
    emit_compare(c->hot, size_log2 == 3, old, expected);
    uint32_t differs = emit_jump_if(c->hot, HOST_NOT_EQUAL);
    emit_store_exclusive(c->hot, size_log2, order.release, HOST_X16, desired, address);
    emit_land_at(c->hot, emit_jump_zero(c->hot, false, true, HOST_X16), again);
    emit_land(c->hot, differs);
    if (order.fence) {
        emit_fence(c->hot, HOST_FENCE_ALL);
    }
}

bool compile_cas(struct compiler *c, const struct ir_op *op)
{
    if (!native_size(op)) {
        return false;
    }
    unsigned expected = registers_use(c, op->b);
    unsigned desired = registers_use(c, op->c);
    unsigned old = registers_allocate(c, FILE_GENERAL);
    unsigned address = translate_to_register(c, op, true);
    exchange_if_equal(c, op, old, expected, desired, address);
    define_old(c, op, old);
    return true;
}

/* --- reservations ---------------------------------------------------------------------------- */

#define RESERVATION(field) host_at(REG_SCRATCH, (int32_t)offsetof(struct reservation, field))

/* x21 = where the CPU's reservation is */
static void find_reservation(struct compiler *c)
{
    emit_load64(c->hot, REG_SCRATCH, CPU_FIELD(engine));
    emit_arithmetic_constant(c->hot, true, HOST_ADD, REG_SCRATCH, REG_SCRATCH,
                             offsetof(struct engine_cpu, reservation));
}

/* Only constrained ones: the value is compared later. */
bool compile_lr(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (!native_size(op) || !(op->aux & IR_MEM_CONSTRAINED)) {
        return false;
    }
    unsigned value = registers_allocate(c, FILE_GENERAL);
    unsigned address = translate_to_register(c, op, false);
    _Static_assert(sizeof(enum reservation_kind) == 4 && sizeof(unsigned) == 4, "stored so");
    if (op->aux & IR_MEM_RELEASE) {
        emit_fence(c->hot, HOST_FENCE_ALL);
    }
    if (op->aux & IR_MEM_ACQUIRE) {
        emit_load_acquire(c->hot, size_log2, value, address);
    } else {
        emit_load(c->hot, size_log2, false, value, host_at(address, 0));
    }
    find_reservation(c);
    emit_store_constant(c->hot, 2, RESERVATION(kind), RESERVATION_VALUE);
    emit_store_constant(c->hot, 2, RESERVATION(size), (int32_t)size_log2);
    emit_store(c->hot, 3, RESERVATION(host), address);
    emit_store(c->hot, 3, RESERVATION(value), value);
    define_old(c, op, value);
    return true;
}

/* Retreat unless the reservation is by value, of this size. */
static void check_reservation(struct compiler *c, unsigned address, unsigned size_log2)
{
    emit_load64(c->hot, HOST_X17, RESERVATION(host));
    emit_compare(c->hot, true, HOST_X17, address);
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_load(c->hot, 2, false, HOST_X17, RESERVATION(size));
    emit_compare_constant(c->hot, false, HOST_X17, size_log2);
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_load(c->hot, 2, false, HOST_X17, RESERVATION(kind));
    emit_compare_constant(c->hot, false, HOST_X17, RESERVATION_VALUE);
    compile_retreat_if(c, HOST_NOT_EQUAL);
}

bool compile_sc(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (!compile_addressable(op) || (size_log2 != 2 && size_log2 != 3)) {
        return false;
    }
    unsigned value = registers_use(c, op->b);
    unsigned failed = registers_allocate(c, FILE_GENERAL);
    unsigned address = translate_to_register(c, op, true);
    find_reservation(c);
    check_reservation(c, address, size_log2);
    emit_load64(c->hot, HOST_X17, RESERVATION(value));
    emit_store_constant(c->hot, 2, RESERVATION(kind), RESERVATION_NONE);
    exchange_if_equal(c, op, failed, HOST_X17, value, address);
    emit_set(c->hot, HOST_NOT_EQUAL, failed);
    registers_define(c, op->d, failed);
    return true;
}

/* imm: predecessors (bits 7-4) and successors (3-0), each input, output, read, write from the top.
 */
bool compile_fence(struct compiler *c, const struct ir_op *op)
{
    bool writes_before = op->imm & 0x50, reads_before = op->imm & 0xa0;
    bool writes_after = op->imm & 0x05, reads_after = op->imm & 0x0a;
    if ((!writes_before && !reads_before) || (!writes_after && !reads_after)) {
        return true;
    }
    emit_fence(c->hot, !writes_before                  ? HOST_FENCE_LOADS
                       : !reads_before && !reads_after ? HOST_FENCE_STORES
                                                       : HOST_FENCE_ALL);
    return true;
}

#endif
