/*
 * Quiescence: asking other CPUs to flush or to leave their block, and waiting until they have.
 *
 * Functions named after `self` are called on that CPU's own thread.
 */
#ifndef POLYVISOR_VCPU_ENGINE_QUIESCE_H
#define POLYVISOR_VCPU_ENGINE_QUIESCE_H

#include "vmmd/vcpu/engine/core.h"

/* Raise the CPU's state to at least `state`; returns the one to give to quiesce_leave. */
uint32_t quiesce_enter(struct engine_cpu *self, uint32_t state);
/* Go back; serves requests when that is RUNNING, so translations may be gone after it. */
void quiesce_leave(struct engine_cpu *self, uint32_t previous);

/* At a block border: do what others asked for. */
void quiesce_border(struct engine_cpu *self);

/* Any thread: ask `target` to flush (or, with NULL, only to pass a quiescent point). */
uint64_t quiesce_request(struct engine_cpu *target, const struct flush_request *request);
/* Whether `target` has served the ticket or is at least in `state`: WAITING for translations,
 * ENDING for leaving its block, IDLE for holding none. */
bool quiesce_reached(struct engine_cpu *target, uint64_t ticket, uint32_t state);
/* Wait for that. `self` (NULL on other threads) itself counts as `state` meanwhile: waiting for
 * ENDING is for the last instruction of a block. */
void quiesce_wait(struct engine_cpu *self, struct engine_cpu *target, uint64_t ticket,
                  uint32_t state);

#endif
