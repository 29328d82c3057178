/*
 * A stream: random riscv64 code with the state it starts from, and the state it ends in. Both sides
 * of the differential test, the engine and the program that runs under the user-mode emulator
 * (tests/guests/lockstep/runner.c), share this layout; records travel over pipes as they are.
 *
 * *Trapping* streams run on engines only: there is a trap handler (subject.c) that notes what it
 * was called for, steps over the instruction (4 bytes; after a failed fetch it goes on at ra), and,
 * in user and supervisor mode, address translation.
 *
 * The code loads all registers from the state, runs, stores them back and jumps to state.exit. It
 * is position-dependent: everything lies at the addresses below on both sides.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_STREAM_H
#define POLYVISOR_TESTS_LOCKSTEP_STREAM_H

#include <stdint.h>

#define STREAM_BASE 0x40000000ul /* of the memory both sides map */
#define STREAM_SIZE 0x100000ul
#define STREAM_CODE 0x40000000ul
/* Around a page border, so that misaligned accesses cross it. */
#define STREAM_DATA_MIDDLE 0x40041000ul
#define STREAM_DATA        (STREAM_DATA_MIDDLE - STREAM_DATA_BYTES / 2)
#define STREAM_STATE       0x40080000ul
/* With translation: the page below the data is read-only, the page above is not mapped, none of
 * data is executable. Nothing is ever at STREAM_NOWHERE. */
#define STREAM_READ_ONLY 0x4003f000ul
#define STREAM_UNMAPPED  0x40042000ul
#define STREAM_NOWHERE   0x20000000ul
/* Two pages of short routines, one each STREAM_ROUTINE_BYTES, which return to ra. In supervisor
 * mode the two page-table entries can be written through STREAM_ALIAS_PTE, and may change places.
 */
#define STREAM_ALIAS         0x40050000ul
#define STREAM_ROUTINE_BYTES 16
#define STREAM_ALIAS_PTE     0x400d2280ul
/* For each side's own entry and exit code and what it has to keep. */
#define STREAM_SCRATCH 0x400c0000ul

#define STREAM_CODE_BYTES 16384
#define STREAM_DATA_BYTES 4096
#define STREAM_POOL_COUNT 128

enum stream_kind {
    STREAM_PORTABLE, /* runs under the emulator, too */
    STREAM_TRAPS_USER,
    STREAM_TRAPS_SUPERVISOR,
    STREAM_TRAPS_MACHINE,
};

struct stream_state {
    uint64_t x[32]; /* x[0], x[2] to x[4], x[29] and x[31] are set by the code itself */
    uint64_t f[32];
    uint64_t fcsr;
    uint64_t exit; /* where the code jumps when done; each side fills it in */
    uint8_t unused[1024 - 66 * 8];
    uint64_t pool[STREAM_POOL_COUNT]; /* read-only interesting values */
};
_Static_assert(sizeof(struct stream_state) == 2048, "all within reach of one base register");

struct stream_request {
    struct stream_state state;
    uint8_t data[STREAM_DATA_BYTES];
    uint32_t code_bytes;
    uint32_t reserved;
    uint8_t code[STREAM_CODE_BYTES];
};

struct stream_result {
    struct stream_state state;
    uint8_t data[STREAM_DATA_BYTES];
};

#endif
