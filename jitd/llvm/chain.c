/*
 * Loops of which several rounds are compiled as one (rounds.c): those that are a chain of blocks,
 * each with one way on within the loop, and whose accesses are all off registers that each round
 * moves on by a constant. So what some rounds access is a range, known at their beginning.
 */
#include "jitd/llvm/code.h"
#include "libshared/ir/opcode.h"
#include <string.h>

/* Guest instructions of all rounds; of one round for there to be many. */
#define INSNS_MAX       64u
#define ROUNDS_FEW      4u
#define ROUNDS_MANY     8u
#define SMALL_INSNS_MAX 8u
#define STEP_MAX        64
/* A larger range crosses pages too often. */
#define REACH_MAX 512

/* What a register holds: what `root` held before the first round, plus a distance. */
struct moved {
    ir_value root;
    int64_t distance;
    bool unknown, written;
    int reach; /* of those that have this root: its number, -1: none */
};

struct follower {
    const struct region_code *code;
    struct code_rounds *rounds;
    unsigned round, block; /* the present one: its number, and of the block in the region */
    struct moved moved[CODE_GLOBALS_MAX];
};

/* --- chains --------------------------------------------------------------------------------- */

static bool is_in(const struct code_rounds *rounds, int block)
{
    for (unsigned i = 0; i < rounds->block_count; i++) {
        if (rounds->blocks[i] == block) {
            return true;
        }
    }
    return false;
}

/* Whether control may come back to the head from the block within few blocks that lead nowhere
 * else in the region: the rest of a chain. Adds them. */
static bool add_chain(const struct region_code *code, struct code_rounds *rounds, unsigned head,
                      unsigned block)
{
    const struct code_block *at = &code->blocks[block];
    if (rounds->block_count == ROUND_BLOCKS_MAX || is_in(rounds, (int)block)) {
        return false;
    }
    rounds->blocks[rounds->block_count++] = (uint16_t)block;
    for (unsigned i = 0; i < at->way_count; i++) {
        if (at->ways[i].block == (int)head) {
            return true;
        }
    }
    for (unsigned i = 0; i < at->way_count; i++) {
        unsigned before = rounds->block_count;
        if (at->ways[i].block >= 0 && !code->blocks[at->ways[i].block].head &&
            add_chain(code, rounds, head, (unsigned)at->ways[i].block)) {
            return true;
        }
        rounds->block_count = before;
    }
    rounds->block_count--;
    return false;
}

/* --- what rounds do -------------------------------------------------------------------------- */

/* Each round must access in the same way. */
static bool note_access(struct follower *follower, unsigned op, int reach)
{
    struct code_rounds *rounds = follower->rounds;
    for (unsigned i = 0; i < rounds->access_count; i++) {
        if (rounds->accesses[i].block == follower->block && rounds->accesses[i].op == op) {
            return rounds->accesses[i].reach == reach;
        }
    }
    if (rounds->access_count == ROUND_ACCESSES_MAX || follower->round != 0) {
        return false;
    }
    rounds->accesses[rounds->access_count++] = (struct code_round_access){
        .block = (uint16_t)follower->block, .op = (uint16_t)op, .reach = (uint16_t)reach};
    return true;
}

