/*
 * Decoding: the instruction table, and the state that emitters share while a block is built.
 *
 * A 32-bit word is looked up in instructions.def; 16-bit instructions are first expanded to the
 * word they stand for (compressed.c). Everything here is pure: bytes and block mode in, IR out.
 */
#ifndef POLYVISOR_ISA_RISCV64_DECODE_H
#define POLYVISOR_ISA_RISCV64_DECODE_H

#include "libshared/isa/isa.h"

struct riscv64_translation;
struct riscv64_instruction;
typedef void riscv64_emitter(struct riscv64_translation *t,
                             const struct riscv64_instruction *instruction);

/* How operands are written down; the disassembler has a text pattern for each. */
enum riscv64_operands {
#define OPERANDS(name, pattern) OPERANDS_##name,
#include "libshared/isa/riscv64/operands.def"
#undef OPERANDS
    OPERANDS_COUNT
};

/* What an instruction does with the floating-point unit. */
enum riscv64_float_use {
    NO_FLOAT = 0,
    FLOAT_READ = 1,          /* needs the unit on */
    FLOAT_WRITE = 1 | 2,     /* changes registers or flags: dirties the unit */
    FLOAT_ROUND = 1 | 2 | 4, /* and has a rounding-mode field */
};

struct riscv64_instruction {
    const char *name;
    uint32_t mask, match; /* word & mask == match */
    uint8_t operands;     /* enum riscv64_operands */
    uint8_t float_use;    /* enum riscv64_float_use */
    riscv64_emitter *emit;
    uint16_t opcode; /* the IR operation, or the helper, that the emitter takes */
    uint16_t aux;    /* its aux, or another small argument of the emitter */
};

/* The table row for a 32-bit word (low bits 11), or NULL: illegal instruction. */
const struct riscv64_instruction *riscv64_find(uint32_t word);

/* The 32-bit word that a 16-bit instruction stands for; 0 (itself illegal) when reserved. */
uint32_t riscv64_expand(uint16_t half);

struct riscv64_translation {
    struct ir_builder builder;
    const struct isa_code *code;
    uint32_t word;   /* the instruction, expanded */
    uint32_t raw;    /* as it stands in memory: what an illegal-instruction trap reports */
    uint16_t offset; /* page offset of the instruction */
    uint16_t next;   /* and of the one after it */
    uint8_t round;   /* the resolved rounding mode, 0 without FLOAT_ROUND */
    bool ended;      /* a terminator was emitted */
    bool leave;      /* the block mode changed under this instruction: end the block after it */
    /* The instruction that ended at page offset `known_until` put page base + known_offset into
     * register known_register: lets AUIPC pairs become direct. 0 = none. */
    uint8_t known_register;
    uint16_t known_until;
    int64_t known_offset;
};

/* Fetch the instruction at `offset`: its bytes as they stand, 16 or 32 bits. Returns its length,
 * 2 or 4, or 0 when it reaches into an unknown next page. */
unsigned riscv64_fetch(const struct isa_code *code, unsigned offset, uint32_t *raw);

/* struct isa.decode */
enum isa_decode_result riscv64_decode(struct ir_block *block, const struct isa_code *code);
/* struct isa.disassemble */
unsigned riscv64_disassemble(const uint8_t *bytes, unsigned available, uint64_t pc, char *text,
                             size_t size);

/* --- fields --------------------------------------------------------------------------------- */
static inline unsigned field_rd(uint32_t word)
{
    return word >> 7 & 31;
}

static inline unsigned field_rs1(uint32_t word)
{
    return word >> 15 & 31;
}

static inline unsigned field_rs2(uint32_t word)
{
    return word >> 20 & 31;
}

static inline unsigned field_rs3(uint32_t word)
{
    return word >> 27;
}

static inline unsigned field_round(uint32_t word)
{
    return word >> 12 & 7;
}

static inline unsigned field_shift(uint32_t word)
{
    return word >> 20 & 63;
}

static inline unsigned field_csr(uint32_t word)
{
    return word >> 20;
}

static inline int64_t field_i(uint32_t word)
{
    return (int32_t)word >> 20;
}

static inline int64_t field_s(uint32_t word)
{
    return ((int32_t)word >> 25) * 32 + (int32_t)field_rd(word);
}

static inline int64_t field_b(uint32_t word)
{
    return ((int32_t)word >> 31) * 4096 +
           (int32_t)((word >> 7 & 1) << 11 | (word >> 25 & 0x3f) << 5 | (word >> 8 & 0xf) << 1);
}

static inline int64_t field_u(uint32_t word)
{
    return (int32_t)(word & 0xfffff000u);
}

static inline int64_t field_j(uint32_t word)
{
    return ((int32_t)word >> 31) * 1048576 + (int32_t)((word >> 12 & 0xff) << 12 |
                                                       (word >> 20 & 1) << 11 |
                                                       (word >> 21 & 0x3ff) << 1);
}

/* --- emitters: emit_*.c --------------------------------------------------------------------- */
#define EMITTERS(X)                                                                                \
    X(binary)                                                                                      \
    X(binary_immediate)                                                                            \
    X(shift_immediate) X(unary) X(set) X(set_immediate) X(upper_immediate) X(pc_relative)          \
        X(shift_add) X(shift_unsigned_word) X(single_bit) X(single_bit_immediate) X(extract_bit)   \
            X(extract_bit_immediate) X(conditional_zero) X(jump_and_link)                          \
                X(jump_and_link_register) X(branch) X(nothing) X(load) X(store) X(float_load)      \
                    X(float_store) X(fence) X(fence_tso) X(amo) X(load_reserved)                   \
                        X(store_conditional) X(cache_block_zero) X(cache_block_manage)             \
                            X(float_binary) X(float_unary) X(float_fused) X(float_compare)         \
                                X(float_to_integer) X(float_from_integer) X(float_move)            \
                                    X(float_constant) X(csr) X(trap) X(trap_return) X(system)      \
                                        X(system_check)
#define X(name) riscv64_emitter riscv64_emit_##name;
EMITTERS(X)
#undef X

/* The illegal-instruction trap; ends the block. */
void riscv64_emit_illegal(struct riscv64_translation *t);
/* Leave through a full look-up at the next instruction; ends the block. */
void riscv64_emit_exit(struct riscv64_translation *t);
/* Before an instruction that dirties a clean floating-point unit. */
void riscv64_emit_float_dirty(struct riscv64_translation *t);

/* Value references of registers. Integer ones: register 0 may be read, never written. */
#define FLOAT_BASE 32
static inline ir_value integer_register(unsigned index)
{
    return (ir_value)index;
}

static inline ir_value float_register(unsigned index)
{
    return (ir_value)(FLOAT_BASE + index);
}

/* CSRs that code may name, where its mode is BLOCK_MODE_SYSTEM. A helper that changes one is declared
 * as IR_HELPER_WRITES. Of mstatus no code changes more than the interrupt enables, so that what
 * happens in the middle of a block may look at the rest of it. */
enum riscv64_csr_value {
    CSR_VALUE_MSTATUS = 2 * FLOAT_BASE,
    CSR_VALUE_SSCRATCH,
    CSR_VALUE_SEPC,
    CSR_VALUE_SCAUSE,
    CSR_VALUE_STVAL,
    CSR_VALUES_END
};

/* Where an instruction puts an integer result that must be computed even for rd = x0. */
static inline ir_value result_register(struct riscv64_translation *t, unsigned index)
{
    return index ? integer_register(index) : ir_temp(&t->builder, IR_TYPE_I64);
}

extern const struct ir_global riscv64_globals[];

#endif
