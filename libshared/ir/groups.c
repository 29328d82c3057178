#include "libshared/ir/groups.h"
#include "libshared/ir/opcode.h"
#include <string.h>

#define GLOBALS_MAX  256u
#define VALUES       (GLOBALS_MAX + IR_TEMPS_MAX)
#define ROOTS        (VALUES + IR_OPS_MAX)
#define OFFSET_LIMIT (INT64_C(1) << 30)

/* An address as root + offset. */
struct place {
    uint16_t root;
    int64_t offset;
};

struct finder {
    struct access_groups *out;
    struct place values[VALUES];
    uint16_t open[ROOTS];          /* the root's group that may still grow, or GROUP_NONE */
    uint16_t previous[IR_OPS_MAX]; /* a group's access so far */
};

static unsigned value_index(ir_value value)
{
    return ir_is_temp(value) ? GLOBALS_MAX + (value - IR_TEMP_BASE) : value;
}

static bool names_value(ir_value value)
{
    return value != IR_NONE && value != IR_IMMEDIATE;
}

/* What the operation makes of its result: a known distance from another value, or a new root. */
static void follow(struct finder *finder, const struct ir_op *op, unsigned index)
{
    if (!names_value(op->d)) {
        return;
    }
    struct place *place = &finder->values[value_index(op->d)];
    if (op->opcode == IR_mov && names_value(op->b)) {
        *place = finder->values[value_index(op->b)];
        return;
    }
    if (op->opcode == IR_add && op->b == IR_IMMEDIATE) {
        struct place base = finder->values[value_index(op->a)];
        int64_t sum;
        if (!__builtin_add_overflow(base.offset, op->imm, &sum) && sum < OFFSET_LIMIT &&
            sum > -OFFSET_LIMIT) {
            *place = (struct place){.root = base.root, .offset = sum};
            return;
        }
    }
    *place = (struct place){.root = (uint16_t)(VALUES + index)};
}

static bool is_plain_access(const struct ir_op *op)
{
    bool access = op->opcode == IR_load || op->opcode == IR_store || op->opcode == IR_loadf ||
                  op->opcode == IR_storef;
    return access && !(op->aux & (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE)) &&
           (op->aux & IR_MEM_SIZE) <= 3 && op->imm < OFFSET_LIMIT && op->imm > -OFFSET_LIMIT;
}

/* The root's open group, when it can take the range [first, end); otherwise a new one. */
static struct access_group *group_for(struct finder *finder, unsigned root, int64_t first,
                                      int64_t end)
{
    struct access_groups *out = finder->out;
    if (finder->open[root] != GROUP_NONE) {
        struct access_group *group = &out->groups[finder->open[root]];
        int64_t low = first < group->first ? first : group->first;
        int64_t high = end > group->end ? end : group->end;
        if (high - low <= GROUP_SPAN) {
            group->first = low;
            group->end = high;
            return group;
        }
    }
    finder->open[root] = (uint16_t)out->count;
    struct access_group *group = &out->groups[out->count++];
    *group = (struct access_group){.first = first, .end = end};
    return group;
}

static void add_access(struct finder *finder, const struct ir_op *op, unsigned index)
{
    struct access_groups *out = finder->out;
    struct place base = finder->values[value_index(op->a)];
    int64_t first = base.offset + op->imm;
    struct access_group *group =
        group_for(finder, base.root, first, first + (1 << (op->aux & IR_MEM_SIZE)));
    unsigned number = (unsigned)(group - out->groups);
    out->accesses[index] =
        (struct group_access){.group = (uint16_t)number, .next = UINT16_MAX, .address = first};
    if (group->count++) {
        out->accesses[finder->previous[number]].next = (uint16_t)index;
    }
    finder->previous[number] = group->last = (uint16_t)index;
    bool writes = ir_opcode_table[op->opcode].effect == IR_EFFECT_STORE;
    group->writes |= writes;
    group->reads |= !writes;
}

void groups_find(struct access_groups *groups, const struct ir_block *ir, unsigned global_count)
{
    struct finder finder;
    finder.out = groups;
    groups->count = 0;
    memset(finder.open, 0xff, sizeof(finder.open));
    for (unsigned i = 0; i < global_count; i++) {
        finder.values[i] = (struct place){.root = (uint16_t)i};
    }
    for (unsigned i = 0; i < ir->op_count; i++) {
        const struct ir_op *op = &ir->ops[i];
        groups->accesses[i].group = GROUP_NONE;
        if (is_plain_access(op)) {
            add_access(&finder, op, i);
        } else if (ir_opcode_table[op->opcode].effect == IR_EFFECT_CALL) {
            memset(finder.open, 0xff, sizeof(finder.open));
        }
        follow(&finder, op, i);
    }
    for (unsigned i = 0; i < ir->op_count; i++) {
        struct group_access *access = &groups->accesses[i];
        if (access->group != GROUP_NONE && groups->groups[access->group].count < 2) {
            access->group = GROUP_NONE;
        }
    }
}
