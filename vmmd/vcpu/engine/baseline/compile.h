/*
 * What the files of the baseline compiler share: the state of one compilation.
 *
 * Code is produced in three sections that end up behind each other. HOT is what runs. COLD holds
 * what rarely does. DATA holds steps for the interpreter. A jump from one to the other is a fix-up,
 * resolved when all sizes are known.
 *
 * Compiled code does what it can and leaves the rest to the interpreter:
 * - *retreat*: go to it at the current operation; it does that and the rest of the block, whose
 *   steps are made anew (lower.h). For what is rare: TLB misses, values outside of what the host's
 *   instruction handles.
 * - *call out*: let the interpreter do this operation and come back. Its handler runs on a copy of
 *   the operation's steps, followed by a step that leads back here.
 * Either way the guest's state is in memory first, as it is before the operation.
 *
 * A port to another host supplies emit_<host> and host_<host> (host.h), compile_<host> and
 * registers_<host> (what is declared below as the host's), and op_*_<host>.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_COMPILE_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_COMPILE_H

#include "libshared/ir/groups.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/baseline/host.h"
#include "vmmd/vcpu/engine/interp.h"

#define GLOBALS_MAX     256u
#define VALUE_PAGE_BASE (GLOBALS_MAX + IR_TEMPS_MAX) /* cpu->page_base, as a value */
#define VALUE_GROUPS    (VALUE_PAGE_BASE + 1) /* host addresses of groups (struct group_slot) */
#define GROUP_SLOTS     6u
#define VALUES_MAX      (VALUE_GROUPS + GROUP_SLOTS)
#define NEVER           UINT16_MAX

#define HOT_BYTES  (64u << 10)
#define COLD_BYTES (96u << 10)
#define DATA_BYTES (32u << 10)
#define FIXUPS_MAX 4096u

/* SHARED: not the block's own, but the stubs that all blocks share (struct shared_stubs). */
enum section {
    SECTION_HOT,
    SECTION_COLD,
    SECTION_DATA,
    SECTION_COUNT,
    SECTION_SHARED = SECTION_COUNT
};

/* Code that all blocks jump to. */
enum shared_stub {
    SHARED_INTERPRETED, /* the entry of blocks that were not compiled */
    SHARED_LEAVE,       /* to the outer loop, with pc at an offset from page_base */
    SHARED_MISS,        /* to the outer loop, with pc at an address */
    SHARED_PROBE,       /* to an address, by the jump cache, otherwise as SHARED_MISS */
    /* By compile_jump_noted; the number is: */
    SHARED_RETREAT,   /* the step at which the interpreter goes on */
    SHARED_GROUP,     /* the same, from a group's failure (compile_group_failure) */
    SHARED_EXIT,      /* the exit by which the block is left for the outer loop */
    SHARED_ATTENTION, /* 0: to the outer loop, with pc at the block's start */
    SHARED_COUNT
};

/* What stands behind a jump to a stub that wants to know where it comes from. */
struct stub_note {
    uint16_t back;   /* bytes from the note to the span's header, which names the block */
    uint16_t number; /* what the stub makes of it */
};
_Static_assert(sizeof(struct stub_note) == 4, "a word, so that what follows stays aligned");

struct shared_stubs {
    struct code_span span;
    uint32_t at[SHARED_COUNT]; /* within the span */
};

/* Where a value is. Its slot in the CPU state is valid unless `dirty`. */
struct value_state {
    uint8_t reg;       /* host register, NO_REGISTER: none */
    uint8_t type;      /* enum ir_type */
    bool dirty;        /* the slot is out of date */
    bool constant;     /* known: `value`; needs no register */
    bool single;       /* reg holds an f32 whose slot is NaN-boxed */
    bool boxed;        /* the slot's upper half is known to be all ones */
    uint16_t offset;   /* of the slot */
    uint16_t next_use; /* operation that reads it next, NEVER: none before it is overwritten */
    int64_t value;
};

enum fixup_kind {
    FIXUP_DISPLACEMENT,
    FIXUP_ADDRESS, /* 64 bits */
    FIXUP_NOTE,    /* stub_note.back */
};

