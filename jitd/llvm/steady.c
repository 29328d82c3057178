/*
 * Which registers hold addresses that stay in a page from round to round of a loop, mostly.
 *
 * Where one does, the translation that was used last is worth a look before the TLB (recall.c): the
 * host predicts that it is the right one, so the address of an access need not wait for the TLB's
 * entry, as it would at each step of a walk along a list. Where one does not, the wrong prediction
 * costs more than that. So it is asked how the register changes in the innermost loop around the
 * access: not at all, by small constants, or by a load off itself (a list's next item). Moves
 * between registers are followed.
 */
#include "jitd/llvm/code.h"
#include "libshared/ir/opcode.h"
#include <string.h>

/* A register that moves on by more soon leaves its page. */
#define STEP_MAX 256
/* In a longer loop there is other work while the host waits for the TLB's entry. */
#define LOOP_INSNS_MAX 32u

#define BLOCK_WORDS (REGION_BLOCKS_MAX / 64)

struct block_set {
    uint64_t words[BLOCK_WORDS];
};

/* How registers change in a loop. */
struct changes {
    struct global_set from[CODE_GLOBALS_MAX];    /* it becomes another's value, plus little */
    struct global_set through[CODE_GLOBALS_MAX]; /* it is loaded off another */
    struct global_set any;                       /* it becomes anything */
    struct global_set judged, steady;            /* those that were looked at; the steady ones */
};

static bool block_has(const struct block_set *set, unsigned block)
{
    return set->words[block / 64] >> block % 64 & 1;
}

static void block_add(struct block_set *set, unsigned block)
{
    set->words[block / 64] |= UINT64_C(1) << block % 64;
}

static unsigned insn_count(const struct region_code *code, const struct block_set *set)
{
    unsigned count = 0;
    for (unsigned i = 0; i < code->region->block_count; i++) {
        count += block_has(set, i) ? code->blocks[i].ir.insn_count : 0;
    }
    return count;
}

static unsigned block_count(const struct block_set *set)
{
    unsigned count = 0;
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        count += (unsigned)__builtin_popcountll(set->words[i]);
    }
    return count;
}

/* --- loops ---------------------------------------------------------------------------------- */

static void find_predecessors(const struct region_code *code, struct block_set *before)
{
    memset(before, 0, REGION_BLOCKS_MAX * sizeof(*before));
    for (unsigned i = 0; i < code->region->block_count; i++) {
        uint16_t next[CODE_SUCCESSORS_MAX];
        unsigned count = code->blocks[i].reached ? code_successors(&code->blocks[i], next) : 0;
        for (unsigned j = 0; j < count; j++) {
            block_add(&before[next[j]], i);
        }
    }
}

/* The blocks on the ways from the head to where it is come back from. */
static struct block_set find_body(const struct region_code *code, const struct block_set *before,
                                  const struct code_back_edge *edge)
{
    struct block_set body = {{0}};
    uint16_t todo[REGION_BLOCKS_MAX];
    unsigned count = 0;
    block_add(&body, edge->head);
    if (edge->from != edge->head) {
        block_add(&body, edge->from);
        todo[count++] = edge->from;
    }
    while (count) {
        unsigned block = todo[--count];
        for (unsigned i = 0; i < code->region->block_count; i++) {
            if (block_has(&before[block], i) && !block_has(&body, i)) {
                block_add(&body, i);
                todo[count++] = (uint16_t)i;
            }
        }
    }
    return body;
}

/* --- registers ------------------------------------------------------------------------------ */

static bool is_global(ir_value value)
{
    return value < CODE_GLOBALS_MAX;
}

static void note_change(struct changes *changes, const struct ir_op *op)
{
    if (!is_global(op->d)) {
        return;
    }
    bool adds = op->opcode == IR_add && op->b == IR_IMMEDIATE && op->imm <= STEP_MAX &&
                op->imm >= -STEP_MAX;
    if (op->opcode == IR_mov && is_global(op->b)) {
        set_add(&changes->from[op->d], op->b);
    } else if (adds && is_global(op->a)) {
        set_add(&changes->from[op->d], op->a);
    } else if (op->opcode == IR_load && is_global(op->a)) {
        set_add(&changes->through[op->d], op->a);
    } else {
        set_add(&changes->any, op->d);
    }
}

