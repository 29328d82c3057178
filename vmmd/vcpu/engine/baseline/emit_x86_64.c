/*
 * An instruction is: prefixes, REX or VEX, one to three opcode bytes, ModRM with a register number
 * and a register-or-memory operand, displacement, immediate. `struct form` names the opcode, the
 * two functions encode_* do the rest for all instructions.
 */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/emit_x86_64.h"
#include <string.h>

void emit_align(struct emitter *e, unsigned alignment, unsigned extra)
{
    static const uint8_t no_operation[3][3] = {{0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}};
    unsigned missing = -(e->at + extra) & (alignment - 1);
    while (missing) {
        unsigned length = missing > 3 ? 3 : missing;
        for (unsigned i = 0; i < length; i++) {
            emit_byte(e, no_operation[length - 1][i]);
        }
        missing -= length;
    }
}

/* --- encoding ------------------------------------------------------------------------------- */

enum map { MAP_ONE = 0, MAP_0F = 1, MAP_0F38 = 2, MAP_0F3A = 3 };

struct form {
    uint8_t prefix; /* 0x66, 0xf2, 0xf3 or none */
    uint8_t map;
    uint8_t opcode;
    bool wide;
    bool byte_registers; /* rsp..rdi as spl..dil: needs a REX */
};

static void emit_opcode(struct emitter *e, const struct form *form)
{
    if (form->map != MAP_ONE) {
        emit_byte(e, 0x0f);
    }
    if (form->map == MAP_0F38) {
        emit_byte(e, 0x38);
    } else if (form->map == MAP_0F3A) {
        emit_byte(e, 0x3a);
    }
    emit_byte(e, form->opcode);
}

static void emit_prefixes(struct emitter *e, const struct form *form, unsigned reg, unsigned index,
                          unsigned base, bool force)
{
    if (form->prefix) {
        emit_byte(e, form->prefix);
    }
    unsigned rex =
        (form->wide ? 8u : 0) | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    if (rex || force) {
        emit_byte(e, (uint8_t)(0x40 | rex));
    }
}

static void emit_modrm(struct emitter *e, unsigned mode, unsigned reg, unsigned rm)
{
    emit_byte(e, (uint8_t)(mode << 6 | (reg & 7) << 3 | (rm & 7)));
}

static void encode_register(struct emitter *e, struct form form, unsigned reg, unsigned rm)
{
    bool force = form.byte_registers && ((reg >= RSP && reg <= RDI) || (rm >= RSP && rm <= RDI));
    emit_prefixes(e, &form, reg, 0, rm, force);
    emit_opcode(e, &form);
    emit_modrm(e, 3, reg, rm);
}

/* Base 4 (rsp, r12) always needs the SIB byte; base 5 (rbp, r13) always a displacement. */
static void emit_memory_operand(struct emitter *e, unsigned reg, struct host_memory memory)
{
    if (memory.base == NO_REGISTER) {
        emit_modrm(e, 0, reg, 5);
        emit_u32(e, 0);
        return;
    }
    bool sib = memory.index != NO_REGISTER || (memory.base & 7) == RSP;
    bool small = memory.displacement == (int8_t)memory.displacement;
    bool none = memory.displacement == 0 && (memory.base & 7) != RBP;
    emit_modrm(e, none ? 0 : small ? 1 : 2, reg, sib ? 4 : memory.base);
    if (sib) {
        unsigned index = memory.index == NO_REGISTER ? 4 : memory.index & 7;
        emit_byte(e, (uint8_t)(memory.scale << 6 | index << 3 | (memory.base & 7)));
    }
    if (!none && small) {
        emit_byte(e, (uint8_t)memory.displacement);
    } else if (!none) {
        emit_u32(e, (uint32_t)memory.displacement);
    }
}

static void encode_memory(struct emitter *e, struct form form, unsigned reg,
                          struct host_memory memory)
{
    bool force = form.byte_registers && reg >= RSP && reg <= RDI;
    unsigned index = memory.index == NO_REGISTER ? 0 : memory.index;
    unsigned base = memory.base == NO_REGISTER ? 0 : memory.base;
    emit_prefixes(e, &form, reg, index, base, force);
    emit_opcode(e, &form);
    emit_memory_operand(e, reg, memory);
}

