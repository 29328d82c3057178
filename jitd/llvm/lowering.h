/*
 * What the files that turn a region into LLVM IR share: the state of one compilation.
 *
 * Guest registers are allocas that LLVM promotes to values. Memory gets them where the region is
 * left and in cold blocks before functions of the runtime (lower_sync), and only those that may be
 * newer (code_block.dirty). Between two polls of the attention word host addresses of guest memory
 * and what the TLB said stay true; a fence for the compiler at each poll keeps LLVM from carrying
 * anything across.
 */
#ifndef POLYVISOR_JITD_LLVM_LOWERING_H
#define POLYVISOR_JITD_LLVM_LOWERING_H

#include "jitd/llvm/code.h"
#include "libshared/ir/groups.h"
#include "libshared/jit/runtime.h"
#include <llvm-c/Core.h>

/* Calling conventions, by LLVM's numbers. */
#define CALL_PRESERVE_MOST 14u
#define CALL_PRESERVE_ALL  15u
#define CALL_PRESERVE_NONE 21u

/* Symbols of the tables behind the code (blob.h). */
#define SYMBOL_ENTRY "region"
#define SYMBOL_EXITS "exits"
#define SYMBOL_PAGES "pages"

struct host_features {
    bool fma, sse41, lzcnt, popcnt;
};

enum memory_kind { MEMORY_GUEST, MEMORY_TLB, MEMORY_CPU, MEMORY_KINDS };

/* A translation that later accesses of the block use, too (share.c). */
#define SHARED_MAX 6u
struct shared {
    uint16_t group; /* GROUP_NONE: free */
    bool reads, writes;
    LLVMValueRef addend; /* variable: from guest to host addresses; kept when the place is free */
    LLVMValueRef root;   /* the value that a register had when the group was opened */
    int64_t bias;        /* root is the group's root + bias */
    int64_t first, end;  /* from root */
};

/* The last translation of a register, in variables (recall.c). */
struct recalled {
    LLVMValueRef tag;    /* a page; TLB_EMPTY: none. NULL: nothing is kept for the register */
    LLVMValueRef addend; /* as in struct tlb_entry */
};

struct lowering {
    struct region_code *code;
    const struct host_features *features;
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMBuilderRef builder;
    LLVMTypeRef i1, i8, i16, i32, i64, i128, f32, f64, ptr, void_type, code_function;
    LLVMValueRef function, cpu, exits, pages;
    LLVMMetadataRef scopes[MEMORY_KINDS], others[MEMORY_KINDS];
    unsigned prof_kind, scope_kind, noalias_kind, strictfp;

    /* variables */
    LLVMValueRef globals[CODE_GLOBALS_MAX]; /* NULL: not used */
    LLVMValueRef tlb, tlb_mask, retired;
    LLVMValueRef float_control; /* memory for the host's word of flags; NULL: not used yet */
    struct recalled recalled[CODE_GLOBALS_MAX][2]; /* for reading, for writing (and reading) */
    /* values of the whole function */
    LLVMValueRef page_base, retired_before;
    LLVMValueRef first_load; /* variables are made in front of it */
    LLVMBasicBlockRef blocks[REGION_BLOCKS_MAX];
    LLVMBasicBlockRef return_way, jump_way, exit_way; /* out of the region; NULL: not used yet */
    LLVMValueRef exit_target;                         /* phi of exit_way */

    /* the block */
    unsigned index;
    struct code_block *block;
    const struct ir_op *op;
    unsigned op_index;
    unsigned insns;  /* guest instructions of the block that are done */
    unsigned offset; /* page offset of the present one */
    LLVMValueRef temps[IR_TEMPS_MAX];
    struct access_groups groups;
    struct shared shared[SHARED_MAX];
    struct global_set dirty;
    struct global_set pending, roots; /* numbers that may be any NaN (settle.c) */
    struct leave_way {              /* leave.c: out of the block, before one of its instructions */
        LLVMBasicBlockRef at;       /* NULL: nobody needs it yet */
        LLVMValueRef insns, offset; /* phis: guest instructions done, page offset */
        struct global_set dirty;
    } leave;
    bool left; /* the rest of the block is not reached */
    /* Not NULL: these rounds are being lowered (rounds.c); `next_block` follows in them, at `next`.
     */
    const struct code_rounds *rounds;
    int next_block;
    LLVMBasicBlockRef next;
    bool stays;        /* and it is known that it does */
    bool leaves_first; /* the region's first instruction is never done here */
};

/* --- parts (parts.c) ------------------------------------------------------------------------ */
LLVMValueRef lower_constant(struct lowering *l, uint64_t value); /* i64 */
LLVMValueRef lower_cpu_field(struct lowering *l, size_t offset); /* its address */
LLVMValueRef lower_load_field(struct lowering *l, LLVMTypeRef type, size_t offset);
void lower_store_field(struct lowering *l, size_t offset, LLVMValueRef value);
/* Say what kind of memory a load or store is of: none overlaps another. */
void lower_mark_memory(struct lowering *l, LLVMValueRef access, enum memory_kind kind);
LLVMBasicBlockRef lower_new_block(struct lowering *l, const char *name);
void lower_at(struct lowering *l, LLVMBasicBlockRef block);
/* Branch that most likely goes to `likely` when `condition` holds. */
void lower_likely(struct lowering *l, LLVMValueRef condition, LLVMBasicBlockRef likely,
                  LLVMBasicBlockRef unlikely);