static void find_changes(const struct region_code *code, const struct block_set *body,
                         struct changes *changes)
{
    memset(changes, 0, sizeof(*changes));
    for (unsigned i = 0; i < code->region->block_count; i++) {
        const struct ir_block *ir = &code->blocks[i].ir;
        for (unsigned j = 0; j < ir->op_count && block_has(body, i); j++) {
            note_change(changes, &ir->ops[j]);
            if (ir->ops[j].opcode == IR_helper &&
                code->isa->helpers[ir->ops[j].aux].effects & IR_HELPER_WRITES) {
                memset(&changes->any, 0xff, sizeof(changes->any));
            }
        }
    }
}

/* The registers whose values a register's comes from, with itself. */
static struct global_set find_sources(const struct changes *changes, unsigned global)
{
    struct global_set sources = {{0}}, todo = {{0}};
    set_add(&todo, global);
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
            if (set_has(&todo, i) && !set_has(&sources, i)) {
                set_add(&sources, i);
                for (unsigned k = 0; k < CODE_GLOBALS_MAX / 64; k++) {
                    todo.words[k] |= changes->from[i].words[k] | changes->through[i].words[k];
                }
                more = true;
            }
        }
    }
    return sources;
}

/* Each load on the way is off something that comes from what was loaded the last time. */
static bool loads_return(const struct changes *changes, unsigned global)
{
    for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
        if (set_has(&changes->through[global], i)) {
            struct global_set sources = find_sources(changes, i);
            if (!set_has(&sources, global)) {
                return false;
            }
        }
    }
    return true;
}

static bool judge(const struct changes *changes, unsigned global)
{
    struct global_set sources = find_sources(changes, global);
    for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
        if (set_has(&sources, i) && (set_has(&changes->any, i) || !loads_return(changes, i))) {
            return false;
        }
    }
    return true;
}

static bool is_steady(struct changes *changes, unsigned global)
{
    if (!set_has(&changes->judged, global)) {
        set_add(&changes->judged, global);
        if (judge(changes, global)) {
            set_add(&changes->steady, global);
        }
    }
    return set_has(&changes->steady, global);
}

/* --- accesses ------------------------------------------------------------------------------- */

static void note_block(struct region_code *code, struct code_block *block, struct changes *changes)
{
    for (unsigned i = 0; i < block->ir.op_count; i++) {
        const struct ir_op *op = &block->ir.ops[i];
        enum ir_effect effect = ir_opcode_table[op->opcode].effect;
        bool access = effect == IR_EFFECT_LOAD || effect == IR_EFFECT_STORE;
        if (access && is_global(op->a) && op->a != code->zero && is_steady(changes, op->a)) {
            set_add(&block->steady, op->a);
            set_add(effect == IR_EFFECT_LOAD ? &code->steady_reads : &code->steady_writes, op->a);
        }
    }
}

/* The smallest body that holds a block is that of the innermost loop around it. */
void code_find_steady(struct region_code *code)
{
    struct block_set before[REGION_BLOCKS_MAX], bodies[REGION_EDGES_MAX];
    uint16_t inner[REGION_BLOCKS_MAX], size[REGION_BLOCKS_MAX];
    unsigned count = code->region->block_count;
    memset(&code->steady_reads, 0, sizeof(code->steady_reads));
    memset(&code->steady_writes, 0, sizeof(code->steady_writes));
    memset(inner, 0xff, sizeof(inner));
    find_predecessors(code, before);
    for (unsigned e = 0; e < code->back_edge_count; e++) {
        bodies[e] = find_body(code, before, &code->back_edges[e]);
        unsigned blocks = block_count(&bodies[e]);
        for (unsigned i = 0; i < count; i++) {
            if (block_has(&bodies[e], i) && (inner[i] == UINT16_MAX || blocks < size[i])) {
                inner[i] = (uint16_t)e;
                size[i] = (uint16_t)blocks;
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        memset(&code->blocks[i].steady, 0, sizeof(code->blocks[i].steady));
    }
    for (unsigned e = 0; e < code->back_edge_count; e++) {
        struct changes changes;
        bool known = false;
        if (insn_count(code, &bodies[e]) > LOOP_INSNS_MAX) {
            continue;
        }
        for (unsigned i = 0; i < count; i++) {
            if (inner[i] == e) {
                if (!known) {
                    find_changes(code, &bodies[e], &changes);
                    known = true;
                }
                note_block(code, &code->blocks[i], &changes);
            }
        }
    }
}
