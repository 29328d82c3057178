/* Control flow of a region, and what is known of its registers where. */
#include "jitd/llvm/code.h"
#include "libshared/ir/opcode.h"
#include <string.h>

/* Registers that a block may leave to its successors to store. (With 4 recursive calls and programs
 * full of branches lose a third; with 16 code is a sixth larger, and nothing faster.) */
#define DIRTY_MAX     8u
#define DIRTY_MAX_HOT 24u
#define HOT_PART      4u

/* --- ways ----------------------------------------------------------------------------------- */

static int find_block(const struct region *region, unsigned page, unsigned offset)
{
    for (unsigned i = 0; i < region->block_count; i++) {
        if (region->blocks[i].page == page && region->blocks[i].start == offset) {
            return (int)i;
        }
    }
    return -1;
}

static uint64_t edge_heat(const struct region_code *code, unsigned from, int to)
{
    const struct region *region = code->region;
    uint64_t heat = 0;
    for (unsigned i = 0; i < region->edge_count; i++) {
        if (code->ends[region->edges[i].from] == from && region->edges[i].to == to) {
            heat += region->edges[i].heat;
        }
    }
    return heat;
}

/* `target` counts from the virtual base of the block's page. */
static bool find_way(struct region_code *code, unsigned from, int64_t target, struct code_way *way)
{
    const struct region *region = code->region;
    *way = (struct code_way){
        .block = -1, .exit = -1, .offset = code->blocks[from].base + target, .weight = 1};
    int64_t page_base = way->offset & -(int64_t)CODE_PAGE_BYTES;
    unsigned offset = (unsigned)(way->offset - page_base);
    for (unsigned page = 0; page < region->page_count; page++) {
        if ((int64_t)region->page_delta[page] * CODE_PAGE_BYTES != page_base) {
            continue;
        }
        way->block = find_block(region, page, offset);
        if (way->block >= 0) {
            way->weight = 16 * edge_heat(code, from, way->block) + 2;
            return true;
        }
        way->exit = code_exit(code, page, offset);
        return way->exit >= 0;
    }
    return true;
}

static bool find_ways(struct region_code *code, unsigned index)
{
    struct code_block *block = &code->blocks[index];
    const struct ir_op *last = &block->ir.ops[block->ir.op_count - 1];
    block->way_count = 0;
    switch (last->opcode) {
    case IR_jump:
    case IR_call:
        block->way_count = 1;
        return find_way(code, index, last->imm, &block->ways[0]);
    case IR_branch:
        block->way_count = 2;
        return find_way(code, index, last->imm2, &block->ways[0]) &&
               find_way(code, index, block->ir.start + block->ir.length, &block->ways[1]);
    default:
        return true;
    }
}

static bool is_indirect(unsigned opcode)
{
    return opcode == IR_jump_ind || opcode == IR_call_ind || opcode == IR_ret;
}

/* Where an indirect jump was seen to go, the hottest first. */
static void find_expected(struct region_code *code, unsigned index)
{
    enum { LIMIT = sizeof(code->blocks[0].expected) / sizeof(code->blocks[0].expected[0]) };
    const struct region *region = code->region;
    struct code_block *block = &code->blocks[index];
    block->expected_count = 0;
    if (!is_indirect(block->ir.ops[block->ir.op_count - 1].opcode)) {
        return;
    }
    bool taken[REGION_BLOCKS_MAX] = {false};
    while (block->expected_count < LIMIT) {
        const struct region_edge *best = NULL;
        for (unsigned i = 0; i < region->edge_count; i++) {
            const struct region_edge *edge = &region->edges[i];
            if (code->ends[edge->from] == index && !taken[edge->to] &&
                (!best || edge->heat > best->heat)) {
                best = edge;
            }
        }
        if (!best) {
            break;
        }
        taken[best->to] = true;
        block->expected[block->expected_count++] = best->to;
    }
}