/* Three-byte VEX, 128-bit or scalar, registers only. */
static void encode_vex(struct emitter *e, struct form form, unsigned reg, unsigned vvvv,
                       unsigned rm)
{
    unsigned implied = form.prefix == 0x66 ? 1 : form.prefix == 0xf3 ? 2 : form.prefix ? 3 : 0;
    emit_byte(e, 0xc4);
    emit_byte(e, (uint8_t)((~reg >> 3 & 1) << 7 | 1 << 6 | (~rm >> 3 & 1) << 5 | form.map));
    emit_byte(e, (uint8_t)((form.wide ? 0x80 : 0) | (~vvvv & 15) << 3 | implied));
    emit_byte(e, form.opcode);
    emit_modrm(e, 3, reg, rm);
}

/* --- moves ---------------------------------------------------------------------------------- */

void emit_move(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.opcode = 0x8b, .wide = wide}, to, from);
}

void emit_constant(struct emitter *e, unsigned to, uint64_t value)
{
    if (value == (uint32_t)value) {
        emit_prefixes(e, &(struct form){0}, 0, 0, to, false);
        emit_byte(e, (uint8_t)(0xb8 | (to & 7)));
        emit_u32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        encode_register(e, (struct form){.opcode = 0xc7, .wide = true}, 0, to);
        emit_u32(e, (uint32_t)value);
    } else {
        emit_prefixes(e, &(struct form){.wide = true}, 0, 0, to, false);
        emit_byte(e, (uint8_t)(0xb8 | (to & 7)));
        emit_u64(e, value);
    }
}

void emit_address(struct emitter *e, bool wide, unsigned to, struct host_memory from)
{
    encode_memory(e, (struct form){.opcode = 0x8d, .wide = wide}, to, from);
}

void emit_load64(struct emitter *e, unsigned to, struct host_memory from)
{
    encode_memory(e, (struct form){.opcode = 0x8b, .wide = true}, to, from);
}

void emit_load(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to,
               struct host_memory from)
{
    static const struct form forms[4][2] = {
        {{.map = MAP_0F, .opcode = 0xb6}, {.map = MAP_0F, .opcode = 0xbe, .wide = true}},
        {{.map = MAP_0F, .opcode = 0xb7}, {.map = MAP_0F, .opcode = 0xbf, .wide = true}},
        {{.opcode = 0x8b}, {.opcode = 0x63, .wide = true}},
        {{.opcode = 0x8b, .wide = true}, {.opcode = 0x8b, .wide = true}},
    };
    encode_memory(e, forms[size_log2][is_signed], to, from);
}

static struct form sized(unsigned size_log2, uint8_t byte_opcode, uint8_t opcode, enum map map)
{
    return (struct form){.prefix = size_log2 == 1 ? 0x66 : 0,
                         .map = map,
                         .opcode = size_log2 == 0 ? byte_opcode : opcode,
                         .wide = size_log2 == 3,
                         .byte_registers = size_log2 == 0};
}

void emit_store(struct emitter *e, unsigned size_log2, struct host_memory to, unsigned from)
{
    encode_memory(e, sized(size_log2, 0x88, 0x89, MAP_ONE), from, to);
}

void emit_store_constant(struct emitter *e, unsigned size_log2, struct host_memory to,
                         int32_t value)
{
    encode_memory(e, sized(size_log2, 0xc6, 0xc7, MAP_ONE), 0, to);
    unsigned bytes = size_log2 == 0 ? 1 : size_log2 == 1 ? 2 : 4;
    for (unsigned i = 0; i < bytes; i++) {
        emit_byte(e, (uint8_t)(value >> 8 * i));
    }
}

