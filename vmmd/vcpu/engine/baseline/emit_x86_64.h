/*
 * An assembler for x86-64: one function an instruction form, appending to a byte buffer.
 *
 * Encodings follow the AMD64 Architecture Programmer's Manual, volume 3. What all hosts have is
 * listed in emit.h.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_X86_64_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_X86_64_H

#include "vmmd/vcpu/engine/baseline/emit.h"

enum host_register { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Condition codes, as the low four bits of Jcc, SETcc and CMOVcc. */
enum host_condition {
    HOST_BELOW = 0x2,
    HOST_ABOVE_EQUAL = 0x3,
    HOST_EQUAL = 0x4,
    HOST_NOT_EQUAL = 0x5,
    HOST_BELOW_EQUAL = 0x6,
    HOST_ABOVE = 0x7,
    HOST_SIGN = 0x8,
    HOST_NOT_SIGN = 0x9,
    HOST_PARITY = 0xa, /* after a floating-point comparison: unordered */
    HOST_NOT_PARITY = 0xb,
    HOST_LESS = 0xc,
    HOST_GREATER_EQUAL = 0xd,
    HOST_LESS_EQUAL = 0xe,
    HOST_GREATER = 0xf,
};

/* [base + index * 2^scale + displacement]; index NO_REGISTER: none. Base NO_REGISTER: relative to
 * the next instruction; the displacement is then written by a fix-up. */
struct host_memory {
    uint8_t base, index, scale;
    int32_t displacement;
};

static inline struct host_memory host_at(unsigned base, int32_t displacement)
{
    return (struct host_memory){(uint8_t)base, NO_REGISTER, 0, displacement};
}

static inline struct host_memory host_indexed(unsigned base, unsigned index, unsigned scale,
                                              int32_t displacement)
{
    return (struct host_memory){(uint8_t)base, (uint8_t)index, (uint8_t)scale, displacement};
}

/* The two-operand arithmetic group, by the number of its immediate forms. */
enum host_arithmetic {
    HOST_ADD,
    HOST_OR,
    HOST_ADC,
    HOST_SBB,
    HOST_AND,
    HOST_SUB,
    HOST_XOR,
    HOST_CMP
};
enum host_shift { HOST_ROL = 0, HOST_ROR = 1, HOST_SHL = 4, HOST_SHR = 5, HOST_SAR = 7 };
/* The one-operand group F6/F7. */
enum host_unary {
    HOST_NOT = 2,
    HOST_NEG = 3,
    HOST_MUL = 4,
    HOST_IMUL = 5,
    HOST_DIV = 6,
    HOST_IDIV = 7
};
enum host_count { HOST_LZCNT = 0xbd, HOST_TZCNT = 0xbc, HOST_POPCNT = 0xb8 };

/* Add no-operations until `at` + `extra` is a multiple of `alignment` (a power of two). */
void emit_align(struct emitter *e, unsigned alignment, unsigned extra);

/* `wide`: 64 bits, otherwise 32 (which clear the upper half of the destination). */
void emit_move(struct emitter *e, bool wide, unsigned to, unsigned from);
/* The shortest way to a constant; flags are kept. */
void emit_constant(struct emitter *e, unsigned to, uint64_t value);
void emit_address(struct emitter *e, bool wide, unsigned to, struct host_memory from); /* LEA */
void emit_load64(struct emitter *e, unsigned to, struct host_memory from);
/* 2^size_log2 bytes, extended to 64 bits. */
void emit_load(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to,
               struct host_memory from);
void emit_store(struct emitter *e, unsigned size_log2, struct host_memory to, unsigned from);
/* A constant that fits 32 bits, sign-extended. */
void emit_store_constant(struct emitter *e, unsigned size_log2, struct host_memory to,
                         int32_t value);
/* Register to register, extended from 2^size_log2 bytes (0, 1 or 2) to 64 bits. */
void emit_extend(struct emitter *e, unsigned size_log2, bool is_signed, unsigned to, unsigned from);

void emit_arithmetic(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                     unsigned from);
void emit_arithmetic_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                              unsigned to, int32_t value);
void emit_arithmetic_load(struct emitter *e, bool wide, enum host_arithmetic operation, unsigned to,
                          struct host_memory from);
void emit_arithmetic_store(struct emitter *e, bool wide, enum host_arithmetic operation,
                           struct host_memory to, unsigned from);
void emit_arithmetic_memory_constant(struct emitter *e, bool wide, enum host_arithmetic operation,
                                     struct host_memory to, int32_t value);
void emit_test(struct emitter *e, bool wide, unsigned a, unsigned b);
void emit_unary(struct emitter *e, bool wide, enum host_unary operation, unsigned reg);
void emit_multiply(struct emitter *e, bool wide, unsigned to, unsigned from); /* IMUL */
void emit_multiply_constant(struct emitter *e, bool wide, unsigned to, unsigned from,
                            int32_t value);
/* Sign of rax into rdx (CQO, CDQ). */
void emit_sign_to_rdx(struct emitter *e, bool wide);
void emit_shift_constant(struct emitter *e, bool wide, enum host_shift operation, unsigned reg,
                         unsigned count);
