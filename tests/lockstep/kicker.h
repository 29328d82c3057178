/*
 * A thread that stops an engine's CPU at random moments, and ticks for its profile: what the rest
 * of vcpud is to code that runs. Between kicker_set(k, NULL) and the next kicker_set it touches
 * nothing and holds no lock, so the process may fork.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_KICKER_H
#define POLYVISOR_TESTS_LOCKSTEP_KICKER_H

#include "vmmd/vcpu/engine/engine.h"

struct kicker;

/* Kicks are `shortest_us` to `longest_us` apart. NULL with a message on standard error. */
struct kicker *kicker_start(unsigned shortest_us, unsigned longest_us, uint64_t seed);
void kicker_stop(struct kicker *kicker); /* NULL is allowed */
/* From now on CPU 0 of this engine runs (NULL: none), and gets CPU_ATTENTION_PAUSE. */
void kicker_set(struct kicker *kicker, struct engine *engine);

#endif
