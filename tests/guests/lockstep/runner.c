/*
 * The reference side of the differential test: a static riscv64 program, run by the user-mode
 * emulator. Reads requests from standard input, runs each, writes results to standard output.
 */
#include "tests/lockstep/stream.h"
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Save what C needs at STREAM_SCRATCH, jump to the code, come back through state.exit. */
void stream_run(void);
__asm__(".text\n"
        ".globl stream_run\n"
        "stream_run:\n"
        "   lui t0, 0x400c0\n"
        "   sd ra, 0(t0)\n   sd sp, 8(t0)\n   sd gp, 16(t0)\n   sd tp, 24(t0)\n"
        "   sd s0, 32(t0)\n   sd s1, 40(t0)\n   sd s2, 48(t0)\n   sd s3, 56(t0)\n"
        "   sd s4, 64(t0)\n   sd s5, 72(t0)\n   sd s6, 80(t0)\n   sd s7, 88(t0)\n"
        "   sd s8, 96(t0)\n   sd s9, 104(t0)\n   sd s10, 112(t0)\n   sd s11, 120(t0)\n"
        "   fsd fs0, 128(t0)\n   fsd fs1, 136(t0)\n   fsd fs2, 144(t0)\n   fsd fs3, 152(t0)\n"
        "   fsd fs4, 160(t0)\n   fsd fs5, 168(t0)\n   fsd fs6, 176(t0)\n   fsd fs7, 184(t0)\n"
        "   fsd fs8, 192(t0)\n   fsd fs9, 200(t0)\n   fsd fs10, 208(t0)\n   fsd fs11, 216(t0)\n"
        "   lui t0, 0x40080\n"
        "   la t1, 1f\n"
        "   sd t1, 520(t0)\n"
        "   fence.i\n"
        "   lui t0, 0x40000\n"
        "   jr t0\n"
        "1: lui t0, 0x400c0\n"
        "   ld ra, 0(t0)\n   ld sp, 8(t0)\n   ld gp, 16(t0)\n   ld tp, 24(t0)\n"
        "   ld s0, 32(t0)\n   ld s1, 40(t0)\n   ld s2, 48(t0)\n   ld s3, 56(t0)\n"
        "   ld s4, 64(t0)\n   ld s5, 72(t0)\n   ld s6, 80(t0)\n   ld s7, 88(t0)\n"
        "   ld s8, 96(t0)\n   ld s9, 104(t0)\n   ld s10, 112(t0)\n   ld s11, 120(t0)\n"
        "   fld fs0, 128(t0)\n   fld fs1, 136(t0)\n   fld fs2, 144(t0)\n   fld fs3, 152(t0)\n"
        "   fld fs4, 160(t0)\n   fld fs5, 168(t0)\n   fld fs6, 176(t0)\n   fld fs7, 184(t0)\n"
        "   fld fs8, 192(t0)\n   fld fs9, 200(t0)\n   fld fs10, 208(t0)\n   fld fs11, 216(t0)\n"
        "   fscsr zero\n"
        "   ret\n");
_Static_assert(STREAM_SCRATCH >> 12 == 0x400c0 && STREAM_STATE >> 12 == 0x40080 &&
                   STREAM_CODE >> 12 == 0x40000 && offsetof(struct stream_state, exit) == 520,
               "the addresses are spelled out in stream_run");

static bool read_all(void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = read(STDIN_FILENO, (char *)buffer + done, size - done);
        if (count <= 0 && errno != EINTR) {
            return false;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

static bool write_all(const void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(STDOUT_FILENO, (const char *)buffer + done, size - done);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

int main(void)
{
    static struct stream_request request;
    static struct stream_result result;
    void *memory = mmap((void *)STREAM_BASE, STREAM_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != (void *)STREAM_BASE) {
        perror("mapping the stream's memory");
        return 1;
    }
    struct stream_state *state = (void *)STREAM_STATE;
    uint8_t *data = (void *)STREAM_DATA;
    while (read_all(&request, sizeof(request))) {
        if (request.code_bytes > STREAM_CODE_BYTES) {
            fprintf(stderr, "stream of %u bytes\n", request.code_bytes);
            return 1;
        }
        memcpy((void *)STREAM_CODE, request.code, request.code_bytes);
        memcpy(state, &request.state, sizeof(*state));
        memcpy(data, request.data, sizeof(request.data));
        stream_run();
        memcpy(&result.state, state, sizeof(*state));
        memcpy(result.data, data, sizeof(result.data));
        result.state.exit = 0;
        if (!write_all(&result, sizeof(result))) {
            return 1;
        }
    }
    return 0;
}