struct fixup {
    uint8_t from, to;    /* enum section */
    uint8_t kind;        /* enum fixup_kind */
    uint32_t at, target; /* within the sections */
};

/* For the operands of an operation: value_state.next_use from then on. */
struct op_uses {
    uint16_t d, a, b, c;
};

/* A group whose translation is in the register of value VALUE_GROUPS + the slot's number. */
struct group_slot {
    uint16_t group; /* GROUP_NONE: the slot is free */
    int64_t bias;   /* the register holds the host address of root + bias */
};

#define CARRIED_MAX 8u

/* A global that a loop keeps in a register (loops.h). */
struct carried {
    uint16_t value;
    uint8_t reg; /* at the loop's head */
    bool written;
};

struct compiler {
    const struct isa *isa;
    unsigned global_count;
    struct host_features features;

    /* this compilation */
    const struct ir_block *ir;
    const struct xinsn *code; /* the block's steps */
    const uint16_t *steps;    /* where each operation's begin */
    struct block *block;
    unsigned index; /* of the operation */
    bool ended;     /* what follows cannot be reached */
    bool failed;
    bool block_known;    /* cpu->block has been stored */
    bool grouping;       /* let accesses share translations */
    uint32_t stub_at;    /* in COLD: compile_exit_stubs */
    uint32_t entry_at;   /* in HOT: behind the attention test */
    uint32_t exit_at[2]; /* patchable displacement, 0: none */
    uint8_t exit_section[2];
    const struct shared_stubs *shared;

    /* Loops (loops.h). */
    bool looping, unlooped; /* unlooped: not to be compiled as a loop */
    struct carried carried[CARRIED_MAX];
    unsigned carried_count;
    uint32_t head_at;                 /* in HOT */
    uint32_t leave_at, leave_jump_at; /* in COLD: what an unlinked branch back does; its jump */

    struct emitter sections[SECTION_COUNT];
    struct emitter *hot, *cold;
    struct fixup fixups[FIXUPS_MAX];
    unsigned fixup_count;

    struct value_state values[VALUES_MAX];
    uint16_t used_values[VALUES_MAX];  /* those to reset */
    uint16_t owner[2][HOST_REGISTERS]; /* value in each register of a file, NEVER: none */
    uint32_t locked[2];                /* a bit a register: not to be taken now */
    uint32_t reserved;                 /* general registers that hold no values in this block */
    struct op_uses uses[IR_OPS_MAX];
    struct access_groups groups;
    struct group_slot slots[GROUP_SLOTS];

    uint8_t bytes[HOT_BYTES + COLD_BYTES + DATA_BYTES];
};

#define CPU_FIELD(field) host_cpu((int32_t)offsetof(struct cpu, field))

/* False: not done natively, and nothing was emitted that matters: call out. */
typedef bool compile_operation(struct compiler *c, const struct ir_op *op);
#define OP(name, d, a, b, c, aux, effects) compile_operation compile_##name;
#include "libshared/ir/ops.def"
#undef OP

/* --- sections ------------------------------------------------------------------------------- */
/* `at`: a displacement in `from` that shall lead to `target` in `to`. */
void compile_fixup(struct compiler *c, enum section from, uint32_t at, enum section to,
                   uint32_t target);

/* --- parts of operations -------------------------------------------------------------------- */
/* Load what compile_compare will need. */
void compile_load_comparison(struct compiler *c, const struct ir_op *op);
/* Compare a with b and say which host condition is op's (enum ir_condition in aux). */
enum host_condition compile_compare(struct compiler *c, const struct ir_op *op);
/* Whether compile_translate can: the offset fits. */
bool compile_addressable(const struct ir_op *op);
/* The operand of a plain load or store: guest memory. Integer registers, or a group's. */
struct host_memory compile_access(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                                  bool is_write);
/* Translate a + imm for an access of 2^size_log2 bytes: retreats when the TLB's entry does not
 * allow it (`aligned`: or it is misaligned); otherwise the operand is guest memory. Integer
 * registers. */
struct host_memory compile_translate(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                                     bool is_write, bool aligned);

/* Translate base + [first, end) at once for what the group does; the result is a register with the
 * host address of the base register's. */
