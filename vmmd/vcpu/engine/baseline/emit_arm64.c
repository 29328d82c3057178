/* Instructions are words; `struct emitter` takes them as bytes, in the order of memory. */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/emit_arm64.h"
#include <string.h>

#define WIDE(wide) ((wide) ? UINT32_C(1) << 31 : 0)
/* `type` of floating-point instructions. */
#define DOUBLE(is_double) ((is_double) ? UINT32_C(1) << 22 : 0)

static uint32_t rd(unsigned reg)
{
    return reg & 31;
}

static uint32_t rn(unsigned reg)
{
    return (reg & 31) << 5;
}

static uint32_t rm(unsigned reg)
{
    return (reg & 31) << 16;
}

static uint32_t ra(unsigned reg)
{
    return (reg & 31) << 10;
}

/* --- constants -------------------------------------------------------------------------------- */

static uint64_t rotate_right(uint64_t value, unsigned count, unsigned width)
{
    uint64_t mask = width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
    value &= mask;
    return count ? (value >> count | value << (width - count)) & mask : value;
}

/* N, immr and imms of a logical immediate (DecodeBitMasks): a run of ones, rotated, repeated. */
static bool logical_fields(uint64_t value, bool wide, uint32_t *fields)
{
    if (!wide) {
        value = (value & UINT32_MAX) | value << 32;
    }
    if (value == 0 || value == UINT64_MAX) {
        return false;
    }
    unsigned width = 64;
    while (width > 2 && rotate_right(value, width / 2, width) == rotate_right(value, 0, width)) {
        width /= 2;
    }
    uint64_t element = rotate_right(value, 0, width);
    /* Rotate until the run starts at bit 0: bit 0 set, top bit clear. */
    for (unsigned rotation = 0; rotation < width; rotation++) {
        uint64_t turned = rotate_right(element, rotation, width);
        if ((turned & (turned + 1)) == 0) {
            unsigned ones = (unsigned)__builtin_popcountll(turned);
            uint32_t immr = (width - rotation) & (width - 1);
            uint32_t imms = (uint32_t)(-(width << 1) & 0x3f) | (ones - 1);
            *fields = (width == 64 ? UINT32_C(1) << 22 : 0) | immr << 16 | imms << 10;
            return true;
        }
    }
    return false;
}

#define MOVZ UINT32_C(0xd2800000)
#define MOVN UINT32_C(0x92800000)
#define MOVK UINT32_C(0xf2800000)

static void emit_wide_move(struct emitter *e, uint32_t opcode, unsigned to, unsigned half,
                           uint64_t value)
{
    emit_u32(e, opcode | half << 21 | (uint32_t)(value >> 16 * half & 0xffff) << 5 | rd(to));
}

static unsigned count_halves(uint64_t value)
{
    unsigned count = 0;
    for (unsigned half = 0; half < 4; half++) {
        count += (value >> 16 * half & 0xffff) != 0;
    }
    return count;
}

void emit_constant(struct emitter *e, unsigned to, uint64_t value)
{
    uint32_t fields;
    bool inverted = count_halves(~value) < count_halves(value);
    uint64_t plain = inverted ? ~value : value;
    if (count_halves(plain) > 1 && logical_fields(value, true, &fields)) {
        emit_u32(e, UINT32_C(0xb2000000) | fields | rn(HOST_ZERO) | rd(to));
        return;
    }
    bool first = true;
    for (unsigned half = 0; half < 4; half++) {
        if ((plain >> 16 * half & 0xffff) == 0) {
            continue;
        }
        if (first) {
            emit_wide_move(e, inverted ? MOVN : MOVZ, to, half, plain);
        } else {
            emit_wide_move(e, MOVK, to, half, value);
        }
        first = false;
    }
    if (first) {
        emit_wide_move(e, inverted ? MOVN : MOVZ, to, 0, 0);
    }
}

/* --- arithmetic ------------------------------------------------------------------------------- */

void emit_arithmetic_shifted(struct emitter *e, bool wide, enum host_arithmetic operation,
                             unsigned to, unsigned a, unsigned b, enum host_shift shift,
                             unsigned count)
{
    emit_u32(e, WIDE(wide) | (uint32_t)operation | (uint32_t)shift << 22 | rm(b) | count << 10 |
                    rn(a) | rd(to));
}

