/*
 * What the torture guests share: traps that are expected and recorded, page tables, harts that wait
 * for each other. Each guest is one C file with a guest_main, which every hart calls; it returns 0
 * when all is well, otherwise the line of the check that failed.
 */
#ifndef POLYVISOR_TESTS_GUESTS_LOCKSTEP_TORTURE_GUEST_H
#define POLYVISOR_TESTS_GUESTS_LOCKSTEP_TORTURE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#define HARTS_MAX 8
#define PAGE      4096ul

/* Registers of the bare machine (tests/lockstep/bare_machine.h). */
#define BARE_EXIT     0x10000000ul
#define BARE_SOFTWARE 0x10000100ul
#define BARE_COUNT    0x10000200ul
#define BARE_YIELD    0x10000208ul
#define BARE_EXTERNAL 0x10000300ul

/* Free RAM, and where a failing guest leaves what it saw. */
#define GUEST_HEAP    0x80400000ul
#define GUEST_DETAILS 0x80fff000ul

enum cause {
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
};

struct trap_frame {
    uint64_t x[32];
    uint64_t pc, cause, value;
};
struct trap_page {
    struct trap_frame frame;
    uint8_t stack[PAGE - sizeof(struct trap_frame)];
};
struct trap_page guest_frames[HARTS_MAX] __attribute__((aligned(4096)));
uint8_t guest_stacks[HARTS_MAX][16384] __attribute__((aligned(4096)));

/* The last trap of a hart. While `expected` is set, a trap is recorded and execution goes on at
 * `resume`, or after the instruction when that is 0. Any other trap ends the guest. */
struct trap_record {
    volatile bool expected;
    volatile bool to_supervisor; /* and goes on in supervisor mode */
    volatile uint64_t resume, count, cause, value, pc;
    uint64_t x[32];
};
static struct trap_record guest_traps[HARTS_MAX];
static void (*guest_interrupt)(uint64_t hart, uint64_t cause);

uint64_t guest_machine_mode; /* not 0: the harts run in machine mode */

uint64_t guest_main(uint64_t hart, uint64_t harts);
void guest_trap(struct trap_frame *frame);
void *memcpy(void *to, const void *from, unsigned long size);
void *memset(void *to, int value, unsigned long size);

void *memcpy(void *to, const void *from, unsigned long size)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    for (unsigned long i = 0; i < size; i++) {
        __asm__ volatile("" ::: "memory"); /* not to be made a call of itself */
        out[i] = in[i];
    }
    return to;
}

void *memset(void *to, int value, unsigned long size)
{
    uint8_t *out = to;
    for (unsigned long i = 0; i < size; i++) {
        __asm__ volatile("" ::: "memory");
        out[i] = (uint8_t)value;
    }
    return to;
}

static inline uint64_t guest_hart(void)
{
    uint64_t hart;
    __asm__("mv %0, tp" : "=r"(hart));
    return hart;
}

static inline void register_write(uint64_t address, uint64_t value)
{
    *(volatile uint64_t *)address = value;
}

static inline uint64_t register_read(uint64_t address)
{
    return *(volatile uint64_t *)address;
}

/* End the whole guest: line, and two values worth seeing. */
static __attribute__((noreturn, noinline, unused)) void guest_fail(uint64_t line, uint64_t a,
                                                                   uint64_t b)
{
    volatile uint64_t *details = (volatile uint64_t *)GUEST_DETAILS;
    details[0] = a;
    details[1] = b;
    details[2] = guest_hart();
    register_write(BARE_EXIT, line);
    for (;;) {
    }
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            guest_fail(__LINE__, 0, 0);                                                            \
        }                                                                                          \
    } while (0)
#define CHECK_EQUAL(got, expected)                                                                 \
    do {                                                                                           \
        uint64_t got_ = (uint64_t)(got), expected_ = (uint64_t)(expected);                         \
        if (got_ != expected_) {                                                                   \
            guest_fail(__LINE__, got_, expected_);                                                 \
        }                                                                                          \
    } while (0)

void guest_trap(struct trap_frame *frame)
{
    uint64_t hart = frame->x[4];
    struct trap_record *trap = &guest_traps[hart];
    if (frame->cause >> 63 && guest_interrupt) {
        guest_interrupt(hart, frame->cause);
        return;
    }
    if (!trap->expected) {
        guest_fail(1000000 + frame->cause, frame->pc, frame->value);
    }
    trap->count++;
    trap->cause = frame->cause;
    trap->value = frame->value;
    trap->pc = frame->pc;
    for (unsigned i = 0; i < 32; i++) {
        trap->x[i] = frame->x[i];
    }
    if (trap->to_supervisor) {
        const uint64_t spp = 1 << 8;
        __asm__ volatile("csrs sstatus, %0" : : "r"(spp));
    }
    if (trap->resume) {
        frame->pc = trap->resume;
    } else {
        uint16_t first = *(volatile uint16_t *)frame->pc;
        frame->pc += (first & 3) == 3 ? 4 : 2;
    }
}

