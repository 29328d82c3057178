/*
 * riscv64 instruction encodings for the stream generator: each takes the fixed bits of an
 * instruction and fills in its fields. The RISC-V Instruction Set Manual, volume I, sections 2.2
 * and "C".
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_ENCODE_H
#define POLYVISOR_TESTS_LOCKSTEP_ENCODE_H

#include <stdint.h>

static inline uint32_t encode_r(uint32_t fixed, unsigned rd, unsigned rs1, unsigned rs2)
{
    return fixed | rd << 7 | rs1 << 15 | rs2 << 20;
}

static inline uint32_t encode_r4(uint32_t fixed, unsigned rd, unsigned rs1, unsigned rs2,
                                 unsigned rs3)
{
    return encode_r(fixed, rd, rs1, rs2) | rs3 << 27;
}

static inline uint32_t encode_i(uint32_t fixed, unsigned rd, unsigned rs1, int immediate)
{
    return fixed | rd << 7 | rs1 << 15 | (uint32_t)immediate << 20;
}

static inline uint32_t encode_s(uint32_t fixed, unsigned rs1, unsigned rs2, int immediate)
{
    uint32_t bits = (uint32_t)immediate;
    return fixed | (bits & 31) << 7 | rs1 << 15 | rs2 << 20 | (bits >> 5) << 25;
}

static inline uint32_t encode_u(uint32_t fixed, unsigned rd, uint32_t upper)
{
    return fixed | rd << 7 | upper << 12;
}

/* The offset fields of branches and jumps, to be or-ed in when the target is known. */
static inline uint32_t encode_b_offset(int offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 12 & 1) << 31 | (bits >> 5 & 63) << 25 | (bits >> 1 & 15) << 8 |
           (bits >> 11 & 1) << 7;
}

static inline uint32_t encode_j_offset(int offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 20 & 1) << 31 | (bits >> 1 & 1023) << 21 | (bits >> 11 & 1) << 20 |
           (bits >> 12 & 255) << 12;
}

/* c.j */
static inline uint32_t encode_cj_offset(int offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 11 & 1) << 12 | (bits >> 4 & 1) << 11 | (bits >> 8 & 3) << 9 |
           (bits >> 10 & 1) << 8 | (bits >> 6 & 1) << 7 | (bits >> 7 & 1) << 6 |
           (bits >> 1 & 7) << 3 | (bits >> 5 & 1) << 2;
}

/* c.beqz, c.bnez */
static inline uint32_t encode_cb_offset(int offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 8 & 1) << 12 | (bits >> 3 & 3) << 10 | (bits >> 6 & 3) << 5 |
           (bits >> 1 & 3) << 3 | (bits >> 5 & 1) << 2;
}

/* Six-bit immediate of the CI format: c.addi, c.li, c.slli, ... */
static inline uint32_t encode_ci(uint32_t fixed, unsigned rd, unsigned immediate)
{
    return fixed | (immediate >> 5 & 1) << 12 | rd << 7 | (immediate & 31) << 2;
}

/* Compact registers (x8 to x15) are numbered 0 to 7 in these. */
static inline uint32_t encode_ca(uint32_t fixed, unsigned rd, unsigned rs2)
{
    return fixed | rd << 7 | rs2 << 2;
}

/* CL and CS: word accesses scale by 4, doubleword by 8; the offset is a multiple. */
static inline uint32_t encode_cl_word(uint32_t fixed, unsigned rd, unsigned rs1, unsigned offset)
{
    return fixed | (offset >> 3 & 7) << 10 | rs1 << 7 | (offset >> 2 & 1) << 6 |
           (offset >> 6 & 1) << 5 | rd << 2;
}

static inline uint32_t encode_cl_double(uint32_t fixed, unsigned rd, unsigned rs1, unsigned offset)
{
    return fixed | (offset >> 3 & 7) << 10 | rs1 << 7 | (offset >> 6 & 3) << 5 | rd << 2;
}

/* Relative to sp. */
static inline uint32_t encode_load_sp_word(uint32_t fixed, unsigned rd, unsigned offset)
{
    return fixed | (offset >> 5 & 1) << 12 | rd << 7 | (offset >> 2 & 7) << 4 |
           (offset >> 6 & 3) << 2;
}

static inline uint32_t encode_load_sp_double(uint32_t fixed, unsigned rd, unsigned offset)
{
    return fixed | (offset >> 5 & 1) << 12 | rd << 7 | (offset >> 3 & 3) << 5 |
           (offset >> 6 & 7) << 2;
}

static inline uint32_t encode_store_sp_word(uint32_t fixed, unsigned rs2, unsigned offset)
{
    return fixed | (offset >> 2 & 15) << 9 | (offset >> 6 & 3) << 7 | rs2 << 2;
}

static inline uint32_t encode_store_sp_double(uint32_t fixed, unsigned rs2, unsigned offset)
{
    return fixed | (offset >> 3 & 7) << 10 | (offset >> 6 & 7) << 7 | rs2 << 2;
}

static inline uint32_t encode_addi4spn(unsigned rd, unsigned offset)
{
    return 0x0000u | (offset >> 4 & 3) << 11 | (offset >> 6 & 15) << 7 | (offset >> 2 & 1) << 6 |
           (offset >> 3 & 1) << 5 | rd << 2;
}

static inline uint32_t encode_addi16sp(int offset)
{
    uint32_t bits = (uint32_t)offset;
    return 0x6101u | (bits >> 9 & 1) << 12 | (bits >> 4 & 1) << 6 | (bits >> 6 & 1) << 5 |
           (bits >> 7 & 3) << 3 | (bits >> 5 & 1) << 2;
}

#endif
