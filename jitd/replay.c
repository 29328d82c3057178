#include "jitd/replay.h"

#include "jitd/region_compiler.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/jit/cache_files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_region(const char *path, struct region *region, struct error *err)
{
    struct cache_entry entry;
    size_t size;
    uint8_t *bytes = cache_read_file(AT_FDCWD, path, &size);

    if (!bytes) {
        error_set(err, ERROR_IO, errno, "cannot read '%.120s': %s", path, strerror(errno));
        return false;
    }
    bool sound = true;
    if (!cache_entry_read(&entry, bytes, size)) {
        *region = entry.region;
    } else {
        sound = region_unpack(region, bytes, size, err);
    }
    free(bytes);
    return sound;
}

static void print_blocks(const struct region *region)
{
    printf("region: %s, mode %u, %u pages, %u blocks, %u bytes\n", region->isa, region->mode,
           region->page_count, region->block_count, region->byte_count);
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        printf("block %u: page %+d offset 0x%03x, %u instructions:", i,
               region->page_delta[block->page], block->start, block->insns);
        for (unsigned k = 0; k < block->length; k++) {
            printf("%s%02x", k % 2 ? "" : " ", region->bytes[block->bytes + k]);
        }
        putchar('\n');
    }
    for (unsigned i = 0; i < region->edge_count; i++) {
        printf("edge %u to %u\n", region->edges[i].from, region->edges[i].to);
    }
    fflush(stdout); /* what follows may be the end of this process */
}

bool replay_file(const char *path, struct error *err)
{
    static struct region region;
    struct compiled_region compiled = {0};
    struct blob blob;

    if (!read_region(path, &region, err) || !region_compiler_setup(err)) {
        return false;
    }
    printf("compiler: %s\n", region_compiler_identity());
    print_blocks(&region);
    struct region_compiler *compiler = region_compiler_create(err);
    if (!compiler) {
        return false;
    }
    /* It killed the compiler before, and a guest may have made it for more than that. */
    if (sandbox_seal(SANDBOX_COMPILER, NULL, err) < 0) {
        region_compiler_destroy(compiler);
        return false;
    }
    char *listing = region_compile_listing(compiler, &region, err);
    if (listing) {
        puts(listing);
        fflush(stdout);
    }
    bool done = listing && region_compile(compiler, &region, &compiled, err) &&
                blob_check(&blob, compiled.bytes, compiled.size, &region, err);
    if (done) {
        printf("compiled: %u instructions, %u bytes of code, %u exits\n", compiled.insns,
               blob.header.code_bytes, blob.header.exit_count);
    }
    free(listing);
    free(compiled.bytes);
    region_compiler_destroy(compiler);
    return done;
}
