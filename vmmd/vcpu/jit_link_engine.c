/* The engine as jit_link.c uses it. */
#include "vmmd/vcpu/jit_link.h"

const struct jit_link_engine jit_link_engine = {
    .tick = engine_profile_tick,
    .event = engine_profile_event,
    .seen = engine_profile_seen,
    .next_region = engine_next_region,
    .replaces = engine_region_replaces,
    .wanted = engine_region_wanted,
    .refused = engine_region_refused,
    .forget = engine_regions_forget,
    .set_known = engine_set_known,
    .next_fetch = engine_next_fetch,
    .install = engine_install_region,
    .install_other = engine_install_other_region,
};
