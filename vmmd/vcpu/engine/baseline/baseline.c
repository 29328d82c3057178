/* On hosts that no back end was written for yet: everything is interpreted. */
#include "vmmd/vcpu/engine/baseline/host.h"

#if !HAS_BASELINE

#include "vmmd/vcpu/engine/baseline/baseline.h"
#include <errno.h>

bool baseline_available(void)
{
    return false;
}

struct baseline *baseline_create(const struct isa *isa, struct error *err)
{
    (void)isa;
    error_set(err, ERROR_CONFIG, ENOTSUP, "there is no compiler for this host's processor");
    return NULL;
}

void baseline_destroy(struct baseline *baseline)
{
    (void)baseline;
}

bool baseline_compile(struct baseline *baseline, const struct ir_block *ir,
                      const struct xinsn *code, const uint16_t *steps, struct block *block)
{
    (void)baseline, (void)ir, (void)code, (void)steps, (void)block;
    return false;
}

void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to)
{
    (void)baseline, (void)from, (void)exit, (void)to;
}

bool baseline_link_guarded(struct baseline *baseline, struct block *from, unsigned exit,
                           struct block *to, const uint8_t *host_page)
{
    (void)baseline, (void)from, (void)exit, (void)to, (void)host_page;
    return false;
}

void baseline_relink_guard(struct baseline *baseline, const struct block *block)
{
    (void)baseline, (void)block;
}

void baseline_free(struct baseline *baseline, struct block *block)
{
    (void)baseline, (void)block;
}

struct code_memory *baseline_memory(const struct baseline *baseline)
{
    (void)baseline;
    return NULL;
}

#endif
