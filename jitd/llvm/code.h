/*
 * A region's code as decoded: one IR block a region block, how they lead to each other, and what is
 * known of the guest's registers where.
 *
 * Nothing here is LLVM's. The region is hostile input: what is in a `struct region_code` has been
 * checked, and only that is relied on.
 */
#ifndef POLYVISOR_JITD_LLVM_CODE_H
#define POLYVISOR_JITD_LLVM_CODE_H

#include "libshared/isa/isa.h"
#include "libshared/jit/blob.h"

#define CODE_GLOBALS_MAX 256u
#define CODE_PAGE_BYTES  4096

/* A set of globals. */
struct global_set {
    uint64_t words[CODE_GLOBALS_MAX / 64];
};

static inline bool set_has(const struct global_set *set, unsigned global)
{
    return set->words[global / 64] >> global % 64 & 1;
}

static inline void set_add(struct global_set *set, unsigned global)
{
    set->words[global / 64] |= UINT64_C(1) << global % 64;
}

static inline unsigned set_count(const struct global_set *set)
{
    unsigned count = 0;
    for (unsigned i = 0; i < CODE_GLOBALS_MAX / 64; i++) {
        count += (unsigned)__builtin_popcountll(set->words[i]);
    }
    return count;
}

/* Whether `to` has grown. */
static inline bool set_union(struct global_set *to, const struct global_set *from)
{
    bool grew = false;
    for (unsigned i = 0; i < CODE_GLOBALS_MAX / 64; i++) {
        grew |= (from->words[i] & ~to->words[i]) != 0;
        to->words[i] |= from->words[i];
    }
    return grew;
}

/* What floating-point slots hold throughout the region. */
enum float_class {
    CLASS_BITS,   /* anything: kept as an integer */
    CLASS_DOUBLE, /* only used as f64 */
    CLASS_SINGLE, /* only used as NaN-boxed f32; that it is boxed is checked at the entry */
};

/* A direct way on: `block` >= 0, or out: `exit` >= 0 (a page of the region), or neither. */
struct code_way {
    int block, exit;
    int64_t offset; /* from the virtual base of the entry's page */
    uint64_t weight;
};

/* All that a loop's rounds access at distances from the value that `root` has before the first of
 * them; `base` is the register that it is accessed off (first), whose last translation counts. */
struct code_reach {
    ir_value root, base;
    bool writes;
    int64_t first, end;
};

/* An access of the rounds, and in which reach it is. */
struct code_round_access {
    uint16_t block, op;
    uint16_t reach;
};

/* A branch out of a loop which a test in front of the rounds can rule out for all but the last one:
 * control stays while `moving` is not `fixed` (IR_NE), or is below it (IR_LT, IR_LTU). */
struct code_stay {
    bool known;
    uint8_t condition;
    ir_value compared;      /* at the branch */
    ir_value moving, fixed; /* fixed: IR_IMMEDIATE: the number */
    int64_t number;
    int64_t distance; /* what is compared is moving, as it is before the first round, + distance */
    int64_t step;     /* and in each round as much more */
};

/* Of a loop's head: several rounds that are worth being compiled as one (rounds.c). */
#define ROUND_BLOCKS_MAX   4u
#define ROUND_REACHES_MAX  4u
#define ROUND_ACCESSES_MAX 16u /* of one round */
struct code_rounds {
    unsigned count; /* of rounds; 0: none of this */
    unsigned block_count, reach_count, access_count;
    uint16_t
        blocks[ROUND_BLOCKS_MAX]; /* of a round; each leads to the next, the last to the head */
    struct code_reach reaches[ROUND_REACHES_MAX];
    struct code_round_access accesses[ROUND_ACCESSES_MAX];
    struct code_stay stays[ROUND_BLOCKS_MAX]; /* of each block's branch */
};

struct code_block {
    struct ir_block ir;
    int64_t base; /* virtual base of its page, from the entry's */
    uint32_t heat;
    bool head;               /* control comes back here: attention is polled */
    bool reached;            /* from the entry */
    bool stores;             /* all that is dirty, in front of its terminator */
    struct code_way ways[2]; /* of the terminator: taken, fallthrough */
    unsigned way_count;
    uint16_t expected[8]; /* blocks that an indirect jump was seen to go to, hottest first */
    unsigned expected_count;
    struct global_set dirty;  /* registers that may be newer than memory, at the start */
    struct global_set needed; /* those whose values matter, at the start */
    struct global_set steady; /* addresses off them stay in a page for a while (steady.c) */
    struct code_rounds rounds;
};

/* An edge back to a loop's head. */
struct code_back_edge {
    uint16_t from, head;
};

struct region_code {
    const struct region *region;
    const struct isa *isa;
    ir_value zero; /* the register that is always zero, and never written; or IR_NONE */
    unsigned global_count;
    unsigned insns;
    struct code_block blocks[REGION_BLOCKS_MAX];
    uint16_t ends[REGION_BLOCKS_MAX]; /* the block with the end of each of the region's */
    struct code_back_edge back_edges[REGION_EDGES_MAX];
    unsigned back_edge_count;
    struct global_set used;
    struct global_set steady_reads,
        steady_writes;                 /* with accesses off them where they are steady */
    uint8_t classes[CODE_GLOBALS_MAX]; /* enum float_class */
    bool has_float;
    struct blob_exit exits[BLOB_EXITS_MAX];
    unsigned exit_count;
};

/* The instruction sets that can be compiled; NULL ends the list. */
extern const struct isa *const code_isas[];

/* Decode. False with *err set. `region` must have passed region_check and must stay. */
bool code_decode(struct region_code *code, const struct region *region, struct error *err);
/* Ways, loop heads, dirty and needed registers, float classes. */
bool code_analyse(struct region_code *code, struct error *err);

/* The blocks of the region that control may go on to. Returns how many. */
#define CODE_SUCCESSORS_MAX 10u
unsigned code_successors(const struct code_block *block, uint16_t next[CODE_SUCCESSORS_MAX]);
/* Parts of code_analyse: */
/* Cut blocks that overlap; true when there were any, and ways are to be found anew. */
bool code_cut(struct region_code *code);
/* The registers whose last translation is worth keeping. */
void code_find_steady(struct region_code *code);
/* Loops of which several rounds are compiled as one. */
void code_find_rounds(struct region_code *code);

/* The exit for that place, a new one if need be; -1: there are too many. */
int code_exit(struct region_code *code, unsigned page, unsigned offset);
/* IR_HELPER_GET_FLAGS or _SET_FLAGS: a helper that is done without a call; otherwise 0. */
static inline unsigned code_flags_helper(const struct region_code *code, const struct ir_op *op)
{
    return op->opcode == IR_helper
               ? code->isa->helpers[op->aux].effects & (IR_HELPER_GET_FLAGS | IR_HELPER_SET_FLAGS)
               : 0;
}

/* What the operation changes, IR_NONE when it is no global. */
static inline ir_value code_written_global(const struct ir_op *op)
{
    return op->d < CODE_GLOBALS_MAX ? op->d : IR_NONE;
}

#endif
