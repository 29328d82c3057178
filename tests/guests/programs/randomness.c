/*
 * randomness: read /dev/hwrng until /tmp/stop exists. Each read must bring what was asked for, and
 * bytes that were not there before: a buffer that the device reports as filled and did not fill
 * would hold zeroes or the bytes of an earlier read. Printed: "bytes N wrong N".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE 64u
#define WORDS (PIECE / 8)
#define KEPT  4096u /* words of earlier reads that a new one is compared with */

int main(void)
{
    static uint64_t kept[KEPT];
    uint64_t piece[WORDS], bytes = 0, wrong = 0;
    unsigned next = 0;
    int source = open("/dev/hwrng", O_RDONLY);

    if (source < 0) {
        perror("/dev/hwrng");
        return 2;
    }
    while (access("/tmp/stop", F_OK) != 0) {
        size_t count = 0;
        while (count < PIECE) {
            ssize_t got = read(source, (char *)piece + count, PIECE - count);
            if (got <= 0) {
                perror("read");
                return 1;
            }
            count += (size_t)got;
        }
        for (unsigned i = 0; i < WORDS; i++) {
            for (unsigned k = 0; k < KEPT; k++) {
                wrong += kept[k] == piece[i]; /* zero is there from the beginning */
            }
            kept[next++ % (KEPT - 1)] = piece[i];
        }
        bytes += PIECE;
    }
    printf("bytes %llu wrong %llu\n", (unsigned long long)bytes, (unsigned long long)wrong);
    return wrong != 0;
}
