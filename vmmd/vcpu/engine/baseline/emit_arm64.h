/*
 * An assembler for arm64 (A64): one function an instruction form, appending to a byte buffer.
 *
 * Encodings follow the Arm Architecture Reference Manual for A-profile, chapter C4. What all hosts
 * have is listed in emit.h. Where an immediate does not fit, x16 is used to build it, so x16 holds
 * nothing across any function here; x17 is for users of the assembler in the same way. "Wide" means
 * 64 bits, otherwise 32, which clear the upper half of the destination.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_ARM64_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_ARM64_H

#include "vmmd/vcpu/engine/baseline/emit.h"

/* Registers are plain numbers; 31 is zero or the stack pointer, as the form says. */
#define HOST_ZERO 31u
#define HOST_SP   31u
#define HOST_LINK 30u
#define HOST_X16  16u
#define HOST_X17  17u

enum host_condition {
    HOST_EQUAL = 0,
    HOST_NOT_EQUAL = 1,
    HOST_ABOVE_EQUAL = 2,
    HOST_BELOW = 3,
    HOST_MINUS = 4, /* after a floating-point comparison: less */
    HOST_PLUS = 5,
    HOST_UNORDERED = 6, /* overflow */
    HOST_ORDERED = 7,
    HOST_ABOVE = 8,
    HOST_BELOW_EQUAL = 9, /* after a floating-point comparison: less or equal */
    HOST_GREATER_EQUAL = 10,
    HOST_LESS = 11,
    HOST_GREATER = 12,
    HOST_LESS_EQUAL = 13,
};

static inline enum host_condition host_opposite(enum host_condition condition)
{
    return (enum host_condition)(condition ^ 1);
}

/* [base + displacement], or [base + index] when there is one. */
struct host_memory {
    uint8_t base, index;
    int32_t displacement;
};

static inline struct host_memory host_at(unsigned base, int32_t displacement)
{
    return (struct host_memory){(uint8_t)base, NO_REGISTER, displacement};
}

static inline struct host_memory host_indexed(unsigned base, unsigned index)
{
    return (struct host_memory){(uint8_t)base, (uint8_t)index, 0};
}

/* Register arithmetic, as the upper bits of the "shifted register" forms. */
enum host_arithmetic {
    HOST_AND = 0x0a000000,
    HOST_AND_NOT = 0x0a200000,
    HOST_OR = 0x2a000000,
    HOST_OR_NOT = 0x2a200000,
    HOST_XOR = 0x4a000000,
    HOST_XOR_NOT = 0x4a200000,
    HOST_ADD = 0x0b000000,
    HOST_SUB = 0x4b000000,
    HOST_SUB_FLAGS = 0x6b000000,
};
/* Shifts, as their number in those forms. */
enum host_shift { HOST_SHL = 0, HOST_SHR = 1, HOST_SAR = 2, HOST_ROR = 3 };
/* Two sources: multiplication and division. */
enum host_product {
    HOST_MUL = 0x1b007c00,
    HOST_HIGH_SIGNED = 0x9b407c00,   /* 64 bits only */
    HOST_HIGH_UNSIGNED = 0x9bc07c00, /* 64 bits only */
    HOST_DIV_UNSIGNED = 0x1ac00800,  /* by zero: zero */
    HOST_DIV_SIGNED = 0x1ac00c00,
};
/* One source. */
enum host_unary { HOST_REVERSE_BITS = 0x5ac00000, HOST_LEADING_ZEROS = 0x5ac01000 };

/* --- moves and arithmetic --------------------------------------------------------------------- */
void emit_move(struct emitter *e, bool wide, unsigned to, unsigned from);
/* The shortest way to a constant; flags are kept. */
void emit_constant(struct emitter *e, unsigned to, uint64_t value);
void emit_address(struct emitter *e, bool wide, unsigned to, struct host_memory from);
void emit_arithmetic(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                     unsigned a, unsigned b);
/* to = a op (b shifted) */
void emit_arithmetic_shifted(struct emitter *e, bool wide, enum host_arithmetic operation,
                             unsigned to, unsigned a, unsigned b, enum host_shift shift,
                             unsigned count);
/* Any constant; not HOST_SUB_FLAGS. */
void emit_arithmetic_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                              unsigned to, unsigned a, int64_t value);
/* to = a + (low half of b << shift), shift 0 to 4 */
void emit_add_low_half(struct emitter *e, unsigned to, unsigned a, unsigned b, unsigned shift);
void emit_compare(struct emitter *e, bool wide, unsigned a, unsigned b);
void emit_compare_constant(struct emitter *e, bool wide, unsigned a, int64_t value);
void emit_product(struct emitter *e, bool wide, enum host_product operation, unsigned to,
                  unsigned a, unsigned b);
