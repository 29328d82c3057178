/*
 * The baseline compiler: a block's IR to host code, at once, on the block's first execution.
 *
 * A compiled block is entered like an interpreter handler, and what it does not do itself, it
 * leaves to the interpreter, for one operation or for the rest of the block (compile.h). So both
 * kinds of blocks lead to each other, and a block that cannot be compiled is merely slow.
 *
 * One `struct baseline` an engine, used under the engine's watch lock but for creation.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_BASELINE_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_BASELINE_H

#include "libshared/base/error.h"
#include "vmmd/vcpu/engine/core.h"

struct baseline;

/* Whether this host has a back end. */
bool baseline_available(void);
/* NULL with *err set. To be called before the process is confined. */
struct baseline *baseline_create(const struct isa *isa, struct error *err);
void baseline_destroy(struct baseline *baseline); /* NULL is allowed */

/* --- with the watch lock held --------------------------------------------------------------- */
/* Give an unpublished block its host code. `code` are its steps, and `steps` says, for each
 * operation of the IR, at which of them it begins. False: it stays with the interpreter. */
bool baseline_compile(struct baseline *baseline, const struct ir_block *ir,
                      const struct xinsn *code, const uint16_t *steps, struct block *block);
/* Let exit `exit` of compiled code jump to `to`, or, with NULL, leave to look it up. */
void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to);
/* Let an exit to another page (or of a block in two pages) go to `to`, which lies in the page at
 * `host_page`, whenever that is what the exit's address is mapped to. False: it looks up every
 * time. `from` is compiled, with an exit that can be linked. */
bool baseline_link_guarded(struct baseline *baseline, struct block *from, unsigned exit,
                           struct block *to, const uint8_t *host_page);
/* The block's target.entry has changed: its guard shall lead there. */
void baseline_relink_guard(struct baseline *baseline, const struct block *block);
/* No CPU can be in the block any more. */
void baseline_free(struct baseline *baseline, struct block *block);
/* Where the code is; the compiler's. */
struct code_memory *baseline_memory(const struct baseline *baseline);

#endif
