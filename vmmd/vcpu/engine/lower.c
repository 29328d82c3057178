/* From IR to blocks and threaded code: choose a handler for each operation, drop markers. */
#include "vmmd/vcpu/engine/interp.h"
#include <stdlib.h>
#include <string.h>

/* As much as decode.c copies. */
#define LOOK_AHEAD (ENGINE_BLOCK_INSNS * 16u)

static const struct interp_operation *const operations[IR_OPCODE_COUNT] = {
#define OP(name, d, a, b, c, aux, effects) [IR_##name] = &interp_##name,
#include "libshared/ir/ops.def"
#undef OP
};

uint16_t lower_slot(const struct lowering *lowering, ir_value value)
{
    if (ir_is_temp(value)) {
        return (uint16_t)(offsetof(struct cpu, temps) +
                          (size_t)(value - IR_TEMP_BASE) * 2 * sizeof(uint64_t));
    }
    if (value == IR_NONE || value == IR_IMMEDIATE) {
        return LOWER_SCRATCH_SLOT;
    }
    return lowering->isa->globals[value].offset;
}

struct xinsn *lower_emit(struct lowering *lowering, const struct ir_op *op, interp_handler *handler)
{
    struct xinsn *step = &lowering->code[lowering->capacity - 1];
    if (lowering->count < lowering->capacity - 1) {
        step = &lowering->code[lowering->count++];
    } else {
        lowering->overflow = true;
    }
    *step = (struct xinsn){
        .handler = handler,
        .d = lower_slot(lowering, op->d),
        .a = lower_slot(lowering, op->a),
        .b = lower_slot(lowering, op->b),
        .insn = lowering->insn,
        .imm = op->imm,
    };
    return step;
}

struct xinsn *lower_memory_step(struct lowering *lowering, const struct ir_op *op,
                                interp_handler *handler)
{
    bool far = op->imm != (int32_t)op->imm;
    if (far) {
        struct ir_op add = {.opcode = IR_add,
                            .d = IR_NONE,
                            .a = op->a,
                            .b = IR_IMMEDIATE,
                            .c = IR_NONE,
                            .imm = op->imm};
        operations[IR_add]->lower(lowering, &add, operations[IR_add]);
    }
    struct xinsn *step = lower_emit(lowering, op, handler);
    step->a = far ? LOWER_SCRATCH_SLOT : step->a;
    step->mem.offset = far ? 0 : (int32_t)op->imm;
    step->mem.aux = op->aux;
    step->mem.c = lower_slot(lowering, op->c);
    return step;
}

/* Fill self->code and its tables from self->ir. False: there are too many steps. */
static bool lower_operations(struct engine_cpu *self, struct lowering *lowering)
{
    const struct ir_block *ir = &self->ir;
    unsigned insns = 0;
    *lowering = (struct lowering){
        .isa = self->engine->isa,
        .code = self->code,
        .capacity = ENGINE_STEPS_MAX,
        .exits_at = -1,
        .exit_target = {0, (uint64_t)ir->start + ir->length},
    };
    for (unsigned i = 0; i < ir->op_count; i++) {
        const struct ir_op *op = &ir->ops[i];
        self->steps[i] = (uint16_t)lowering->count;
        if (op->opcode == IR_insn) {
            lowering->insn = (uint16_t)insns;
            self->insn_steps[insns++] = (uint16_t)lowering->count;
            continue;
        }
        const struct interp_operation *operation = operations[op->opcode];
        operation->lower(lowering, op, operation);
    }
    self->steps[ir->op_count] = (uint16_t)lowering->count;
    self->insn_steps[insns] = (uint16_t)lowering->count;
    return !lowering->overflow;
}

/* --- blocks ---------------------------------------------------------------------------------- */

static void note_lengths(uint8_t *lengths, const struct ir_block *ir)
{
    unsigned insns = 0, offset = ir->start;
    for (unsigned i = 0; i < ir->op_count; i++) {
        if (ir->ops[i].opcode == IR_insn && insns++ > 0) {
            *lengths++ = (uint8_t)((uint64_t)ir->ops[i].imm - offset);
            offset = (unsigned)ir->ops[i].imm;
        }
    }
    if (insns > 0) {
        *lengths = (uint8_t)(ir->start + ir->length - offset);
    }
}

static void copy_bytes(uint8_t *bytes, const struct engine_cpu *self, const struct block *block)
{
    unsigned first = PAGE_BYTES - block->start;
    first = first < block->length ? first : block->length;
    memcpy(bytes, self->page + block->start, first);
    memcpy(bytes + first, self->next_page, block->length - first);
}

/* How many exits a block with that terminator has. */
static unsigned exit_count(unsigned terminator)
{
    return terminator == IR_branch ? 2 : terminator == IR_jump || terminator == IR_call ? 1 : 0;
}

struct block *lower_block(struct engine_cpu *self)
{
    const struct ir_block *ir = &self->ir;
    struct lowering lowering;
    unsigned terminator = ir->ops[ir->op_count - 1].opcode;
    unsigned exits = exit_count(terminator);
    size_t bytes = sizeof(struct block) + exits * sizeof(struct block_exit) +
                   ir->straddles * sizeof(struct block_second) + ir->insn_count + ir->length;
    struct block *block = lower_operations(self, &lowering) ? calloc(1, bytes) : NULL;
    if (!block) {
        return NULL;
    }
    block->mode = block->decoded_mode = ir->mode;
    block->start = ir->start;
    block->length = ir->length;
    block->insn_count = (uint8_t)ir->insn_count;
    block->exit_count = (uint8_t)exits;
    block->straddles = ir->straddles;
    block->terminator = (uint8_t)terminator;
    block->bytes = (uint32_t)bytes;
    for (unsigned i = 0; i < exits; i++) {
        block->exits[i].target = (int32_t)lowering.exit_target[i];
        block->exits[i].number = (uint8_t)i;
    }
    if (lowering.exits_at >= 0) {
        self->code[lowering.exits_at].exits = block->exits;
    }
    note_lengths(block_insn_lengths(block), ir);
    copy_bytes(block_guest_bytes(block), self, block);
    return block;
}