void emit_arithmetic(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                     unsigned a, unsigned b)
{
    emit_arithmetic_shifted(e, wide, operation, to, a, b, HOST_SHL, 0);
}

void emit_move(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    emit_arithmetic(e, wide, HOST_OR, to, HOST_ZERO, from);
}

/* ADD or SUB (or, with flags, SUBS) of 12 bits, perhaps shifted by 12. */
static bool emit_small_sum(struct emitter *e, bool wide, uint32_t opcode, unsigned to, unsigned a,
                           uint64_t value)
{
    if (value < 4096) {
        emit_u32(e, WIDE(wide) | opcode | (uint32_t)value << 10 | rn(a) | rd(to));
        return true;
    }
    if (value < 4096u << 12 && value % 4096 == 0) {
        emit_u32(e, WIDE(wide) | opcode | UINT32_C(1) << 22 | (uint32_t)(value >> 12) << 10 |
                        rn(a) | rd(to));
        return true;
    }
    return false;
}

#define ADD_IMMEDIATE  UINT32_C(0x11000000)
#define SUB_IMMEDIATE  UINT32_C(0x51000000)
#define ADDS_IMMEDIATE UINT32_C(0x31000000)
#define SUBS_IMMEDIATE UINT32_C(0x71000000)

static void emit_sum(struct emitter *e, bool wide, unsigned to, unsigned a, int64_t value)
{
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    uint32_t opcode = value < 0 ? SUB_IMMEDIATE : ADD_IMMEDIATE;
    if (emit_small_sum(e, wide, opcode, to, a, magnitude)) {
        return;
    }
    if (magnitude < 4096u << 12 && a != HOST_ZERO && to != HOST_ZERO) {
        emit_small_sum(e, wide, opcode, to, a, magnitude & ~UINT64_C(4095));
        emit_small_sum(e, wide, opcode, to, to, magnitude & 4095);
        return;
    }
    emit_constant(e, HOST_X16, (uint64_t)value);
    emit_arithmetic(e, wide, HOST_ADD, to, a, HOST_X16);
}

static bool is_inverting(enum host_arithmetic operation)
{
    return operation == HOST_AND_NOT || operation == HOST_OR_NOT || operation == HOST_XOR_NOT;
}

void emit_arithmetic_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                              unsigned to, unsigned a, int64_t value)
{
    static const uint32_t immediate[] = {0x12000000, 0x32000000, 0x52000000};
    uint32_t fields;
    if (operation == HOST_ADD || operation == HOST_SUB) {
        int64_t narrow = wide ? value : (int32_t)value;
        emit_sum(e, wide, to, a, operation == HOST_ADD ? narrow : (int64_t)(0 - (uint64_t)narrow));
        return;
    }
    uint64_t bits = is_inverting(operation) ? ~(uint64_t)value : (uint64_t)value;
    if (logical_fields(bits, wide, &fields)) {
        emit_u32(e,
                 WIDE(wide) | immediate[(uint32_t)operation >> 29 & 3] | fields | rn(a) | rd(to));
        return;
    }
    emit_constant(e, HOST_X16, wide ? (uint64_t)value : (uint32_t)value);
    emit_arithmetic(e, wide, operation, to, a, HOST_X16);
}

void emit_address(struct emitter *e, bool wide, unsigned to, struct host_memory from)
{
    if (from.index != NO_REGISTER) {
        emit_arithmetic(e, wide, HOST_ADD, to, from.base, from.index);
    } else if (from.displacement == 0) {
        emit_move(e, wide, to, from.base);
    } else {
        emit_sum(e, wide, to, from.base, from.displacement);
    }
}

void emit_add_low_half(struct emitter *e, unsigned to, unsigned a, unsigned b, unsigned shift)
{
    emit_u32(e, UINT32_C(0x8b204000) | rm(b) | shift << 10 | rn(a) | rd(to));
}

void emit_compare(struct emitter *e, bool wide, unsigned a, unsigned b)
{
    emit_arithmetic(e, wide, HOST_SUB_FLAGS, HOST_ZERO, a, b);
}

