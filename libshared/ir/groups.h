/*
 * Which accesses of a block can share one translation: those at constant distances from each other.
 *
 * An access's address is a *root*, a value that nothing is known about, plus a constant: additions
 * of constants and moves are followed. Accesses off one root that lie within GROUP_SPAN form a
 * group; where its first access is compiled, the TLB is asked once for the whole range. Host code
 * of the block may rely on the answer until it runs other code (compile.h): what takes translations
 * away waits for the block to end.
 *
 * Nothing here depends on the host.
 */
#ifndef POLYVISOR_IR_GROUPS_H
#define POLYVISOR_IR_GROUPS_H

#include "libshared/ir/ir.h"

/* A larger range lies in one page less often. */
#define GROUP_SPAN 256
#define GROUP_NONE UINT16_MAX

/* Offsets count from the root. */
struct access_group {
    int64_t first, end;   /* of all bytes accessed */
    uint16_t count, last; /* accesses; index of the last one's operation */
    bool reads, writes;
};

/* What is known of a memory operation. */
struct group_access {
    uint16_t group;  /* GROUP_NONE: it is alone */
    uint16_t next;   /* the next access of the group, or UINT16_MAX */
    int64_t address; /* offset of the address */
};

struct access_groups {
    unsigned count;
    struct access_group groups[IR_OPS_MAX];
    struct group_access accesses[IR_OPS_MAX];
};

/* Plain loads and stores only. `global_count`: values below it may be named. */
void groups_find(struct access_groups *groups, const struct ir_block *ir, unsigned global_count);

#endif
