/*
 * A compiler in place of LLVM, for tests: what it makes of a region leads straight back to the
 * lower tier, so a guest runs on as if nothing had been compiled. What else it does, the variable
 * POLYVISOR_TEST_COMPILER says, as "what:number" words; `number` picks regions whose fingerprint is
 * divisible by it:
 *   crash, abort, spin, refuse, unsound   what happens to them
 *   sleep                                 every region takes that many milliseconds
 */
#ifndef POLYVISOR_TESTS_COMPILER_DOUBLE_H
#define POLYVISOR_TESTS_COMPILER_DOUBLE_H

#include "jitd/region_compiler.h"
#include "libshared/base/clock.h"
#include "libshared/jit/cache_entry.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct region_compiler {
    unsigned regions;
};

/* The number that goes with `what`, or 0. */
static unsigned long double_setting(const char *what)
{
    const char *settings = getenv("POLYVISOR_TEST_COMPILER");
    const char *found = settings ? strstr(settings, what) : NULL;

    return found ? strtoul(found + strlen(what) + 1, NULL, 10) : 0;
}

static bool double_picks(const char *what, const struct region *region)
{
    unsigned long number = double_setting(what);

    return number && cache_head_fingerprint(region) % number == 0;
}

bool region_compiler_setup(struct error *err)
{
    (void)err;
    return true;
}

const char *region_compiler_identity(void)
{
    return "test double 1";
}

struct region_compiler *region_compiler_create(struct error *err)
{
    (void)err;
    return calloc(1, sizeof(struct region_compiler));
}

void region_compiler_destroy(struct region_compiler *compiler)
{
    free(compiler);
}

/* Code that does nothing but jump through exit 0: a load of its entry relative to the end of the
 * code, and the jump; the exit's target is the seventh argument (libshared/jit/runtime.h). */
static void double_write_blob(const struct region *region, uint8_t *bytes)
{
    const struct blob_header header = {
        .magic = BLOB_MAGIC,
        .version = BLOB_VERSION,
        .code_bytes = 16,
        .exit_count = 1,
        .page_count = region->page_count,
    };
    const struct blob_exit back = {.page = 0, .offset = region->blocks[0].start};
    static const uint8_t code[16] = {
        0x48, 0x8b, 0x15, 9,    0,    0,    0,    /* mov rdx, [rip + 9] */
        0xff, 0x22,                               /* jmp [rdx] */
        0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, /* never reached */
    };

    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &back, sizeof(back));
    memcpy(bytes + sizeof(header) + sizeof(back), code, sizeof(code));
}

bool region_compile(struct region_compiler *compiler, const struct region *region,
                    struct compiled_region *out, struct error *err)
{
    unsigned long milliseconds = double_setting("sleep");

    compiler->regions++;
    if (milliseconds) {
        const struct timespec time = clock_timespec(milliseconds * NS_PER_MS);
        nanosleep(&time, NULL);
    }
    if (double_picks("crash", region)) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (double_picks("abort", region)) {
        abort();
    }
    for (volatile unsigned turns = 0; double_picks("spin", region); turns++) {
    }
    if (double_picks("refuse", region)) {
        error_set(err, ERROR_UNSUPPORTED, 0, "the test double refuses");
        return false;
    }
    out->size = sizeof(struct blob_header) + sizeof(struct blob_exit) + 16;
    out->bytes = malloc(out->size);
    if (!out->bytes) {
        error_set(err, ERROR_INTERNAL, 0, "out of memory");
        return false;
    }
    double_write_blob(region, out->bytes);
    out->insns = region->blocks[0].insns;
    if (double_picks("unsound", region)) {
        out->bytes[0] ^= 1;
    }
    return true;
}

char *region_compile_listing(struct region_compiler *compiler, const struct region *region,
                             struct error *err)
{
    struct compiled_region out = {0};

    if (!region_compile(compiler, region, &out, err)) {
        return NULL;
    }
    free(out.bytes);
    return strdup("a listing of the test double");
}

#endif