void emit_extend(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to, unsigned from)
{
    static const struct form forms[3][2] = {
        {{.map = MAP_0F, .opcode = 0xb6, .byte_registers = true},
         {.map = MAP_0F, .opcode = 0xbe, .wide = true}},
        {{.map = MAP_0F, .opcode = 0xb7}, {.map = MAP_0F, .opcode = 0xbf, .wide = true}},
        {{.opcode = 0x8b}, {.opcode = 0x63, .wide = true}},
    };
    encode_register(e, forms[size_log2][is_signed], to, from);
}

/* --- integer arithmetic --------------------------------------------------------------------- */

void emit_arithmetic(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                     unsigned from)
{
    uint8_t opcode = (uint8_t)(operation << 3 | 3);
    encode_register(e, (struct form){.opcode = opcode, .wide = wide}, to, from);
}

static void emit_small_or_u32(struct emitter *e, int32_t value)
{
    if (value == (int8_t)value) {
        emit_byte(e, (uint8_t)value);
    } else {
        emit_u32(e, (uint32_t)value);
    }
}

static struct form arithmetic_constant_form(bool wide, int32_t value)
{
    return (struct form){.opcode = value == (int8_t)value ? 0x83 : 0x81, .wide = wide};
}

void emit_arithmetic_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                              unsigned to, int32_t value)
{
    encode_register(e, arithmetic_constant_form(wide, value), operation, to);
    emit_small_or_u32(e, value);
}

void emit_arithmetic_load(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                          struct host_memory from)
{
    uint8_t opcode = (uint8_t)(operation << 3 | 3);
    encode_memory(e, (struct form){.opcode = opcode, .wide = wide}, to, from);
}

void emit_arithmetic_store(struct emitter *e, bool wide, enum host_arithmetic operation,
                           struct host_memory to, unsigned from)
{
    uint8_t opcode = (uint8_t)(operation << 3 | 1);
    encode_memory(e, (struct form){.opcode = opcode, .wide = wide}, from, to);
}

void emit_arithmetic_memory_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                                     struct host_memory to, int32_t value)
{
    encode_memory(e, arithmetic_constant_form(wide, value), operation, to);
    emit_small_or_u32(e, value);
}

void emit_test(struct emitter *e, bool wide, unsigned a, unsigned b)
{
    encode_register(e, (struct form){.opcode = 0x85, .wide = wide}, b, a);
}

void emit_unary(struct emitter *e, bool wide, enum host_unary operation, unsigned reg)
{
    encode_register(e, (struct form){.opcode = 0xf7, .wide = wide}, operation, reg);
}

void emit_multiply(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.map = MAP_0F, .opcode = 0xaf, .wide = wide}, to, from);
}

void emit_multiply_constant(struct emitter *e, bool wide, unsigned to, unsigned from, int32_t value)
{
    uint8_t opcode = value == (int8_t)value ? 0x6b : 0x69;
    encode_register(e, (struct form){.opcode = opcode, .wide = wide}, to, from);
    emit_small_or_u32(e, value);
}

void emit_sign_to_rdx(struct emitter *e, bool wide)
{
    emit_prefixes(e, &(struct form){.wide = wide}, 0, 0, 0, false);
    emit_byte(e, 0x99);
}

void emit_shift_constant(struct emitter *e, bool wide, enum host_shift operation, unsigned reg,
                         unsigned count)
{
    encode_register(e, (struct form){.opcode = 0xc1, .wide = wide}, operation, reg);
    emit_byte(e, (uint8_t)count);
}

void emit_shift_cl(struct emitter *e, bool wide, enum host_shift operation, unsigned reg)
{
    encode_register(e, (struct form){.opcode = 0xd3, .wide = wide}, operation, reg);
}

void emit_swap_bytes(struct emitter *e, bool wide, unsigned reg)
{
    emit_prefixes(e, &(struct form){.wide = wide}, 0, 0, reg, false);
    emit_byte(e, 0x0f);
    emit_byte(e, (uint8_t)(0xc8 | (reg & 7)));
}

void emit_set(struct emitter *e, enum host_condition condition, unsigned to)
{
    uint8_t opcode = (uint8_t)(0x90 | condition);
    encode_register(e, (struct form){.map = MAP_0F, .opcode = opcode, .byte_registers = true}, 0,
                    to);
}

