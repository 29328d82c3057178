/*
 * The buffer that every host's assembler appends to.
 *
 * Nothing here knows guests or blocks. A buffer that is full sets `overflow` and takes no more
 * bytes; the caller looks once, at the end.
 *
 * An assembler (emit_<host>.h) has one function an instruction form, with its host's own names:
 * those who use most of them are host-specific as well. Those that host-neutral files use have the
 * same declaration everywhere: emit_move, emit_constant, emit_load64, emit_load, emit_store,
 * emit_store_constant, emit_extend, emit_float_load, emit_float_store, emit_float_move,
 * emit_float_from_bits, emit_float_to_bits, emit_jump, emit_jump_if, emit_land_at, emit_displace,
 * and the types host_memory (with host_at) and host_condition.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_EMIT_H

#include <stdbool.h>
#include <stdint.h>

/* In place of a register's number. */
#define NO_REGISTER 0xffu

struct emitter {
    uint8_t *bytes;
    uint32_t at, size;
    bool overflow;
};

static inline void emit_byte(struct emitter *e, uint8_t byte)
{
    if (e->at < e->size) {
        e->bytes[e->at++] = byte;
    } else {
        e->overflow = true;
    }
}

static inline void emit_u32(struct emitter *e, uint32_t value)
{
    for (unsigned i = 0; i < 32; i += 8) {
        emit_byte(e, (uint8_t)(value >> i));
    }
}

static inline void emit_u64(struct emitter *e, uint64_t value)
{
    emit_u32(e, (uint32_t)value);
    emit_u32(e, (uint32_t)(value >> 32));
}

#endif
