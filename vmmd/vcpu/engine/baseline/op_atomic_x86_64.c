/*
 * Atomic read-modify-write, load-reserved and store-conditional, fences. What hits the TLB and is
 * aligned is done here, as the interpreter does it (interp_atomic.c, exclusive.c).
 */
#if defined(__x86_64__)

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

static bool result_unused(const struct compiler *c, const struct ir_op *op)
{
    return ir_is_temp(op->d) && c->uses[c->index].d == NEVER;
}

/* The address in a register of its own. */
static unsigned translate_to_register(struct compiler *c, const struct ir_op *op, bool is_write)
{
    struct host_memory memory = compile_translate(c, op, op->aux & IR_MEM_SIZE, is_write, true);
    emit_address(c->hot, true, memory.base, memory);
    return memory.base;
}

/* to = to op b */
static void apply(struct compiler *c, unsigned operation, bool wide, unsigned to, unsigned b)
{
    static const struct {
        uint8_t arithmetic, take_b;
    } forms[] = {
        [IR_AMO_AND] = {HOST_AND, 0},           [IR_AMO_OR] = {HOST_OR, 0},
        [IR_AMO_XOR] = {HOST_XOR, 0},           [IR_AMO_MINS] = {HOST_CMP, HOST_GREATER},
        [IR_AMO_MAXS] = {HOST_CMP, HOST_LESS},  [IR_AMO_MINU] = {HOST_CMP, HOST_ABOVE},
        [IR_AMO_MAXU] = {HOST_CMP, HOST_BELOW},
    };
    emit_arithmetic(c->hot, wide, forms[operation].arithmetic, to, b);
    if (forms[operation].arithmetic == HOST_CMP) {
        emit_move_if(c->hot, forms[operation].take_b, to, b);
    }
}

static void compare_and_swap_loop(struct compiler *c, const struct ir_op *op, unsigned operation)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    registers_vacate(c, RAX);
    unsigned b = registers_use(c, op->b);
    unsigned address = translate_to_register(c, op, true);
    unsigned next = registers_allocate(c, FILE_GENERAL);
    emit_load(c->hot, size_log2, false, RAX, host_at(address, 0));
    uint32_t again = c->hot->at;
    emit_move(c->hot, true, next, RAX);
    apply(c, operation, size_log2 == 3, next, b);
    emit_locked_compare_exchange(c->hot, size_log2, host_at(address, 0), next);
    emit_land_at(c->hot, emit_jump_if(c->hot, HOST_NOT_EQUAL), again);
    define_old(c, op, RAX);
}

bool compile_amo(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    unsigned operation = op->aux >> IR_MEM_AMO_SHIFT;
    if (!native_size(op)) {
        return false;
    }
    bool logical = operation == IR_AMO_AND || operation == IR_AMO_OR || operation == IR_AMO_XOR;
    if (logical && result_unused(c, op)) {
        static const uint8_t arithmetic[] = {
            [IR_AMO_AND] = HOST_AND, [IR_AMO_OR] = HOST_OR, [IR_AMO_XOR] = HOST_XOR};
        unsigned b = registers_use(c, op->b);
        struct host_memory memory = compile_translate(c, op, size_log2, true, true);
        emit_locked_arithmetic(c->hot, size_log2, arithmetic[operation], memory, b);
    } else if (operation == IR_AMO_SWAP || operation == IR_AMO_ADD) {
        unsigned b = registers_use(c, op->b);
        unsigned to = registers_allocate(c, FILE_GENERAL);
        struct host_memory memory = compile_translate(c, op, size_log2, true, true);
        emit_move(c->hot, true, to, b);
        if (operation == IR_AMO_SWAP) {
            emit_exchange(c->hot, size_log2, memory, to);
        } else {
            emit_locked_add(c->hot, size_log2, memory, to);
        }
        define_old(c, op, to);
    } else {
        compare_and_swap_loop(c, op, operation);
    }
    return true;
}

bool compile_cas(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (!native_size(op)) {
        return false;
    }
    registers_vacate(c, RAX);
    unsigned expected = registers_use(c, op->b);
    unsigned desired = registers_use(c, op->c);
    struct host_memory memory = compile_translate(c, op, size_log2, true, true);
    emit_move(c->hot, true, RAX, expected);
    emit_locked_compare_exchange(c->hot, size_log2, memory, desired);
    define_old(c, op, RAX);
    return true;
}

/* --- reservations ---------------------------------------------------------------------------- */

#define RESERVATION(field)                                                                         \
    host_at(REG_SCRATCH, (int32_t)offsetof(struct engine_cpu, reservation.field))

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
    emit_load(c->hot, size_log2, false, value, host_at(address, 0));
    emit_load64(c->hot, REG_SCRATCH, CPU_FIELD(engine));
    emit_store_constant(c->hot, 2, RESERVATION(kind), RESERVATION_VALUE);
    emit_store_constant(c->hot, 2, RESERVATION(size), (int32_t)size_log2);
    emit_store(c->hot, 3, RESERVATION(host), address);
    emit_store(c->hot, 3, RESERVATION(value), value);
    define_old(c, op, value);
    return true;
}

bool compile_sc(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (!compile_addressable(op) || (size_log2 != 2 && size_log2 != 3)) {
        return false;
    }
    registers_vacate(c, RAX);
    unsigned value = registers_use(c, op->b);
    unsigned address = translate_to_register(c, op, true);
    emit_load64(c->hot, REG_SCRATCH, CPU_FIELD(engine));
    emit_load64(c->hot, RAX, RESERVATION(value));
    emit_arithmetic_load(c->hot, true, HOST_CMP, address, RESERVATION(host));
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_arithmetic_memory_constant(c->hot, false, HOST_CMP, RESERVATION(size), (int32_t)size_log2);
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_arithmetic_memory_constant(c->hot, false, HOST_CMP, RESERVATION(kind), RESERVATION_VALUE);
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_store_constant(c->hot, 2, RESERVATION(kind), RESERVATION_NONE);
    emit_locked_compare_exchange(c->hot, size_log2, host_at(address, 0), value);
    emit_set(c->hot, HOST_NOT_EQUAL, RAX);
    emit_extend(c->hot, 0, false, RAX, RAX);
    registers_define(c, op->d, RAX);
    return true;
}

bool compile_fence(struct compiler *c, const struct ir_op *op)
{
    if (op->imm & 0x50 && op->imm & 0x0a) {
        emit_full_fence(c->hot);
    }
    return true;
}

#endif