unsigned code_successors(const struct code_block *block, uint16_t next[CODE_SUCCESSORS_MAX])
{
    unsigned count = 0;
    for (unsigned i = 0; i < block->way_count; i++) {
        if (block->ways[i].block >= 0) {
            next[count++] = (uint16_t)block->ways[i].block;
        }
    }
    for (unsigned i = 0; i < block->expected_count; i++) {
        next[count++] = block->expected[i];
    }
    return count;
}

/* --- loops ---------------------------------------------------------------------------------- */

static void note_back_edge(struct region_code *code, uint16_t from, uint16_t head)
{
    if (code->back_edge_count < REGION_EDGES_MAX) {
        code->back_edges[code->back_edge_count++] =
            (struct code_back_edge){.from = from, .head = head};
    }
}

/* Depth first from the entry: whoever is come back to while on the path is a head. Each cycle has
 * one, reducible or not. */
static void find_heads(struct region_code *code)
{
    enum { NEW, OPEN, DONE };
    uint8_t state[REGION_BLOCKS_MAX] = {NEW};
    struct {
        uint16_t block, step;
    } path[REGION_BLOCKS_MAX];
    unsigned depth = 1;
    path[0].block = path[0].step = 0;
    state[0] = OPEN;
    while (depth) {
        uint16_t next[CODE_SUCCESSORS_MAX];
        struct code_block *block = &code->blocks[path[depth - 1].block];
        unsigned count = code_successors(block, next);
        block->reached = true;
        if (path[depth - 1].step == count) {
            state[path[--depth].block] = DONE;
            continue;
        }
        uint16_t to = next[path[depth - 1].step++];
        if (state[to] == OPEN) {
            code->blocks[to].head = true;
            note_back_edge(code, path[depth - 1].block, to);
        } else if (state[to] == NEW) {
            state[to] = OPEN;
            path[depth].block = to;
            path[depth++].step = 0;
        }
    }
}

/* --- registers ------------------------------------------------------------------------------ */

static bool helper_stores_all(const struct region_code *code, const struct ir_op *op)
{
    return op->opcode == IR_helper && !code_flags_helper(code, op);
}

static void find_used(struct region_code *code)
{
    memset(&code->used, 0, sizeof(code->used));
    for (unsigned i = 0; i < code->region->block_count; i++) {
        const struct ir_block *ir = &code->blocks[i].ir;
        for (unsigned j = 0; j < ir->op_count && code->blocks[i].reached; j++) {
            const ir_value values[4] = {ir->ops[j].d, ir->ops[j].a, ir->ops[j].b, ir->ops[j].c};
            for (unsigned k = 0; k < 4; k++) {
                if (values[k] < CODE_GLOBALS_MAX) {
                    set_add(&code->used, values[k]);
                }
            }
        }
    }
}

/* What is dirty at the block's end: a helper call stores everything. */
static struct global_set dirty_at_end(const struct region_code *code,
                                      const struct code_block *block)
{
    struct global_set set = block->dirty;
    for (unsigned j = 0; j < block->ir.op_count; j++) {
        const struct ir_op *op = &block->ir.ops[j];
        if (helper_stores_all(code, op)) {
            memset(&set, 0, sizeof(set));
        }
        if (op->d < CODE_GLOBALS_MAX) {
            set_add(&set, op->d);
        }
    }
    return set;
}

static void spread_dirty(struct region_code *code)
{
    bool grew = true;
    for (unsigned i = 0; i < code->region->block_count; i++) {
        memset(&code->blocks[i].dirty, 0, sizeof(code->blocks[i].dirty));
    }
    while (grew) {
        grew = false;
        for (unsigned i = 0; i < code->region->block_count; i++) {
            if (!code->blocks[i].reached || code->blocks[i].stores) {
                continue;
            }
            uint16_t next[CODE_SUCCESSORS_MAX];
            unsigned count = code_successors(&code->blocks[i], next);
            struct global_set after = dirty_at_end(code, &code->blocks[i]);
            for (unsigned j = 0; j < count; j++) {
                grew |= set_union(&code->blocks[next[j]].dirty, &after);
            }
        }
    }
}

