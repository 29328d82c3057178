/*
 * The intermediate representation: what a guest instruction means, independent of guest and host.
 *
 * A decoder (libshared/isa/<isa>) builds one `struct ir_block` a basic block; the interpreter, the
 * baseline compiler and the optimised tier all start from it. docs/design/ir.md explains how the
 * IR carries each guest's flags, partial registers, exclusives and vectors.
 *
 * Operands are value references. A *global* is a field of the guest CPU state, listed in the ISA's
 * table; a *temporary* is assigned once and lives within its block. A block is owned and used by
 * one thread; it holds no pointers into guest memory.
 */
#ifndef POLYVISOR_IR_IR_H
#define POLYVISOR_IR_IR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ir_opcode {
#define OP(name, d, a, b, c, aux, effects) IR_##name,
#include "libshared/ir/ops.def"
#undef OP
    IR_OPCODE_COUNT
};

enum ir_type { IR_TYPE_NONE, IR_TYPE_I64, IR_TYPE_F64, IR_TYPE_V128 };
enum ir_extend { IR_EXTEND_SIGN, IR_EXTEND_ZERO };
enum ir_condition { IR_EQ, IR_NE, IR_LT, IR_GE, IR_LTU, IR_GEU, IR_LE, IR_GT, IR_LEU, IR_GTU };

/* aux of memory operations */
#define IR_MEM_SIZE        0x0007u /* log2 of the bytes, 0 to 4 */
#define IR_MEM_SIGN        0x0008u /* sign-extend the loaded value */
#define IR_MEM_ALIGN       0x0010u /* misaligned: exception, otherwise done as the guest allows */
#define IR_MEM_ACQUIRE     0x0020u
#define IR_MEM_RELEASE     0x0040u
#define IR_MEM_BOX         0x0080u /* f32 in an f64 slot: upper half all ones */
/* The code from this LR to its SC has no other memory access and no backward branch, so a value
 * comparison at the SC is as good as a reservation. Without it every intervening store counts. */
#define IR_MEM_CONSTRAINED 0x0100u
#define IR_MEM_AMO_SHIFT   12

enum ir_amo {
    IR_AMO_SWAP,
    IR_AMO_ADD,
    IR_AMO_AND,
    IR_AMO_OR,
    IR_AMO_XOR,
    IR_AMO_MINS,
    IR_AMO_MAXS,
    IR_AMO_MINU,
    IR_AMO_MAXU
};

/* aux of floating-point operations. The rounding mode is always known when a block is built: a
 * guest's dynamic mode is part of the block mode. */
#define IR_FP_ROUND          0x0007u /* enum ir_round */
#define IR_FP_F32            0x0008u /* single precision, otherwise double */
#define IR_FP_BOX            0x0010u /* f32 operands are NaN-boxed (unboxed ones read as NaN), results get boxed */
#define IR_FP_NEGATE_PRODUCT 0x0020u
#define IR_FP_NEGATE_ADDEND  0x0040u
#define IR_FP_PROPAGATE      0x0080u /* fmin, fmax: NaN if either is NaN */
#define IR_FP_QUIET          0x0100u /* flt, fle: quiet NaN raises nothing */
#define IR_FP_EXACT          0x0200u /* fround: raise inexact */

/* The same numbers as RISC-V's frm. */
enum ir_round { IR_ROUND_RNE, IR_ROUND_RTZ, IR_ROUND_RDN, IR_ROUND_RUP, IR_ROUND_RMM };

/* Value references. */
typedef uint16_t ir_value;
#define IR_NONE      ((ir_value)0xffff)
#define IR_IMMEDIATE ((ir_value)0xfffe)
#define IR_TEMP_BASE ((ir_value)0x8000) /* temporary n is IR_TEMP_BASE + n; below: globals */
#define IR_TEMPS_MAX 64
#define IR_INSNS_MAX 64  /* guest instructions a block */
#define IR_OPS_MAX   512 /* operations a block */