void emit_compare_constant(struct emitter *e, bool wide, unsigned a, int64_t value)
{
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    uint32_t opcode = value < 0 ? ADDS_IMMEDIATE : SUBS_IMMEDIATE;
    if (!emit_small_sum(e, wide, opcode, HOST_ZERO, a, magnitude)) {
        emit_constant(e, HOST_X16, (uint64_t)value);
        emit_compare(e, wide, a, HOST_X16);
    }
}

void emit_product(struct emitter *e, bool wide, enum host_product operation, unsigned to,
                  unsigned a, unsigned b)
{
    emit_u32(e, WIDE(wide) | (uint32_t)operation | rm(b) | rn(a) | rd(to));
}

void emit_multiply_subtract(struct emitter *e, bool wide, unsigned to, unsigned a, unsigned b,
                            unsigned addend)
{
    emit_u32(e, WIDE(wide) | UINT32_C(0x1b008000) | rm(b) | ra(addend) | rn(a) | rd(to));
}

void emit_shift(struct emitter *e, bool wide, enum host_shift operation, unsigned to, unsigned from,
                unsigned count)
{
    emit_u32(e, WIDE(wide) | UINT32_C(0x1ac02000) | (uint32_t)operation << 10 | rm(count) |
                    rn(from) | rd(to));
}

/* SBFM or UBFM. */
static void emit_bit_field(struct emitter *e, bool wide, bool is_signed, unsigned to, unsigned from,
                           unsigned immr, unsigned imms)
{
    uint32_t opcode = is_signed ? 0x13000000 : 0x53000000;
    emit_u32(e, WIDE(wide) | opcode | (wide ? UINT32_C(1) << 22 : 0) | immr << 16 | imms << 10 |
                    rn(from) | rd(to));
}

void emit_shift_constant(struct emitter *e, bool wide, enum host_shift operation, unsigned to,
                         unsigned from, unsigned count)
{
    unsigned top = wide ? 63 : 31;
    if (operation == HOST_SHL) {
        emit_bit_field(e, wide, false, to, from, -count & top, top - count);
    } else if (operation == HOST_ROR) {
        emit_u32(e, WIDE(wide) | UINT32_C(0x13800000) | (wide ? UINT32_C(1) << 22 : 0) | rm(from) |
                        count << 10 | rn(from) | rd(to)); /* EXTR */
    } else {
        emit_bit_field(e, wide, operation == HOST_SAR, to, from, count, top);
    }
}

void emit_extract(struct emitter *e, bool wide, unsigned to, unsigned from, unsigned low,
                  unsigned width)
{
    emit_bit_field(e, wide, false, to, from, low, low + width - 1);
}

void emit_extend(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to, unsigned from)
{
    if (size_log2 == 2 && !is_signed) {
        emit_move(e, false, to, from);
    } else {
        emit_bit_field(e, is_signed, is_signed, to, from, 0, (8u << size_log2) - 1);
    }
}

void emit_unary(struct emitter *e, bool wide, enum host_unary operation, unsigned to, unsigned from)
{
    emit_u32(e, WIDE(wide) | (uint32_t)operation | rn(from) | rd(to));
}

void emit_swap_bytes(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    emit_u32(e, (wide ? UINT32_C(0xdac00c00) : UINT32_C(0x5ac00800)) | rn(from) | rd(to));
}

void emit_select(struct emitter *e, bool wide, enum host_condition condition, unsigned to,
                 unsigned a, unsigned b)
{
    emit_u32(e, WIDE(wide) | UINT32_C(0x1a800000) | rm(b) | (uint32_t)condition << 12 | rn(a) |
                    rd(to));
}

void emit_select_ones(struct emitter *e, bool wide, enum host_condition condition, unsigned to,
                      unsigned a)
{
    emit_u32(e, WIDE(wide) | UINT32_C(0x5a800000) | rm(HOST_ZERO) | (uint32_t)condition << 12 |
                    rn(a) | rd(to)); /* CSINV */
}