static bool add_access(struct follower *follower, unsigned number, bool writes)
{
    struct code_rounds *rounds = follower->rounds;
    const struct ir_op *op = &follower->code->blocks[follower->block].ir.ops[number];
    bool special = op->aux & (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE);
    if (op->a >= CODE_GLOBALS_MAX || op->a == follower->code->zero || special ||
        (op->aux & IR_MEM_SIZE) > 3 || op->imm < -REACH_MAX || op->imm > REACH_MAX) {
        return false;
    }
    const struct moved *moved = &follower->moved[op->a];
    if (moved->unknown || moved->distance < -REACH_MAX || moved->distance > REACH_MAX) {
        return false;
    }
    int64_t first = moved->distance + op->imm, end = first + (1 << (op->aux & IR_MEM_SIZE));
    struct moved *root = &follower->moved[moved->root];
    if (root->reach < 0) {
        if (rounds->reach_count == ROUND_REACHES_MAX) {
            return false;
        }
        root->reach = (int)rounds->reach_count++;
        rounds->reaches[root->reach] = (struct code_reach){
            .root = moved->root, .base = op->a, .writes = writes, .first = first, .end = end};
    }
    struct code_reach *reach = &rounds->reaches[root->reach];
    if (reach->base != op->a && writes && !reach->writes) {
        return false; /* what is kept for reading says nothing of writing */
    }
    reach->writes |= writes;
    reach->first = first < reach->first ? first : reach->first;
    reach->end = end > reach->end ? end : reach->end;
    return reach->end - reach->first <= REACH_MAX && note_access(follower, number, root->reach);
}

static void move_on(struct follower *follower, const struct ir_op *op)
{
    if (op->d >= CODE_GLOBALS_MAX) {
        return;
    }
    struct moved *moved = &follower->moved[op->d];
    bool adds = op->opcode == IR_add && op->b == IR_IMMEDIATE && op->imm <= STEP_MAX &&
                op->imm >= -STEP_MAX;
    ir_value from = adds ? op->a : op->opcode == IR_mov ? op->b : IR_NONE;
    bool known =
        from < CODE_GLOBALS_MAX && from != follower->code->zero && !follower->moved[from].unknown;
    moved->written = true;
    moved->unknown = !known;
    if (known) {
        moved->root = follower->moved[from].root;
        moved->distance = follower->moved[from].distance + (adds ? op->imm : 0);
    }
}

static bool follow_block(struct follower *follower)
{
    const struct code_block *block = &follower->code->blocks[follower->block];
    for (unsigned i = 0; i < block->ir.op_count; i++) {
        const struct ir_op *op = &block->ir.ops[i];
        switch ((enum ir_effect)ir_opcode_table[op->opcode].effect) {
        case IR_EFFECT_LOAD:
            if ((op->opcode != IR_load && op->opcode != IR_loadf) ||
                !add_access(follower, i, false)) {
                return false;
            }
            break;
        case IR_EFFECT_STORE:
            if ((op->opcode != IR_store && op->opcode != IR_storef) ||
                !add_access(follower, i, true)) {
                return false;
            }
            break;
        case IR_EFFECT_CALL:
            return false;
        case IR_EFFECT_END:
            if (op->opcode != IR_branch && op->opcode != IR_jump) {
                return false;
            }
            break;
        default:
            break;
        }
        move_on(follower, op);
    }
    return true;
}

/* --- how long it goes on ---------------------------------------------------------------------- */

/* The branch's condition for staying in the loop; IR_EQ when there is none of the kinds known. */
static unsigned stay_condition(const struct code_block *block, const struct ir_op *op, int next)
{
    bool taken = block->ways[0].block == next;
    switch (op->aux) {
    case IR_NE:
        return taken ? IR_NE : IR_EQ;
    case IR_EQ:
        return taken ? IR_EQ : IR_NE;
    case IR_LT:
    case IR_LTU:
        return taken ? op->aux : IR_EQ;
    case IR_GE:
        return taken ? IR_EQ : IR_LT;
    case IR_GEU:
        return taken ? IR_EQ : IR_LTU;
    default:
        return IR_EQ;
    }
}

/* Whether the loop mostly goes round often enough for several times all rounds, as was seen. */
static bool goes_on(const struct code_rounds *rounds, const struct code_block *block, int next)
{
    bool taken = block->ways[0].block == next;
    return block->ways[!taken].weight / (2 * rounds->count) >= block->ways[taken].weight;
}

