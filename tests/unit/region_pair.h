/*
 * Two guests with the same memory and registers: one runs compiled regions, the other the
 * interpreter, and both must come to the same.
 */
#ifndef POLYVISOR_TESTS_UNIT_REGION_PAIR_H
#define POLYVISOR_TESTS_UNIT_REGION_PAIR_H

#include "tests/unit/region_host.h"
#include <check.h>

#define CODE HOST_RAM
#define DATA (HOST_RAM + 0x200000)

static struct region_compiler *compiler;
static struct region_host *subject, *reference;

static void setup(void)
{
    subject = host_create(ENGINE_INTERP, 1);
    reference = host_create(ENGINE_INTERP, 1);
    host_boot(subject, CODE);
    host_boot(reference, CODE);
}

static void teardown(void)
{
    host_destroy(subject);
    host_destroy(reference);
}

static void load(uint64_t address, const void *bytes, size_t size)
{
    host_write(subject, address, bytes, size);
    host_write(reference, address, bytes, size);
}

static void set_register(unsigned index, uint64_t value)
{
    subject->guest->x[index] = reference->guest->x[index] = value;
}

static struct host_region *compile(uint64_t pc, unsigned blocks, unsigned pages)
{
    struct error err = {0};
    struct host_region *region = host_compile(subject, compiler, pc, blocks, pages, &err);
    ck_assert_msg(region != NULL, "%s", err.message);
    return region;
}

/* Let the interpreter do as many instructions; then both guests must be alike. */
static void compare(void)
{
    while (reference->cpu->retired < subject->cpu->retired) {
        host_step(reference);
    }
    for (unsigned i = 0; i < 2 && reference->cpu->pc != subject->cpu->pc; i++) {
        host_step(reference); /* an exception */
    }
    const char *difference = host_differs(subject, reference);
    ck_assert_msg(!difference, "%s", difference);
    ck_assert_int_eq(
        memcmp(host_ram(subject, HOST_RAM), host_ram(reference, HOST_RAM), HOST_RAM_SIZE), 0);
}

#endif