void emit_move_if(struct emitter *e, enum host_condition condition, unsigned to, unsigned from)
{
    uint8_t opcode = (uint8_t)(0x40 | condition);
    encode_register(e, (struct form){.map = MAP_0F, .opcode = opcode, .wide = true}, to, from);
}

void emit_count(struct emitter *e, bool wide, enum host_count operation, unsigned to, unsigned from)
{
    encode_register(e,
                    (struct form){.prefix = 0xf3, .map = MAP_0F, .opcode = operation, .wide = wide},
                    to, from);
}

void emit_shift_by(struct emitter *e, bool wide, enum host_shift operation, unsigned to,
                   unsigned from, unsigned count)
{
    uint8_t prefix = operation == HOST_SHL ? 0x66 : operation == HOST_SHR ? 0xf2 : 0xf3;
    encode_vex(e, (struct form){.prefix = prefix, .map = MAP_0F38, .opcode = 0xf7, .wide = wide},
               to, count, from);
}

void emit_rotate_right_to(struct emitter *e, unsigned to, unsigned from, unsigned count)
{
    encode_vex(e, (struct form){.prefix = 0xf2, .map = MAP_0F3A, .opcode = 0xf0, .wide = true}, to,
               0, from);
    emit_byte(e, (uint8_t)count);
}

/* --- atomics -------------------------------------------------------------------------------- */

void emit_exchange(struct emitter *e, unsigned size_log2, struct host_memory memory, unsigned reg)
{
    encode_memory(e, (struct form){.opcode = 0x87, .wide = size_log2 == 3}, reg, memory);
}

void emit_locked_add(struct emitter *e, unsigned size_log2, struct host_memory memory, unsigned reg)
{
    emit_byte(e, 0xf0);
    encode_memory(e, (struct form){.map = MAP_0F, .opcode = 0xc1, .wide = size_log2 == 3}, reg,
                  memory);
}

void emit_locked_arithmetic(struct emitter *e, unsigned size_log2, enum host_arithmetic operation,
                            struct host_memory memory, unsigned reg)
{
    uint8_t opcode = (uint8_t)(operation << 3 | 1);
    emit_byte(e, 0xf0);
    encode_memory(e, (struct form){.opcode = opcode, .wide = size_log2 == 3}, reg, memory);
}

void emit_locked_compare_exchange(struct emitter *e, unsigned size_log2, struct host_memory memory,
                                  unsigned reg)
{
    emit_byte(e, 0xf0);
    encode_memory(e, (struct form){.map = MAP_0F, .opcode = 0xb1, .wide = size_log2 == 3}, reg,
                  memory);
}

/* Any locked operation orders earlier stores before later loads; on the stack it is the quickest.
 */
void emit_full_fence(struct emitter *e)
{
    emit_byte(e, 0xf0);
    emit_arithmetic_memory_constant(e, false, HOST_OR, host_at(RSP, 0), 0);
}

/* --- control -------------------------------------------------------------------------------- */

uint32_t emit_jump(struct emitter *e)
{
    emit_byte(e, 0xe9);
    emit_u32(e, 0);
    return e->at - 4;
}

uint32_t emit_call(struct emitter *e)
{
    emit_byte(e, 0xe8);
    emit_u32(e, 0);
    return e->at - 4;
}

uint32_t emit_jump_if(struct emitter *e, enum host_condition condition)
{
    emit_byte(e, 0x0f);
    emit_byte(e, (uint8_t)(0x80 | condition));
    emit_u32(e, 0);
    return e->at - 4;
}

void emit_land_at(struct emitter *e, uint32_t at, uint32_t target)
{
    uint32_t displacement = target - (at + 4);
    for (unsigned i = 0; i < 4 && at + i < e->size; i++) {
        e->bytes[at + i] = (uint8_t)(displacement >> 8 * i);
    }
}

void emit_displace(uint8_t *field, int32_t distance)
{
    int32_t displacement = distance - 4;
    memcpy(field, &displacement, sizeof(displacement));
}

void emit_land(struct emitter *e, uint32_t at)
{
    emit_land_at(e, at, e->at);
}