static uint32_t hottest(const struct region_code *code)
{
    uint32_t heat = 0;
    for (unsigned i = 0; i < code->region->block_count; i++) {
        heat = code->blocks[i].heat > heat ? code->blocks[i].heat : heat;
    }
    return heat;
}

/* The coldest block that leaves too much to others; none of the hot ones. */
static struct code_block *block_that_should_store(struct region_code *code)
{
    struct code_block *coldest = NULL;
    uint32_t limit = hottest(code) / HOT_PART;
    for (unsigned i = 0; i < code->region->block_count; i++) {
        struct code_block *block = &code->blocks[i];
        struct global_set after = dirty_at_end(code, block);
        unsigned most = block->heat > limit ? DIRTY_MAX_HOT : DIRTY_MAX;
        if (block->reached && !block->stores && set_count(&after) > most &&
            (!coldest || block->heat < coldest->heat)) {
            coldest = block;
        }
    }
    return coldest;
}

/* Each cold way out stores what is dirty: where that is much, most of the code would be such
 * stores. So blocks that are not in the innermost loops, mostly, store in passing. */
static void find_dirty(struct region_code *code)
{
    struct code_block *block;
    spread_dirty(code);
    while ((block = block_that_should_store(code)) != NULL) {
        block->stores = true;
        spread_dirty(code);
    }
}

/* Read before written. Dirty registers count as read: somewhere in each block they may have to be
 * stored. */
static void find_needed(struct region_code *code)
{
    struct global_set reads[REGION_BLOCKS_MAX], writes[REGION_BLOCKS_MAX];
    memset(writes, 0, sizeof(writes));
    for (unsigned i = 0; i < code->region->block_count; i++) {
        const struct ir_block *ir = &code->blocks[i].ir;
        reads[i] = code->blocks[i].dirty;
        for (unsigned j = 0; j < ir->op_count; j++) {
            const ir_value values[3] = {ir->ops[j].a, ir->ops[j].b, ir->ops[j].c};
            for (unsigned k = 0; k < 3; k++) {
                if (values[k] < CODE_GLOBALS_MAX && !set_has(&writes[i], values[k])) {
                    set_add(&reads[i], values[k]);
                }
            }
            if (ir->ops[j].d < CODE_GLOBALS_MAX) {
                set_add(&writes[i], ir->ops[j].d);
            }
        }
    }
    for (bool grew = true; grew;) {
        grew = false;
        for (unsigned i = code->region->block_count; i-- > 0;) {
            uint16_t next[CODE_SUCCESSORS_MAX];
            unsigned count = code_successors(&code->blocks[i], next);
            struct global_set set = reads[i];
            for (unsigned j = 0; j < count; j++) {
                struct global_set later = code->blocks[next[j]].needed;
                for (unsigned k = 0; k < CODE_GLOBALS_MAX / 64; k++) {
                    later.words[k] &= ~writes[i].words[k];
                }
                set_union(&set, &later);
            }
            grew |= set_union(&code->blocks[i].needed, &set);
        }
    }
}

/* --- floating-point classes ----------------------------------------------------------------- */

enum { USED_SINGLE = 1, USED_DOUBLE = 2, USED_BITS = 4 };

static unsigned format_use(unsigned aux, bool other)
{
    bool single = ((aux & IR_FP_F32) != 0) != other;
    return !single ? USED_DOUBLE : aux & IR_FP_BOX ? USED_SINGLE : USED_BITS;
}