void emit_shift_cl(struct emitter *e, bool wide, enum host_shift operation, unsigned reg);
void emit_swap_bytes(struct emitter *e, bool wide, unsigned reg);
void emit_set(struct emitter *e, enum host_condition condition, unsigned to); /* low byte only */
void emit_move_if(struct emitter *e, enum host_condition condition, unsigned to, unsigned from);
void emit_count(struct emitter *e, bool wide, enum host_count operation, unsigned to,
                unsigned from);

/* BMI1 and BMI2: three operands, no flags (ANDN excepted). */
void emit_shift_by(struct emitter *e, bool wide, enum host_shift operation, unsigned to,
                   unsigned from, unsigned count);
void emit_rotate_right_to(struct emitter *e, unsigned to, unsigned from, unsigned count); /* RORX */

/* Atomic on memory. Sizes 2 and 3 (log2). */
void emit_exchange(struct emitter *e, unsigned size_log2, struct host_memory memory, unsigned reg);
void emit_locked_add(struct emitter *e, unsigned size_log2, struct host_memory memory,
                     unsigned reg); /* XADD: reg gets the old value */
void emit_locked_arithmetic(struct emitter *e, unsigned size_log2, enum host_arithmetic operation,
                            struct host_memory memory, unsigned reg);
/* rax: expected, gets the old value; ZF: stored. */
void emit_locked_compare_exchange(struct emitter *e, unsigned size_log2, struct host_memory memory,
                                  unsigned reg);
void emit_full_fence(struct emitter *e);

/* Control. Jumps return the position of their 32-bit displacement. */
uint32_t emit_jump(struct emitter *e);
uint32_t emit_call(struct emitter *e);
uint32_t emit_jump_if(struct emitter *e, enum host_condition condition);
/* Within the buffer: let the jump whose displacement is at `at` lead here, or to `target`. */
void emit_land(struct emitter *e, uint32_t at);
void emit_land_at(struct emitter *e, uint32_t at, uint32_t target);
/* The same where code has been copied to: `field` is the displacement, the target is `distance`
 * bytes from it. */
void emit_displace(uint8_t *field, int32_t distance);
void emit_jump_memory(struct emitter *e, struct host_memory to);
void emit_call_register(struct emitter *e, unsigned to);
void emit_return(struct emitter *e);
/* LEA of something elsewhere; returns the position of its displacement. */
uint32_t emit_address_of(struct emitter *e, unsigned to);

/* --- SSE2; `prefix` and `opcode` name the instruction ---------------------------------------- */
enum host_prefix { HOST_PS = 0, HOST_PD = 0x66, HOST_SD = 0xf2, HOST_SS = 0xf3 };
enum host_float {
    HOST_FLOAT_SQRT = 0x51,
    HOST_FLOAT_AND = 0x54,
    HOST_FLOAT_ANDN = 0x55,
    HOST_FLOAT_OR = 0x56,
    HOST_FLOAT_XOR = 0x57,
    HOST_FLOAT_ADD = 0x58,
    HOST_FLOAT_MUL = 0x59,
    HOST_FLOAT_CONVERT = 0x5a, /* SD: to single; SS: to double */
    HOST_FLOAT_SUB = 0x5c,
    HOST_FLOAT_MIN = 0x5d,
    HOST_FLOAT_DIV = 0x5e,
    HOST_FLOAT_MAX = 0x5f,
    HOST_FLOAT_UNORDERED_COMPARE = 0x2e, /* UCOMIS; prefix PS: single, PD: double */
    HOST_FLOAT_COMPARE = 0x2f,           /* COMIS */
};
void emit_float(struct emitter *e, enum host_prefix prefix, enum host_float operation, unsigned to,
                unsigned from);
void emit_float_load(struct emitter *e, bool is_double, unsigned to, struct host_memory from);
void emit_float_store(struct emitter *e, bool is_double, struct host_memory to, unsigned from);
void emit_float_move(struct emitter *e, unsigned to, unsigned from); /* all 128 bits */
void emit_float_zero(struct emitter *e, unsigned reg);
/* A mask of the sign bit of each double, or each single. */
void emit_float_sign_mask(struct emitter *e, bool is_double, unsigned reg);
/* Each byte: all ones where both are the same, otherwise zero (PCMPEQB). */
void emit_bytes_equal(struct emitter *e, unsigned to, unsigned from);
/* Raw bits between the files; 32 bits clear the rest of the destination. */
void emit_float_from_bits(struct emitter *e, bool wide, unsigned to, unsigned from);
void emit_float_to_bits(struct emitter *e, bool wide, unsigned to, unsigned from);
void emit_float_from_integer(struct emitter *e, bool is_double, bool wide, unsigned to,
                             unsigned from);
/* Rounding as MXCSR says, or toward zero. */
void emit_float_to_integer(struct emitter *e, bool is_double, bool wide, bool truncate, unsigned to,
                           unsigned from);
/* FMA3: to = +-(to * b) +- c. */
void emit_float_fused(struct emitter *e, bool is_double, bool negate_product, bool negate_addend,
                      unsigned to, unsigned b, unsigned c);

#endif