void lower_weights(struct lowering *l, LLVMValueRef branch, uint64_t first, uint64_t second);
LLVMValueRef lower_intrinsic(struct lowering *l, const char *name, LLVMTypeRef *types,
                             unsigned type_count, LLVMValueRef *arguments, unsigned count);
/* Call a function of the runtime (offset in struct region_runtime) with i64 arguments after cpu. */
LLVMValueRef lower_runtime(struct lowering *l, size_t offset, LLVMValueRef *arguments,
                           unsigned count, bool result);

/* --- registers (state.c) -------------------------------------------------------------------- */
/* Variables, filled from memory. i1: the singles are boxed as assumed; NULL: nothing is assumed. */
LLVMValueRef lower_begin_state(struct lowering *l);
/* Integer operands; `b` may be the immediate. */
LLVMValueRef lower_read(struct lowering *l, ir_value value);
LLVMValueRef lower_read_b(struct lowering *l);
void lower_write(struct lowering *l, ir_value value, LLVMValueRef bits);
/* Floating-point slots: all bits, as f64, as f32 (unboxed as aux says). */
LLVMValueRef lower_read_bits(struct lowering *l, ir_value value);
LLVMValueRef lower_read_f64(struct lowering *l, ir_value value);
LLVMValueRef lower_read_f32(struct lowering *l, ir_value value, unsigned aux);
void lower_write_bits(struct lowering *l, ir_value value, LLVMValueRef bits);
void lower_write_f64(struct lowering *l, ir_value value, LLVMValueRef number);
void lower_write_f32(struct lowering *l, ir_value value, LLVMValueRef number, unsigned aux);

/* Store what is dirty; then nothing is. */
void lower_store_dirty(struct lowering *l);
/* Store what is dirty, and how many instructions are done. */
void lower_sync(struct lowering *l);
/* Before a function of the runtime that needs to know which instruction this is. */
void lower_sync_pc(struct lowering *l);
/* The same for `dirty`, with so many instructions of the block done, for the instruction at
 * `offset` from the virtual base of the entry's page. */
void lower_sync_at(struct lowering *l, const struct global_set *dirty, LLVMValueRef insns,
                   LLVMValueRef offset);
void lower_reload_tlb(struct lowering *l);
/* All registers anew, after a helper that writes them. */
void lower_reload_globals(struct lowering *l);

/* --- leaving (leave.c) ---------------------------------------------------------------------- */
/* Return to the outer loop; state is stored. */
void lower_return(struct lowering *l);
/* Continue with the lower tier at this instruction; state is stored and pc is set. */
void lower_leave(struct lowering *l);
/* The same, state and pc still to store; ends the LLVM block. */
void lower_give_up(struct lowering *l);
/* lower_give_up in a cold block unless `condition`; goes on where it holds. The instructions of a
 * block share that cold block. */
void lower_require(struct lowering *l, LLVMValueRef condition);
/* At the end of each block: build what lower_require promised. */
void lower_finish_leave(struct lowering *l);
/* Return when the runtime left an exception; state is stored. */
void lower_check_exception(struct lowering *l);
/* Leave for page base of the entry + offset, or by exit. */
void lower_way_out(struct lowering *l, const struct code_way *way);
void lower_jump_out(struct lowering *l, LLVMValueRef target);
/* Test attention in front of the block. */
void lower_poll(struct lowering *l, const struct code_block *block);
/* Entry of the function: poll, guards, registers. */
void lower_entry(struct lowering *l);

/* --- sticky floating-point flags (float_flags.c) --------------------------------------------- */
LLVMValueRef float_flags(struct lowering *l); /* i64, as in cpu->fp_flags */
void float_set_flags(struct lowering *l, LLVMValueRef flags);

/* --- numbers (op_float.c) ------------------------------------------------------------------- */
/* i1: a or b is a NaN; quiet ones raise nothing. */
LLVMValueRef float_unordered(struct lowering *l, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef float_canonical_nan(struct lowering *l, LLVMTypeRef type);

/* --- NaNs (settle.c) ------------------------------------------------------------------------ */
/* Now all results are canonical. */
void settle(struct lowering *l);
/* Before and after each operation. */
void settle_before(struct lowering *l, const struct ir_op *op);
void settle_after(struct lowering *l, const struct ir_op *op);
/* The result that is being written to d, which is a NaN if one of these operands is, need not be
 * tested yet. False: it must be. */
bool settle_later(struct lowering *l, ir_value d, const ir_value *operands, unsigned count,
                  bool single);

/* --- operations ----------------------------------------------------------------------------- */
/* False: not done here; nothing was built. */
typedef bool lower_operation(struct lowering *l, const struct ir_op *op);
#define OP(name, d, a, b, c, aux, effects) lower_operation op_##name;
#include "libshared/ir/ops.def"
#undef OP

/* a cc b, as i1 */
LLVMValueRef lower_condition(struct lowering *l, const struct ir_op *op);

/* The block's operations, from where the builder is; its polls are not among them. */
void lower_operations(struct lowering *l, unsigned index);
/* If several of the loop's rounds can be done as one: do so; the builder goes on where they cannot.
 */
void lower_rounds(struct lowering *l, unsigned head);

/* Build the module's function. False with *err set. */
bool lower_region(struct lowering *l, struct error *err);

#endif