/* How the operation uses its floating-point operands: `to` the result, `from` the others. */
static void float_uses(const struct ir_op *op, unsigned *to, unsigned *from)
{
    *to = *from = 0;
    switch (op->opcode) {
    case IR_loadf:
        *to = (op->aux & IR_MEM_SIZE) == 3                           ? USED_DOUBLE
              : (op->aux & IR_MEM_SIZE) == 2 && op->aux & IR_MEM_BOX ? USED_SINGLE
                                                                     : USED_BITS;
        break;
    case IR_storef: /* takes any form */
    case IR_fmov:   /* likewise */
        break;
    case IR_fmv_to_int:
        *from = op->aux & IR_FP_F32 ? 0 : USED_DOUBLE;
        break;
    case IR_fcvt:
        *to = format_use(op->aux, false);
        *from = format_use(op->aux, true);
        break;
    default:
        *to = *from = format_use(op->aux, false);
        break;
    }
}

static void vote(uint8_t *uses, ir_value value, unsigned kind, unsigned use)
{
    if (kind == IR_OPERAND_F && value < CODE_GLOBALS_MAX) {
        uses[value] |= (uint8_t)use;
    }
}

static bool spread_moves(const struct ir_op *op, uint8_t *uses)
{
    if (op->opcode != IR_fmov) {
        return false;
    }
    unsigned d = op->d < CODE_GLOBALS_MAX ? uses[op->d] : USED_BITS;
    unsigned a = op->a < CODE_GLOBALS_MAX ? uses[op->a] : USED_BITS;
    vote(uses, op->d, IR_OPERAND_F, a);
    vote(uses, op->a, IR_OPERAND_F, d);
    return d != a;
}

static void find_classes(struct region_code *code)
{
    uint8_t uses[CODE_GLOBALS_MAX] = {0};
    code->has_float = false;
    for (bool again = true, first = true; again; first = false) {
        again = first;
        for (unsigned i = 0; i < code->region->block_count; i++) {
            const struct ir_block *ir = &code->blocks[i].ir;
            for (unsigned j = 0; j < ir->op_count && code->blocks[i].reached; j++) {
                const struct ir_op *op = &ir->ops[j];
                const struct ir_opcode_info *info = &ir_opcode_table[op->opcode];
                unsigned to, from;
                float_uses(op, &to, &from);
                vote(uses, op->d, info->d, to);
                vote(uses, op->a, info->a, from);
                vote(uses, op->b, info->b, from);
                vote(uses, op->c, info->c, from);
                again |= spread_moves(op, uses);
                code->has_float |= info->aux == IR_AUX_FP || code_flags_helper(code, op);
            }
        }
    }
    for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
        code->classes[i] = uses[i] == USED_SINGLE   ? CLASS_SINGLE
                           : uses[i] == USED_DOUBLE ? CLASS_DOUBLE
                                                    : CLASS_BITS;
    }
}

/* Ways from block to block, and loops. False: there are too many exits. */
static bool find_control(struct region_code *code)
{
    for (unsigned i = 0; i < code->region->block_count; i++) {
        code->blocks[i].head = code->blocks[i].reached = false;
    }
    for (unsigned i = 0; i < code->region->block_count; i++) {
        if (!find_ways(code, i)) {
            return false;
        }
        find_expected(code, i);
    }
    code->back_edge_count = 0;
    find_heads(code);
    return true;
}

bool code_analyse(struct region_code *code, struct error *err)
{
    for (unsigned i = 0; i < code->region->block_count; i++) {
        code->blocks[i].stores = false;
        memset(&code->blocks[i].needed, 0, sizeof(code->blocks[i].needed));
    }
    code_exit(code, 0, code->region->blocks[0].start); /* exit 0: the way back */
    if (!find_control(code) || (code_cut(code) && !find_control(code))) {
        error_set(err, ERROR_UNSUPPORTED, 0, "the region has too many exits");
        return false;
    }
    find_used(code);
    find_dirty(code);
    find_needed(code);
    find_classes(code);
    code_find_steady(code);
    code_find_rounds(code);
    return true;
}
