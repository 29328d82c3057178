/*
 * Blocks that branch to their own start: their globals stay in registers from round to round.
 *
 * Some globals are *carried*: each has a register of its own at the loop's head, loaded before the
 * first round. What the block changes of them is out of date in memory from then on, so every way
 * out stores it: retreats, the exit behind the loop, attention, and the branch back itself when it
 * is not linked. Instructions are counted in a register as well. Nothing may be called out of a
 * loop: such blocks are compiled without (compiler.unlooped).
 *
 * A loop's branch back is linked as an exit is: to the head while the block's own code is what
 * shall run, otherwise to a stub that stores everything and goes on from there.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_LOOPS_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_LOOPS_H

#include "vmmd/vcpu/engine/baseline/compile.h"

/* Decide whether the block is compiled as a loop, and what it carries. Before registers_begin. */
void loops_find(struct compiler *c);
/* Load what is carried; the loop's head is behind it. */
void loops_enter(struct compiler *c);
/* At the branch: store in HOT what is not carried. */
void loops_store_others(struct compiler *c);
/* On the way back, in HOT: bring each carried value where the head expects it. The bookkeeping does
 * not change. */
void loops_return(struct compiler *c);
/* State as at the head: store what is out of date, and the count. */
void loops_store_carried(struct compiler *c, struct emitter *e);

#endif
