/* From guest bytes to a published block, and finding the block for a CPU's pc. */
#ifndef POLYVISOR_VCPU_ENGINE_DECODE_H
#define POLYVISOR_VCPU_ENGINE_DECODE_H

#include "vmmd/vcpu/engine/core.h"

/* The block at cpu->pc for cpu->block_mode, decoded if need be; links cpu->exit to it when it can.
 * NULL: an exception is pending. */
struct block *decode_find(struct engine_cpu *self);

#endif