/* --- harts ---------------------------------------------------------------------------------- */
struct barrier {
    volatile uint64_t arrived, phase;
};
static struct barrier guest_barrier;

static inline void barrier_wait(struct barrier *barrier, uint64_t harts)
{
    uint64_t phase = barrier->phase;
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_SEQ_CST) == harts) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->phase, phase + 1, __ATOMIC_SEQ_CST);
    }
    while (__atomic_load_n(&barrier->phase, __ATOMIC_SEQ_CST) == phase) {
        __asm__ volatile(".4byte 0x0100000f"); /* pause */
    }
}

/* All harts of the guest. */
static inline void barrier(uint64_t harts)
{
    barrier_wait(&guest_barrier, harts);
}

/* --- translation (Sv39) --------------------------------------------------------------------- */
enum {
    PTE_V = 1,
    PTE_R = 2,
    PTE_W = 4,
    PTE_X = 8,
    PTE_U = 16,
    PTE_G = 32,
    PTE_A = 64,
    PTE_D = 128
};
#define PTE_RW  (PTE_V | PTE_R | PTE_W | PTE_A | PTE_D)
#define PTE_RWX (PTE_RW | PTE_X)

static uint64_t guest_heap = GUEST_HEAP;

/* Cleared pages. Any hart. */
static __attribute__((unused)) uint64_t allocate_pages(uint64_t count)
{
    uint64_t page = __atomic_fetch_add(&guest_heap, count * PAGE, __ATOMIC_RELAXED);
    memset((void *)page, 0, count * PAGE);
    return page;
}

/* The entry for `va` at `level` (0 = 4 KiB), tables on the way being made. */
static __attribute__((unused)) volatile uint64_t *page_entry(uint64_t root, uint64_t va,
                                                             unsigned level)
{
    volatile uint64_t *table = (volatile uint64_t *)root;
    for (unsigned at = 2;; at--) {
        volatile uint64_t *entry = &table[va >> (12 + 9 * at) & 511];
        if (at == level) {
            return entry;
        }
        if (!(*entry & PTE_V)) {
            *entry = allocate_pages(1) >> 12 << 10 | PTE_V;
        }
        table = (volatile uint64_t *)(*entry >> 10 << 12);
    }
}

static inline void map_page(uint64_t root, uint64_t va, uint64_t pa, uint64_t flags)
{
    *page_entry(root, va, 0) = pa >> 12 << 10 | flags;
}

static inline void fence_all(void)
{
    __asm__ volatile("sfence.vma" ::: "memory");
}

static inline void fence_page(uint64_t va)
{
    __asm__ volatile("sfence.vma %0" : : "r"(va) : "memory");
}

static inline void fence_code(void)
{
    __asm__ volatile("fence.i" ::: "memory");
}

/* Ask the firmware for a fence on the harts of the mask: 0 fence.i, 1 sfence.vma, 2 sfence.vma of
 * one address space. On return all have done it. */
static inline void remote_fence(uint64_t kind, uint64_t harts, uint64_t start, uint64_t size,
                                uint64_t asid)
{
    register uint64_t a0 __asm__("a0") = harts;
    register uint64_t a1 __asm__("a1") = 0;
    register uint64_t a2 __asm__("a2") = start;
    register uint64_t a3 __asm__("a3") = size;
    register uint64_t a4 __asm__("a4") = asid;
    register uint64_t a6 __asm__("a6") = kind;
    register uint64_t a7 __asm__("a7") = 0x52464e43;
    __asm__ volatile("ecall"
                     : "+r"(a0), "+r"(a1)
                     : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7)
                     : "memory");
}

static inline void use_table(uint64_t root, uint64_t asid)
{
    uint64_t satp = UINT64_C(8) << 60 | asid << 44 | root >> 12;
    __asm__ volatile("csrw satp, %0; sfence.vma" : : "r"(satp) : "memory");
}

/* A table with RAM mapped as it is, and the registers; the gigabyte at 0x40000000 is free. */
static __attribute__((unused)) uint64_t make_table(void)
{
    uint64_t root = allocate_pages(1);
    *page_entry(root, 0x80000000, 2) = 0x80000000ul >> 12 << 10 | PTE_RWX;
    *page_entry(root, 0, 2) = 0 | PTE_RW;
    return root;
}

/* --- code made at run time ------------------------------------------------------------------ */
#define INSN_LI_A0(value) (0x00000513u | (uint32_t)(value) << 20) /* addi a0, zero, value */
#define INSN_RET          0x00008067u

static inline uint64_t call(uint64_t address)
{
    return ((uint64_t(*)(void))address)();
}

#endif