/* to = addend - a * b */
void emit_multiply_subtract(struct emitter *e, bool wide, unsigned to, unsigned a, unsigned b,
                            unsigned addend);
void emit_shift(struct emitter *e, bool wide, enum host_shift operation, unsigned to, unsigned from,
                unsigned count);
void emit_shift_constant(struct emitter *e, bool wide, enum host_shift operation, unsigned to,
                         unsigned from, unsigned count);
/* to = `width` bits of `from`, from bit `low` on, zero-extended */
void emit_extract(struct emitter *e, bool wide, unsigned to, unsigned from, unsigned low,
                  unsigned width);
/* Register to register, extended from 2^size_log2 bytes (0, 1 or 2) to 64 bits. */
void emit_extend(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to, unsigned from);
void emit_unary(struct emitter *e, bool wide, enum host_unary operation, unsigned to,
                unsigned from);
void emit_swap_bytes(struct emitter *e, bool wide, unsigned to, unsigned from);
/* 1 or 0; a or b; a or all ones. */
void emit_set(struct emitter *e, enum host_condition condition, unsigned to);
void emit_select(struct emitter *e, bool wide, enum host_condition condition, unsigned to,
                 unsigned a, unsigned b);
void emit_select_ones(struct emitter *e, bool wide, enum host_condition condition, unsigned to,
                      unsigned a);

/* --- memory ----------------------------------------------------------------------------------- */
void emit_load64(struct emitter *e, unsigned to, struct host_memory from);
/* 2^size_log2 bytes, extended to 64 bits. */
void emit_load(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to,
               struct host_memory from);
void emit_store(struct emitter *e, unsigned size_log2, struct host_memory to, unsigned from);
/* Zero, or anything where the displacement fits the instruction (otherwise: overflow). */
void emit_store_constant(struct emitter *e, unsigned size_log2, struct host_memory to,
                         int32_t value);
/* Two words from `base`. */
void emit_load_pair(struct emitter *e, unsigned first, unsigned second, unsigned base);
/* Two values on the stack. */
void emit_push(struct emitter *e, unsigned first, unsigned second);
void emit_pop(struct emitter *e, unsigned first, unsigned second);

/* Aligned, sizes 2 and 3 (log2), address in a register. */
void emit_load_acquire(struct emitter *e, unsigned size_log2, unsigned to, unsigned address);
void emit_load_exclusive(struct emitter *e, unsigned size_log2, bool acquire, unsigned to,
                         unsigned address);
/* failed: 0 or 1; another register than the others. */
void emit_store_exclusive(struct emitter *e, unsigned size_log2, bool release, unsigned failed,
                          unsigned from, unsigned address);
/* FEAT_LSE. `old` is never HOST_ZERO. */
enum host_atomic {
    HOST_ATOMIC_ADD = 0x0000,
    HOST_ATOMIC_CLEAR = 0x1000,
    HOST_ATOMIC_XOR = 0x2000,
    HOST_ATOMIC_OR = 0x3000,
    HOST_ATOMIC_MAXS = 0x4000,
    HOST_ATOMIC_MINS = 0x5000,
    HOST_ATOMIC_MAXU = 0x6000,
    HOST_ATOMIC_MINU = 0x7000,
    HOST_ATOMIC_SWAP = 0x8000,
};
void emit_atomic(struct emitter *e, unsigned size_log2, enum host_atomic operation, bool acquire,
                 bool release, unsigned old, unsigned operand, unsigned address);
/* `expected` gets the old value. */
void emit_compare_exchange(struct emitter *e, unsigned size_log2, bool acquire, bool release,
                           unsigned expected, unsigned desired, unsigned address);
enum host_fence { HOST_FENCE_LOADS = 9, HOST_FENCE_STORES = 10, HOST_FENCE_ALL = 11 };
void emit_fence(struct emitter *e, enum host_fence fence); /* DMB, inner shareable */
/* Fetch what follows anew (ISB). */
void emit_fetch_barrier(struct emitter *e);

/* --- control: jumps return their position, for a fix-up ----------------------------------------
 */