/* In the first round, at the end of the block. */
static void begin_stay(struct follower *follower, unsigned index, const struct ir_op *op)
{
    struct code_rounds *rounds = follower->rounds;
    const struct code_block *block = &follower->code->blocks[follower->block];
    struct code_stay *stay = &rounds->stays[index];
    int next = rounds->blocks[(index + 1) % rounds->block_count];
    if (op->opcode != IR_branch || op->a >= CODE_GLOBALS_MAX ||
        (op->b != IR_IMMEDIATE && op->b >= CODE_GLOBALS_MAX) || !goes_on(rounds, block, next)) {
        return;
    }
    *stay = (struct code_stay){.condition = (uint8_t)stay_condition(block, op, next),
                               .compared = op->a,
                               .fixed = op->b,
                               .number = op->imm};
    if (stay->condition == IR_NE && op->b != IR_IMMEDIATE && follower->moved[op->b].written) {
        stay->compared = op->b;
        stay->fixed = op->a;
    }
    const struct moved *moved = &follower->moved[stay->compared];
    stay->moving = moved->root;
    stay->distance = moved->distance;
    stay->known = stay->condition != IR_EQ && !moved->unknown;
}

/* In each round: as far from where it began as in the first one, plus steps. */
static void follow_stay(struct follower *follower, unsigned index)
{
    const struct ir_block *ir = &follower->code->blocks[follower->block].ir;
    struct code_stay *stay = &follower->rounds->stays[index];
    if (follower->round == 0) {
        begin_stay(follower, index, &ir->ops[ir->op_count - 1]);
    }
    const struct moved *moved = &follower->moved[stay->compared];
    if (stay->known && follower->round == 1) {
        stay->step = moved->distance - stay->distance;
    }
    stay->known &= !moved->unknown && moved->root == stay->moving &&
                   moved->distance == stay->distance + stay->step * (int64_t)follower->round;
}

/* Behind all rounds. */
static void finish_stays(struct follower *follower)
{
    struct code_rounds *rounds = follower->rounds;
    for (unsigned i = 0; i < rounds->block_count; i++) {
        struct code_stay *stay = &rounds->stays[i];
        stay->known = stay->known && stay->step != 0 &&
                      (stay->fixed == IR_IMMEDIATE || !follower->moved[stay->fixed].written) &&
                      (stay->condition == IR_NE || stay->step > 0);
    }
}

/* So many rounds. False when they are not of that kind. */
static bool follow_rounds(struct region_code *code, struct code_rounds *rounds)
{
    struct follower follower = {.code = code, .rounds = rounds};
    bool moves = false;
    for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
        follower.moved[i].root = (ir_value)i;
        follower.moved[i].reach = -1;
    }
    for (; follower.round < rounds->count; follower.round++) {
        for (unsigned i = 0; i < rounds->block_count; i++) {
            follower.block = rounds->blocks[i];
            if (!follow_block(&follower)) {
                return false;
            }
            follow_stay(&follower, i);
        }
    }
    finish_stays(&follower);
    for (unsigned i = 0; i < rounds->reach_count; i++) {
        const struct code_reach *reach = &rounds->reaches[i];
        const struct moved *root = &follower.moved[reach->root];
        moves |= !root->unknown && root->root == reach->root && root->distance != 0;
        set_add(reach->writes ? &code->steady_writes : &code->steady_reads, reach->base);
    }
    return moves;
}

void code_find_rounds(struct region_code *code)
{
    for (unsigned head = 0; head < code->region->block_count; head++) {
        struct code_rounds *rounds = &code->blocks[head].rounds;
        unsigned insns = 0;
        memset(rounds, 0, sizeof(*rounds));
        if (!code->blocks[head].head || !add_chain(code, rounds, head, head)) {
            continue;
        }
        for (unsigned i = 0; i < rounds->block_count; i++) {
            insns += code->blocks[rounds->blocks[i]].ir.insn_count;
        }
        rounds->count = insns <= SMALL_INSNS_MAX ? ROUNDS_MANY : ROUNDS_FEW;
        if (insns * rounds->count > INSNS_MAX || !follow_rounds(code, rounds)) {
            rounds->count = 0;
        }
    }
}
