/*
 * Between the engine and jitd: asks for what is hot, fetches what the cache has, installs what
 * comes back. One thread of vcpud, which also ticks the engine's profile while guest code runs.
 *
 * jitd may be absent, die, hang, or send anything: the guest never waits for it. At most
 * JIT_LINK_REQUESTS requests are open; a new jitd says so in its first message, and all open
 * requests are forgotten.
 */
#ifndef POLYVISOR_VCPU_JIT_LINK_H
#define POLYVISOR_VCPU_JIT_LINK_H

#include "vmmd/vcpu/engine/region.h"

#define JIT_LINK_REQUESTS 48u /* below the tickets and fetches that the engine has */

/* What it needs of the engine (engine/region.h); tests have their own. */
struct jit_link_engine {
    bool (*tick)(struct engine *engine);
    int (*event)(struct engine *engine);
    void (*seen)(struct engine *engine);
    bool (*next_region)(struct engine *engine, struct region *region, uint64_t *ticket,
                        uint32_t *heat);
    bool (*replaces)(struct engine *engine, uint64_t ticket);
    bool (*wanted)(struct engine *engine, uint64_t ticket);
    void (*refused)(struct engine *engine, uint64_t ticket);
    void (*forget)(struct engine *engine);
    void (*set_known)(struct engine *engine, const uint64_t *fingerprints, size_t count);
    bool (*next_fetch)(struct engine *engine, uint64_t *fingerprint);
    enum region_install (*install)(struct engine *engine, uint64_t ticket, uint64_t fingerprint,
                                   const struct region *region, const uint8_t *blob, size_t size,
                                   struct error *err);
    enum region_install (*install_other)(struct engine *engine, uint64_t ticket,
                                         const struct region *region, const uint8_t *blob,
                                         size_t size, struct error *err);
};
extern const struct jit_link_engine jit_link_engine; /* the real one */

struct jit_link;

/* Bind the socket `path` and start the thread. `engine` must outlive it. `wanted` is called on the
 * thread when there is something to ask and nobody takes it. NULL with *err set. */
struct jit_link *jit_link_create(const struct jit_link_engine *operations, struct engine *engine,
                                 const char *path, void (*wanted)(void *context), void *context,
                                 struct error *err);
void jit_link_destroy(struct jit_link *link); /* NULL is allowed */

struct jit_link_stats {
    uint64_t requests;   /* to compile */
    uint64_t fetches;    /* of code that the cache has */
    uint64_t from_cache; /* installed without compiling */
    uint64_t dropped;    /* messages that were no answer to anything */
    uint64_t lives;      /* jitds seen */
    /* jitd's processor time for the code that it compiled anew at our request, as it says. */
    uint64_t compile_ns, compile_median_ns, compile_p99_ns;
};
/* Any thread. */
void jit_link_get_stats(struct jit_link *link, struct jit_link_stats *stats);

#endif