void emit_set(struct emitter *e, enum host_condition condition, unsigned to)
{
    emit_u32(e, UINT32_C(0x9a800400) | rm(HOST_ZERO) | (uint32_t)host_opposite(condition) << 12 |
                    rn(HOST_ZERO) | rd(to)); /* CSINC */
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool fits_access(unsigned size_log2, int32_t displacement)
{
    int32_t scaled = displacement >> size_log2;
    return (displacement >= -256 && displacement < 256) ||
           (scaled >= 0 && scaled < 4096 && scaled << size_log2 == displacement);
}

/* `opcode`: size, V and opc, as in all three forms. */
static void emit_access(struct emitter *e, uint32_t opcode, unsigned size_log2, unsigned reg,
                        struct host_memory memory)
{
    if (memory.index != NO_REGISTER) {
        emit_u32(e, opcode | UINT32_C(0x38206800) | rm(memory.index) | rn(memory.base) | rd(reg));
        return;
    }
    int32_t displacement = memory.displacement;
    uint32_t scaled = (uint32_t)displacement >> size_log2;
    if (displacement >= 0 && scaled < 4096 && scaled << size_log2 == (uint32_t)displacement) {
        emit_u32(e, opcode | UINT32_C(0x39000000) | scaled << 10 | rn(memory.base) | rd(reg));
    } else if (displacement >= -256 && displacement < 256) {
        emit_u32(e, opcode | UINT32_C(0x38000000) | ((uint32_t)displacement & 0x1ff) << 12 |
                        rn(memory.base) | rd(reg));
    } else {
        emit_constant(e, HOST_X16, (uint64_t)(int64_t)displacement);
        emit_access(e, opcode, size_log2, reg, host_indexed(memory.base, HOST_X16));
    }
}

void emit_load(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to,
               struct host_memory from)
{
    uint32_t kind = is_signed && size_log2 < 3 ? UINT32_C(2) << 22 : UINT32_C(1) << 22;
    emit_access(e, size_log2 << 30 | kind, size_log2, to, from);
}

void emit_load64(struct emitter *e, unsigned to, struct host_memory from)
{
    emit_load(e, 3, false, to, from);
}

void emit_store(struct emitter *e, unsigned size_log2, struct host_memory to, unsigned from)
{
    emit_access(e, size_log2 << 30, size_log2, from, to);
}

void emit_store_constant(struct emitter *e, unsigned size_log2, struct host_memory to,
                         int32_t value)
{
    unsigned from = HOST_ZERO;
    if (value) {
        from = HOST_X16;
        emit_constant(e, from, (uint64_t)(int64_t)value);
        /* Otherwise the address would need x16 as well. */
        e->overflow |= to.index == NO_REGISTER && !fits_access(size_log2, to.displacement);
    }
    emit_store(e, size_log2, to, from);
}

void emit_load_pair(struct emitter *e, unsigned first, unsigned second, unsigned base)
{
    emit_u32(e, UINT32_C(0xa9400000) | ra(second) | rn(base) | rd(first));
}

void emit_push(struct emitter *e, unsigned first, unsigned second)
{
    emit_u32(e, UINT32_C(0xa9bf0000) | ra(second) | rn(HOST_SP) | rd(first));
}

void emit_pop(struct emitter *e, unsigned first, unsigned second)
{
    emit_u32(e, UINT32_C(0xa8c10000) | ra(second) | rn(HOST_SP) | rd(first));
}

/* The exclusive group: bits 23 (ordered), 22 (load), 15 (ordered as acquire or release). */
static void emit_exclusive(struct emitter *e, unsigned size_log2, uint32_t bits, unsigned status,
                           unsigned reg, unsigned address)
{
    emit_u32(e, size_log2 << 30 | UINT32_C(0x08007c00) | bits | rm(status) | rn(address) | rd(reg));
}

void emit_load_acquire(struct emitter *e, unsigned size_log2, unsigned to, unsigned address)
{
    emit_exclusive(e, size_log2, 0x00c08000, 31, to, address);
}

void emit_load_exclusive(struct emitter *e, unsigned size_log2, bool acquire, unsigned to,
                         unsigned address)
{
    emit_exclusive(e, size_log2, 0x00400000 | (acquire ? 0x8000 : 0), 31, to, address);
}

void emit_store_exclusive(struct emitter *e, unsigned size_log2, bool release, unsigned failed,
                          unsigned from, unsigned address)
{
    emit_exclusive(e, size_log2, release ? 0x8000 : 0, failed, from, address);
}

void emit_atomic(struct emitter *e, unsigned size_log2, enum host_atomic operation, bool acquire,
                 bool release, unsigned old, unsigned operand, unsigned address)
{
    emit_u32(e, size_log2 << 30 | UINT32_C(0x38200000) | (acquire ? UINT32_C(1) << 23 : 0) |
                    (release ? UINT32_C(1) << 22 : 0) | (uint32_t)operation | rm(operand) |
                    rn(address) | rd(old));
}

void emit_compare_exchange(struct emitter *e, unsigned size_log2, bool acquire, bool release,
                           unsigned expected, unsigned desired, unsigned address)
{
    emit_u32(e, size_log2 << 30 | UINT32_C(0x08a07c00) | (acquire ? UINT32_C(1) << 22 : 0) |
                    (release ? UINT32_C(1) << 15 : 0) | rm(expected) | rn(address) | rd(desired));
}

void emit_fence(struct emitter *e, enum host_fence fence)
{
    emit_u32(e, UINT32_C(0xd50330bf) | (uint32_t)fence << 8);
}

void emit_fetch_barrier(struct emitter *e)
{
    emit_u32(e, UINT32_C(0xd5033fdf));
}

/* --- control ---------------------------------------------------------------------------------- */

static uint32_t emit_word(struct emitter *e, uint32_t word)
{
    uint32_t at = e->at;
    emit_u32(e, word);
    return at;
}

#define JUMP         UINT32_C(0x14000000)
#define JUMP_MASK    UINT32_C(0xfc000000)
#define ADDRESS      UINT32_C(0x10000000)
#define ADDRESS_MASK UINT32_C(0x9f000000)

uint32_t emit_jump(struct emitter *e)
{
    return emit_word(e, JUMP);
}

uint32_t emit_jump_if(struct emitter *e, enum host_condition condition)
{
    return emit_word(e, UINT32_C(0x54000000) | (uint32_t)condition);
}

uint32_t emit_jump_zero(struct emitter *e, bool wide, bool not_zero, unsigned reg)
{
    return emit_word(e, WIDE(wide) | UINT32_C(0x34000000) | (not_zero ? UINT32_C(1) << 24 : 0) |
                            rd(reg));
}

uint32_t emit_address_of(struct emitter *e, unsigned to)
{
    return emit_word(e, ADDRESS | rd(to));
}

uint32_t emit_jump_word(int32_t distance)
{
    return JUMP | ((uint32_t)distance >> 2 & ~JUMP_MASK);
}

/* Which field it has is seen by the instruction; all ranges exceed the size of a block's code. */
void emit_displace(uint8_t *field, int32_t distance)
{
    uint32_t word, bits = (uint32_t)distance;
    memcpy(&word, field, sizeof(word));
    if ((word & JUMP_MASK) == JUMP) {
        word = emit_jump_word(distance);
    } else if ((word & ADDRESS_MASK) == ADDRESS) {
        word |= (bits & 3) << 29 | (bits >> 2 & 0x7ffff) << 5;
    } else {
        word = (word & ~(UINT32_C(0x7ffff) << 5)) | (bits >> 2 & 0x7ffff) << 5;
    }
    memcpy(field, &word, sizeof(word));
}

void emit_land_at(struct emitter *e, uint32_t at, uint32_t target)
{
    if (at + 4 <= e->size) {
        emit_displace(e->bytes + at, (int32_t)(target - at));
    }
}

void emit_land(struct emitter *e, uint32_t at)
{
    emit_land_at(e, at, e->at);
}

void emit_jump_register(struct emitter *e, unsigned to)
{
    emit_u32(e, UINT32_C(0xd61f0000) | rn(to));
}

void emit_call_register(struct emitter *e, unsigned to)
{
    emit_u32(e, UINT32_C(0xd63f0000) | rn(to));
}

void emit_return(struct emitter *e)
{
    emit_u32(e, UINT32_C(0xd65f0000) | rn(HOST_LINK));
}

/* --- floating point --------------------------------------------------------------------------- */

void emit_float(struct emitter *e, bool is_double, enum host_float operation, unsigned to,
                unsigned a, unsigned b)
{
    emit_u32(e, (uint32_t)operation | DOUBLE(is_double) | rm(b) | rn(a) | rd(to));
}

void emit_float_unary(struct emitter *e, bool is_double, enum host_float_unary operation,
                      unsigned to, unsigned from)
{
    emit_u32(e, (uint32_t)operation | DOUBLE(is_double) | rn(from) | rd(to));
}

void emit_float_move(struct emitter *e, unsigned to, unsigned from)
{
    emit_float_unary(e, true, HOST_FLOAT_MOVE, to, from);
}

/* FMADD c + ab, FMSUB c - ab, FNMADD -c - ab, FNMSUB -c + ab. */
void emit_float_fused(struct emitter *e, bool is_double, bool negate_product, bool negate_addend,
                      unsigned to, unsigned a, unsigned b, unsigned c)
{
    uint32_t negated = negate_addend ? UINT32_C(1) << 21 : 0;
    uint32_t subtracted = negate_product != negate_addend ? UINT32_C(1) << 15 : 0;
    emit_u32(e, UINT32_C(0x1f000000) | DOUBLE(is_double) | negated | subtracted | rm(b) | ra(c) |
                    rn(a) | rd(to));
}

void emit_float_compare(struct emitter *e, bool is_double, bool signalling, unsigned a, unsigned b)
{
    emit_u32(e, UINT32_C(0x1e202000) | DOUBLE(is_double) | (signalling ? 0x10 : 0) | rm(b) | rn(a));
}

void emit_float_compare_zero(struct emitter *e, bool is_double, unsigned a)
{
    emit_u32(e, UINT32_C(0x1e202008) | DOUBLE(is_double) | rn(a));
}

void emit_float_load(struct emitter *e, bool is_double, unsigned to, struct host_memory from)
{
    unsigned size_log2 = is_double ? 3 : 2;
    emit_access(e, size_log2 << 30 | UINT32_C(0x04400000), size_log2, to, from);
}

void emit_float_store(struct emitter *e, bool is_double, struct host_memory to, unsigned from)
{
    unsigned size_log2 = is_double ? 3 : 2;
    emit_access(e, size_log2 << 30 | UINT32_C(0x04000000), size_log2, from, to);
}

void emit_float_zero(struct emitter *e, unsigned reg)
{
    emit_u32(e, UINT32_C(0x2f00e400) | rd(reg)); /* MOVI */
}

void emit_float_convert(struct emitter *e, bool to_double, unsigned to, unsigned from)
{
    emit_u32(e, (to_double ? UINT32_C(0x1e22c000) : UINT32_C(0x1e624000)) | rn(from) | rd(to));
}

void emit_float_from_bits(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    emit_u32(e, WIDE(wide) | DOUBLE(wide) | UINT32_C(0x1e270000) | rn(from) | rd(to));
}

void emit_float_to_bits(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    emit_u32(e, WIDE(wide) | DOUBLE(wide) | UINT32_C(0x1e260000) | rn(from) | rd(to));
}

void emit_float_from_integer(struct emitter *e, bool is_double, bool wide, bool is_signed,
                             unsigned to, unsigned from)
{
    emit_u32(e, WIDE(wide) | DOUBLE(is_double) |
                    (is_signed ? UINT32_C(0x1e220000) : UINT32_C(0x1e230000)) | rn(from) | rd(to));
}

/* FCVT{N,P,M,Z,A}{S,U}. */
void emit_float_to_integer(struct emitter *e, bool is_double, bool wide, bool is_signed,
                           enum host_round round, unsigned to, unsigned from)
{
    uint32_t mode = ((uint32_t)round >> 8) << 19 | ((uint32_t)round & 7) << 16;
    emit_u32(e, WIDE(wide) | DOUBLE(is_double) | UINT32_C(0x1e200000) | mode |
                    (is_signed ? 0 : UINT32_C(1) << 16) | rn(from) | rd(to));
}

/* --- vectors ---------------------------------------------------------------------------------- */

void emit_bytes_combine(struct emitter *e, enum host_bytes operation, unsigned to, unsigned a,
                        unsigned b)
{
    emit_u32(e, (uint32_t)operation | rm(b) | rn(a) | rd(to));
}

void emit_count_ones(struct emitter *e, unsigned to, unsigned from)
{
    emit_u32(e, UINT32_C(0x0e205800) | rn(from) | rd(to)); /* CNT */
    emit_u32(e, UINT32_C(0x0e31b800) | rn(to) | rd(to));   /* ADDV */
}

#endif