unsigned compile_translate_group(struct compiler *c, unsigned base, int32_t first, int32_t end,
                                 const struct access_group *group);

/* --- leaving -------------------------------------------------------------------------------- */
/* Retreat when the condition holds. State must be as before the operation; flags survive. */
void compile_retreat_if(struct compiler *c, enum host_condition condition);
/* Retreat from a group whose range may lie in two pages (base + first to base + end): this is
 * counted, and too many of them have the block compiled again without groups. The jumps to here are
 * the caller's. */
void compile_group_failure(struct compiler *c, unsigned base, int32_t first, int32_t end);
/* The same in COLD, reached by the caller's own jumps: state is as compile_retreat_if wants it. */
void compile_retreat_here(struct compiler *c);
/* Retreat in any case: the rest of the block is not compiled. */
void compile_retreat(struct compiler *c);
/* Jump from COLD to a shared stub that wants to know from where. */
void compile_jump_noted(struct compiler *c, enum shared_stub stub, unsigned number);
/* Where the block's exits lead until they are linked: in COLD, to be emitted before other code of
 * the terminator. */
void compile_exit_stubs(struct compiler *c);
/* The jump at `at` of a section is exit `exit`. Its displacement can be redirected as it is. */
void compile_open_exit(struct compiler *c, unsigned exit, enum section section, uint32_t at);
void compile_call_out(struct compiler *c);
/* Store cpu->block, if this path has not yet. */
void compile_store_block(struct compiler *c, struct emitter *e, unsigned scratch);

/* --- the host's (compile_<host>.c, registers_<host>.c) ---------------------------------------- */
/* What this processor has. */
struct host_features compile_features(void);
/* The block's entry: with attention asked for, leave with pc at the block's start; entry_at is
 * behind the test. */
void compile_entry(struct compiler *c);
/* Emit the shared stubs, at most SHARED_BYTES. */
#define SHARED_BYTES 1024u
void compile_shared(struct emitter *e, uint32_t at[SHARED_COUNT]);
/* Emit the guard of a block, at most GUARD_BYTES, to run at `execute`: an exit from another page
 * comes here with the address it means (in a register that host and its exits agree on); when that
 * is mapped, for execution, to the page at `host_page`, set page_base and take the jump whose
 * position is returned (for compile_redirect); otherwise go on as SHARED_PROBE. `start`: the
 * block's page offset. */
#define GUARD_BYTES 128u
uint32_t compile_guard(struct emitter *e, const uint8_t *execute, const uint8_t *host_page,
                       unsigned start, const struct shared_stubs *shared);
/* Jump to a stub; the note comes behind. Returns the position of its displacement. */
uint32_t compile_call_stub(struct emitter *e);
/* How far the stubs of exits are apart. */
#define EXIT_STUB_BYTES HOST_EXIT_STUB_BYTES
/* Run steps of threaded code; returns the position of their displacement. */
uint32_t compile_run_steps(const struct compiler *c, struct emitter *e);
/* Let a jump of published code, whose displacement is at `execute`, lead to `target`. Any CPU may
 * be running it. */
void compile_redirect(uint8_t *write, const uint8_t *execute, const uint8_t *target);
/* Retreat unless the four bytes at this offset of the CPU state are all ones. */
void compile_check_boxed(struct compiler *c, unsigned offset);
/* Registers that hold values, in the order in which they are taken. */
struct host_register_order {
    uint8_t count, registers[HOST_REGISTERS];
};
extern const struct host_register_order compile_register_orders[2]; /* enum register_file */
/* Those that loops may carry values in, at most CARRIED_MAX; none: no loops. The count of
 * instructions is in REG_LOOP_COUNT. */
extern const struct host_register_order compile_loop_registers;
/* Add that count to cpu->retired. */
void compile_flush_count(struct emitter *e);
/* Begin to count. */
void compile_begin_count(struct emitter *e);

/* Called by compiled code, on the thread of the CPU whose cpu->block it is: the block's groups
 * often lie in two pages. */
void compile_regroup(struct cpu *cpu);

static inline unsigned compile_insn_count(const struct compiler *c)
{
    return c->block->insn_count;
}

#endif