static inline bool ir_is_temp(ir_value value)
{
    return value >= IR_TEMP_BASE && value < IR_TEMP_BASE + IR_TEMPS_MAX;
}

struct ir_op {
    uint16_t opcode; /* enum ir_opcode */
    uint16_t aux;
    ir_value d, a, b, c;
    int32_t imm2;
    int64_t imm;
};

/* A field of the guest CPU state that code may name. Tables end with a NULL name. */
struct ir_global {
    const char *name;
    uint16_t offset; /* bytes from the start of struct cpu */
    uint8_t type;    /* enum ir_type */
};

/* What a helper may do; back ends must save and reload accordingly. */
enum ir_helper_effects {
    IR_HELPER_READS = 1,  /* any global */
    IR_HELPER_WRITES = 2, /* any global; otherwise only its result */
    IR_HELPER_FAULTS = 4, /* may leave cpu->exception set; the instruction then did nothing */
    IR_HELPER_MODE = 8,   /* may change the block mode or the MMU mode: a terminator `exit` follows */
    /* It does nothing but this, so a compiler may do it without a call: */
    IR_HELPER_GET_FLAGS = 16, /* result = the sticky floating-point flags, as in cpu->fp_flags */
    IR_HELPER_SET_FLAGS = 32, /* they become the low five bits of a */
};

struct cpu;
typedef uint64_t ir_helper_function(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm);

/* Tables end with a NULL name. The function is looked up by number, never stored in code. */
struct ir_helper {
    const char *name;
    ir_helper_function *function;
    uint8_t effects; /* enum ir_helper_effects */
};

struct ir_block {
    uint32_t mode;          /* the block mode it was built for */
    uint16_t start;         /* page offset of the first instruction */
    uint16_t length;        /* guest bytes covered */
    uint16_t insn_count;
    uint16_t op_count;
    uint16_t temp_count;
    bool straddles;         /* its one instruction continues in the next page */
    uint8_t temp_types[IR_TEMPS_MAX];
    struct ir_op ops[IR_OPS_MAX];
};

/* --- builder: none of these fails; a block that grows too large sets `overflow`, and the decoder
 * ends the block before the instruction that did not fit (ir_builder_rewind). ---------------- */
struct ir_builder {
    struct ir_block *block;
    bool overflow;
    uint16_t mark_ops, mark_temps; /* where the current instruction began */
};

void ir_builder_begin(struct ir_builder *builder, struct ir_block *block, uint32_t mode,
                      uint16_t start);
/* Open the next guest instruction (emits `insn`). False when the block is full: end it first. */
bool ir_builder_insn(struct ir_builder *builder, uint16_t page_offset, uint16_t length);
/* Drop what the current instruction emitted, `insn` included. */
void ir_builder_rewind(struct ir_builder *builder);
ir_value ir_temp(struct ir_builder *builder, enum ir_type type);
struct ir_op *ir_emit(struct ir_builder *builder, enum ir_opcode opcode, unsigned aux, ir_value d,
                      ir_value a, ir_value b, ir_value c, int64_t imm, int32_t imm2);

/* --- inspection ----------------------------------------------------------------------------- */
const char *ir_opcode_name(unsigned opcode);
bool ir_is_terminator(unsigned opcode);
/* Print the block, an operation a line, into `text` (always terminated). Returns the length that
 * the whole text has, as snprintf. */
size_t ir_print(const struct ir_block *block, const struct ir_global *globals,
                const struct ir_helper *helpers, char *text, size_t size);
/* Check shape, operand kinds, types, single assignment before use, targets, and that exactly one
 * terminator stands last. NULL when sound, otherwise a constant text naming the first defect with
 * its operation's index in *where. `block` may be hostile. */
const char *ir_verify(const struct ir_block *block, const struct ir_global *globals,
                      const struct ir_helper *helpers, unsigned *where);

#endif
