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
#define SMALL_INSNS_MAX 5u
#define STEP_MAX        64
/* A larger range crosses pages too often. */
#define REACH_MAX 512

/* How the rounds so far have changed a register; what they did to memory off it. */
struct moved {
    int64_t distance;
    bool unknown;
    int reach; /* its number, -1: none */
};

struct follower {
    const struct region_code *code;
    struct code_rounds *rounds;
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

static bool add_access(struct follower *follower, const struct ir_op *op, bool writes)
{
    struct code_rounds *rounds = follower->rounds;
    bool special = op->aux & (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE);
    if (op->a >= CODE_GLOBALS_MAX || op->a == follower->code->zero || special ||
        (op->aux & IR_MEM_SIZE) > 3 || op->imm < -REACH_MAX || op->imm > REACH_MAX) {
        return false;
    }
    struct moved *moved = &follower->moved[op->a];
    int64_t first = moved->distance + op->imm, end = first + (1 << (op->aux & IR_MEM_SIZE));
    if (moved->reach < 0) {
        if (rounds->reach_count == ROUND_REACHES_MAX) {
            return false;
        }
        moved->reach = (int)rounds->reach_count++;
        rounds->reaches[moved->reach] =
            (struct code_reach){.base = op->a, .writes = writes, .first = first, .end = end};
    }
    struct code_reach *reach = &rounds->reaches[moved->reach];
    reach->writes |= writes;
    reach->first = first < reach->first ? first : reach->first;
    reach->end = end > reach->end ? end : reach->end;
    return !moved->unknown && reach->end - reach->first <= REACH_MAX;
}

static void move_on(struct follower *follower, const struct ir_op *op)
{
    if (op->d >= CODE_GLOBALS_MAX) {
        return;
    }
    struct moved *moved = &follower->moved[op->d];
    bool adds = op->opcode == IR_add && op->a == op->d && op->b == IR_IMMEDIATE &&
                op->imm <= STEP_MAX && op->imm >= -STEP_MAX;
    moved->unknown |= !adds;
    moved->distance += adds ? op->imm : 0;
}

static bool follow_block(struct follower *follower, const struct code_block *block)
{
    for (unsigned i = 0; i < block->ir.op_count; i++) {
        const struct ir_op *op = &block->ir.ops[i];
        switch ((enum ir_effect)ir_opcode_table[op->opcode].effect) {
        case IR_EFFECT_LOAD:
            if ((op->opcode != IR_load && op->opcode != IR_loadf) ||
                !add_access(follower, op, false)) {
                return false;
            }
            break;
        case IR_EFFECT_STORE:
            if ((op->opcode != IR_store && op->opcode != IR_storef) ||
                !add_access(follower, op, true)) {
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

/* So many rounds. A register that was accessed off may have become unknown behind that. */
static bool follow_rounds(struct region_code *code, struct code_rounds *rounds)
{
    struct follower follower = {.code = code, .rounds = rounds};
    bool moves = false;
    for (unsigned i = 0; i < CODE_GLOBALS_MAX; i++) {
        follower.moved[i].reach = -1;
    }
    for (unsigned round = 0; round < rounds->count; round++) {
        for (unsigned i = 0; i < rounds->block_count; i++) {
            if (!follow_block(&follower, &code->blocks[rounds->blocks[i]])) {
                return false;
            }
        }
    }
    for (unsigned i = 0; i < rounds->reach_count; i++) {
        const struct moved *moved = &follower.moved[rounds->reaches[i].base];
        moves |= moved->distance != 0 && !moved->unknown;
        set_add(rounds->reaches[i].writes ? &code->steady_writes : &code->steady_reads,
                rounds->reaches[i].base);
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