uint32_t emit_jump(struct emitter *e);
uint32_t emit_jump_if(struct emitter *e, enum host_condition condition);
/* If the register is zero, or not. */
uint32_t emit_jump_zero(struct emitter *e, bool wide, bool not_zero, unsigned reg);
/* ADR: the address of something elsewhere. */
uint32_t emit_address_of(struct emitter *e, unsigned to);
/* Within the buffer: let what is at `at` lead here, or to `target`. */
void emit_land(struct emitter *e, uint32_t at);
void emit_land_at(struct emitter *e, uint32_t at, uint32_t target);
/* The same where code has been copied to: the target is `distance` bytes from the instruction. */
void emit_displace(uint8_t *field, int32_t distance);
/* The instruction that emit_jump makes, with its distance: what a jump is patched with. */
uint32_t emit_jump_word(int32_t distance);
void emit_jump_register(struct emitter *e, unsigned to);
void emit_call_register(struct emitter *e, unsigned to);
void emit_return(struct emitter *e);

/* --- floating point, scalar --------------------------------------------------------------------
 */
enum host_float {
    HOST_FLOAT_MUL = 0x1e200800,
    HOST_FLOAT_DIV = 0x1e201800,
    HOST_FLOAT_ADD = 0x1e202800,
    HOST_FLOAT_SUB = 0x1e203800,
    HOST_FLOAT_MAX = 0x1e206800, /* of numbers: -0 is less than +0 */
    HOST_FLOAT_MIN = 0x1e207800,
};
enum host_float_unary {
    HOST_FLOAT_MOVE = 0x1e204000,
    HOST_FLOAT_ABS = 0x1e20c000,
    HOST_FLOAT_NEGATE = 0x1e214000,
    HOST_FLOAT_SQRT = 0x1e21c000,
};
/* As the operations' rmode and opcode fields. */
enum host_round {
    HOST_ROUND_NEAREST = 0x0000,
    HOST_ROUND_UP = 0x0100,
    HOST_ROUND_DOWN = 0x0200,
    HOST_ROUND_ZERO = 0x0300,
    HOST_ROUND_AWAY = 0x0004,
};
void emit_float(struct emitter *e, bool is_double, enum host_float operation, unsigned to,
                unsigned a, unsigned b);
void emit_float_unary(struct emitter *e, bool is_double, enum host_float_unary operation,
                      unsigned to, unsigned from);
void emit_float_move(struct emitter *e, unsigned to, unsigned from); /* 64 bits */
/* to = +-(a * b) +- c, rounded once */
void emit_float_fused(struct emitter *e, bool is_double, bool negate_product, bool negate_addend,
                      unsigned to, unsigned a, unsigned b, unsigned c);
void emit_float_compare(struct emitter *e, bool is_double, bool signalling, unsigned a, unsigned b);
void emit_float_compare_zero(struct emitter *e, bool is_double, unsigned a);
void emit_float_load(struct emitter *e, bool is_double, unsigned to, struct host_memory from);
void emit_float_store(struct emitter *e, bool is_double, struct host_memory to, unsigned from);
void emit_float_zero(struct emitter *e, unsigned reg);
/* Double to single, or single to double. */
void emit_float_convert(struct emitter *e, bool to_double, unsigned to, unsigned from);
/* Raw bits between the files. */
void emit_float_from_bits(struct emitter *e, bool wide, unsigned to, unsigned from);
void emit_float_to_bits(struct emitter *e, bool wide, unsigned to, unsigned from);
/* Rounding as FPCR says. */
void emit_float_from_integer(struct emitter *e, bool is_double, bool wide, bool is_signed,
                             unsigned to, unsigned from);
/* Saturating; NaN becomes zero. */
void emit_float_to_integer(struct emitter *e, bool is_double, bool wide, bool is_signed,
                           enum host_round round, unsigned to, unsigned from);

/* --- vectors of eight bytes ---------------------------------------------------------------------
 */
enum host_bytes {
    HOST_BYTES_AND = 0x0e201c00,
    HOST_BYTES_XOR = 0x2e201c00,
    HOST_BYTES_SELECT = 0x2e601c00, /* to = bits of a where to has ones, otherwise of b */
    HOST_BYTES_TEST = 0x0e208c00,   /* all ones in each byte where a & b is not zero */
};
void emit_bytes_combine(struct emitter *e, enum host_bytes operation, unsigned to, unsigned a,
                        unsigned b);
/* The number of ones in the low 8 bytes, in the lowest byte of `to`; the rest of it is zero. */
void emit_count_ones(struct emitter *e, unsigned to, unsigned from);

#endif