bool lower_keep_steps(struct engine_cpu *self, struct block *block)
{
    size_t bytes = self->steps[self->ir.op_count] * sizeof(struct xinsn);
    block->code = malloc(bytes);
    if (!block->code) {
        return false;
    }
    memcpy(block->code, self->code, bytes);
    block->bytes += (uint32_t)bytes;
    block->enter = block->code[0].handler;
    return true;
}

void lower_free(struct block *block)
{
    if (block) {
        free(block->code);
        free(block);
    }
}

/* --- steps of compiled blocks ---------------------------------------------------------------- */

/*
 * A ring of steps. What is taken from it has a position that only grows; it is there as long as the
 * ring has not come round to it. Only the CPU's own thread looks.
 */
struct lowered {
    struct block *block; /* NULL: none */
    uint64_t position;   /* of its steps; then of its insn_steps, as many steps as those take */
    uint32_t count;      /* steps */
};

struct lowered_cache {
    struct lowered entries[ENGINE_LOWERED_ENTRIES];
    uint64_t taken;
    struct xinsn ring[ENGINE_LOWERED_STEPS];
};
_Static_assert(ENGINE_LOWERED_STEPS >= 4 * ENGINE_STEPS_MAX, "any block fits, and the one before");

bool lower_cache_create(struct engine_cpu *self)
{
    self->lowered = calloc(1, sizeof(*self->lowered));
    return self->lowered != NULL;
}

void lower_cache_destroy(struct engine_cpu *self)
{
    free(self->lowered);
}

/* Blocks may have been freed already: who is idle is not waited for. So none is looked at. */
void lower_forget(struct engine_cpu *self)
{
    self->lowered->taken += 2 * ENGINE_LOWERED_STEPS;
}

static struct lowered *lowered_entry(const struct engine_cpu *self, const struct block *block)
{
    uint64_t key = (uint64_t)(uintptr_t)block * UINT64_C(0x9e3779b97f4a7c15);
    return &self->lowered->entries[(key >> 40) & (ENGINE_LOWERED_ENTRIES - 1)];
}

static struct xinsn *lowered_steps(const struct engine_cpu *self, const struct lowered *entry)
{
    return &self->lowered->ring[entry->position % ENGINE_LOWERED_STEPS];
}

/* `count` steps in a row. */
static uint64_t take_steps(struct lowered_cache *cache, unsigned count)
{
    uint64_t left = ENGINE_LOWERED_STEPS - cache->taken % ENGINE_LOWERED_STEPS;
    uint64_t position = cache->taken + (left < count ? left : 0);
    cache->taken = position + count;
    return position;
}

/* The same IR as when it was made: what follows its bytes, at which decoders may look ahead, was
 * not kept, and shows as zeros. */
static void decode_again(struct engine_cpu *self, const struct block *block)
{
    const uint8_t *bytes = block_guest_bytes(block);
    unsigned first = PAGE_BYTES - block->start;
    first = first < block->length ? first : block->length;
    struct isa_code code = {
        .page = self->page,
        .next_page = block->straddles ? self->next_page : NULL,
        .start = block->start,
        .insn_limit = block->insn_count,
        .mode = block->decoded_mode,
    };
    unsigned rest = PAGE_BYTES - block->start;
    memset(self->page + block->start, 0, rest < LOOK_AHEAD ? rest : LOOK_AHEAD);
    memcpy(self->page + block->start, bytes, first);
    memcpy(self->next_page, bytes + first, block->length - first);
    self->engine->isa->decode(&self->ir, &code);
}

static void lower_again(struct engine_cpu *self, struct block *block, struct lowered *entry)
{
    struct lowering lowering;
    decode_again(self, block);
    lower_operations(self, &lowering);
    if (lowering.exits_at >= 0) {
        self->code[lowering.exits_at].exits = block->exits;
    }
    *entry = (struct lowered){
        .block = block,
        .position = take_steps(self->lowered, lowering.count),
        .count = lowering.count,
    };
    memcpy(lowered_steps(self, entry), self->code, lowering.count * sizeof(struct xinsn));
}

const struct xinsn *lower_resume(struct cpu *cpu, unsigned step)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    struct block *block = cpu->block;
    struct lowered *entry = lowered_entry(self, block);
    if (entry->block != block || entry->position + ENGINE_LOWERED_STEPS < self->lowered->taken) {
        engine_count(self->counters.blocks_lowered);
        lower_again(self, block, entry);
    }
    return lowered_steps(self, entry) + step;
}

/* --- the rest of an instruction --------------------------------------------------------------- */

const struct xinsn *lower_rest_of_insn(struct engine_cpu *self, const struct xinsn *ip)
{
    const struct block *block = self->cpu->block;
    if (ip->insn + 1u == block->insn_count) {
        return ip + 1; /* the terminator follows, and its links were cleared */
    }
    struct lowering lowering;
    const struct xinsn *code =
        block->code ? block->code : lowered_steps(self, lowered_entry(self, block));
    decode_again(self, block);
    lower_operations(self, &lowering);
    unsigned end = self->insn_steps[ip->insn + 1];
    unsigned first = (unsigned)(ip + 1 - code);
    memcpy(self->rest, ip + 1, (end - first) * sizeof(*ip));
    self->rest[end - first] = (struct xinsn){.handler = interp_leave, .insn = ip->insn};
    return self->rest;
}