void emit_jump_memory(struct emitter *e, struct host_memory to)
{
    encode_memory(e, (struct form){.opcode = 0xff}, 4, to);
}

void emit_call_register(struct emitter *e, unsigned to)
{
    encode_register(e, (struct form){.opcode = 0xff}, 2, to);
}

void emit_return(struct emitter *e)
{
    emit_byte(e, 0xc3);
}

uint32_t emit_address_of(struct emitter *e, unsigned to)
{
    emit_address(e, true, to, (struct host_memory){.base = NO_REGISTER, .index = NO_REGISTER});
    return e->at - 4;
}

/* --- SSE2 and FMA --------------------------------------------------------------------------- */

void emit_float(struct emitter *e, enum host_prefix prefix, enum host_float operation, unsigned to,
                unsigned from)
{
    encode_register(
        e, (struct form){.prefix = (uint8_t)prefix, .map = MAP_0F, .opcode = (uint8_t)operation},
        to, from);
}

void emit_float_load(struct emitter *e, bool is_double, unsigned to, struct host_memory from)
{
    uint8_t prefix = is_double ? HOST_SD : HOST_SS;
    encode_memory(e, (struct form){.prefix = prefix, .map = MAP_0F, .opcode = 0x10}, to, from);
}

void emit_float_store(struct emitter *e, bool is_double, struct host_memory to, unsigned from)
{
    uint8_t prefix = is_double ? HOST_SD : HOST_SS;
    encode_memory(e, (struct form){.prefix = prefix, .map = MAP_0F, .opcode = 0x11}, from, to);
}

void emit_float_move(struct emitter *e, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.map = MAP_0F, .opcode = 0x28}, to, from);
}

void emit_float_zero(struct emitter *e, unsigned reg)
{
    emit_float(e, HOST_PS, HOST_FLOAT_XOR, reg, reg);
}

void emit_float_sign_mask(struct emitter *e, bool is_double, unsigned reg)
{
    /* PCMPEQD, then PSLLQ or PSLLD by immediate */
    encode_register(e, (struct form){.prefix = 0x66, .map = MAP_0F, .opcode = 0x76}, reg, reg);
    encode_register(
        e, (struct form){.prefix = 0x66, .map = MAP_0F, .opcode = is_double ? 0x73 : 0x72}, 6, reg);
    emit_byte(e, is_double ? 63 : 31);
}

void emit_bytes_equal(struct emitter *e, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.prefix = 0x66, .map = MAP_0F, .opcode = 0x74}, to, from);
}

void emit_float_from_bits(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.prefix = 0x66, .map = MAP_0F, .opcode = 0x6e, .wide = wide},
                    to, from);
}

void emit_float_to_bits(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    encode_register(e, (struct form){.prefix = 0x66, .map = MAP_0F, .opcode = 0x7e, .wide = wide},
                    from, to);
}

void emit_float_from_integer(struct emitter *e, bool is_double, bool wide, unsigned to,
                             unsigned from)
{
    encode_register(
        e,
        (struct form){
            .prefix = is_double ? HOST_SD : HOST_SS, .map = MAP_0F, .opcode = 0x2a, .wide = wide},
        to, from);
}

void emit_float_to_integer(struct emitter *e, bool is_double, bool wide, bool truncate, unsigned to,
                           unsigned from)
{
    encode_register(e,
                    (struct form){.prefix = is_double ? HOST_SD : HOST_SS,
                                  .map = MAP_0F,
                                  .opcode = truncate ? 0x2c : 0x2d,
                                  .wide = wide},
                    to, from);
}

void emit_float_fused(struct emitter *e, bool is_double, bool negate_product, bool negate_addend,
                      unsigned to, unsigned b, unsigned c)
{
    static const uint8_t opcodes[2][2] = {{0xa9, 0xab}, {0xad, 0xaf}}; /* the 213 forms */
    encode_vex(e,
               (struct form){.prefix = 0x66,
                             .map = MAP_0F38,
                             .opcode = opcodes[negate_product][negate_addend],
                             .wide = is_double},
               to, b, c);
}

#endif
