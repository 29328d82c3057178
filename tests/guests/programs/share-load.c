/*
 * share-load DIR: work on a directory in several threads, checking what comes back of everything,
 * until the file DIR/stop appears. Prints what went wrong, and at the end how much was done.
 *
 * Each thread asks for what can go wrong when a request is lost or done twice: exclusive creation,
 * removal, renaming, appending, files without a name, files that their mode closes, listings.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int top;
static atomic_long done_count, failures;

static int stopped(void)
{
    return failures > 20 || faccessat(top, "stop", F_OK, 0) == 0;
}

static void wrong(const char *format, ...)
{
    char text[200];
    int cause = errno;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    printf("share-load: %s: %s\n", text, strerror(cause));
    failures++;
}

/* Count it; with a failure, name it. */
#define MUST(condition, ...)                                                                       \
    do {                                                                                           \
        if (condition) {                                                                           \
            done_count++;                                                                          \
        } else {                                                                                   \
            wrong(__VA_ARGS__);                                                                    \
        }                                                                                          \
    } while (0)

static void fill(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1103515245 + 12345;
        bytes[i] = (unsigned char)(seed >> 16);
    }
}

/* Exclusive creation, links, renames and removal: each must succeed, once. */
static void *names(void *context)
{
    int dir;
    char one[40], two[40], sub[40];

    (void)context;
    mkdirat(top, "names", 0755);
    dir = openat(top, "names", O_RDONLY | O_DIRECTORY);
    for (unsigned i = 0; !stopped(); i++) {
        snprintf(one, sizeof(one), "one-%u", i);
        snprintf(two, sizeof(two), "two-%u", i);
        snprintf(sub, sizeof(sub), "sub-%u", i);
        int fd = openat(dir, one, O_CREAT | O_EXCL | O_WRONLY, 0644);
        MUST(fd >= 0, "create %s", one);
        MUST(write(fd, &i, sizeof(i)) == sizeof(i), "write %s", one);
        close(fd);
        MUST(linkat(dir, one, dir, two, 0) == 0, "link %s", two);
        MUST(unlinkat(dir, one, 0) == 0, "unlink %s", one);
        MUST(mkdirat(dir, sub, 0755) == 0, "mkdir %s", sub);
        snprintf(one, sizeof(one), "sub-%u/three", i);
        MUST(renameat(dir, two, dir, one) == 0, "rename %s", two);
        MUST(symlinkat("three", dir, two) == 0, "symlink %s", two);
        MUST(unlinkat(dir, two, 0) == 0, "unlink link %s", two);
        unsigned back = 0;
        fd = openat(dir, one, O_RDONLY);
        MUST(fd >= 0 && read(fd, &back, sizeof(back)) == sizeof(back) && back == i, "read %s", one);
        close(fd);
        MUST(unlinkat(dir, one, 0) == 0, "unlink %s", one);
        MUST(unlinkat(dir, sub, AT_REMOVEDIR) == 0, "rmdir %s", sub);
    }
    close(dir);
    return NULL;
}

/* Every appended line is there once, in order. */
static void *append(void *context)
{
    char line[32];
    int fd = openat(top, "append", O_CREAT | O_WRONLY | O_APPEND | O_TRUNC, 0644);

    (void)context;
    for (unsigned i = 0; !stopped(); i++) {
        int length = snprintf(line, sizeof(line), "line %u\n", i);
        MUST(write(fd, line, (size_t)length) == length, "append %u", i);
    }
    close(fd);
    return NULL;
}

/* A file that has no name any more keeps its contents, whatever they are kept by. */
static void *nameless(void *context)
{
    static unsigned char block[8192], back[8192];

    (void)context;
    for (unsigned i = 0; !stopped(); i++) {
        int fd = openat(top, "nameless", O_CREAT | O_RDWR | O_TRUNC, 0600);
        MUST(fd >= 0, "create nameless");
        MUST(unlinkat(top, "nameless", 0) == 0, "unlink nameless");
        for (unsigned part = 0; part < 40; part++) {
            fill(block, sizeof(block), i + part);
            off_t at = (off_t)part * (off_t)sizeof(block);
            MUST(pwrite(fd, block, sizeof(block), at) == sizeof(block), "write nameless");
        }
        for (unsigned part = 0; part < 40; part++) {
            fill(block, sizeof(block), i + part);
            off_t at = (off_t)part * (off_t)sizeof(block);
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            MUST(pread(fd, back, sizeof(back), at) == sizeof(back) &&
                     memcmp(block, back, sizeof(back)) == 0,
                 "read nameless");
        }
        close(fd);
    }
    return NULL;
}

/* What its mode would not let us open again, as git makes its objects. */
static void *closed(void *context)
{
    static unsigned char block[4096], back[4096];
    char name[40], final[40];

    (void)context;
    mkdirat(top, "closed", 0755);
    for (unsigned i = 0; !stopped(); i++) {
        snprintf(name, sizeof(name), "closed/tmp-%u", i);
        snprintf(final, sizeof(final), "closed/object-%u", i % 50);
        int fd = openat(top, name, O_CREAT | O_EXCL | O_RDWR, 0444);
        MUST(fd >= 0, "create %s", name);
        fill(block, sizeof(block), i);
        for (unsigned part = 0; part < 8; part++) {
            MUST(write(fd, block, sizeof(block)) == sizeof(block), "write %s", name);
        }
        MUST(fsync(fd) == 0, "fsync %s", name);
        close(fd);
        MUST(renameat(top, name, top, final) == 0, "rename %s", name);
        fd = openat(top, final, O_RDONLY);
        MUST(fd >= 0 && pread(fd, back, sizeof(back), 7 * sizeof(back)) == sizeof(back) &&
                 memcmp(block, back, sizeof(back)) == 0,
             "read %s", final);
        close(fd);
    }
    return NULL;
}

/* A listing has each file once, while others come and go. */
static void *listing(void *context)
{
    enum { FILES = 200 };
    char name[40];

    (void)context;
    mkdirat(top, "listing", 0755);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "listing/file-%u", i);
        int fd = openat(top, name, O_CREAT | O_WRONLY, 0644);
        MUST(fd >= 0, "create %s", name);
        close(fd);
    }
    while (!stopped()) {
        unsigned seen[FILES] = {0}, index;
        DIR *dir = fdopendir(openat(top, "listing", O_RDONLY | O_DIRECTORY));
        struct dirent *entry;
        MUST(dir != NULL, "open listing");
        while (dir && (entry = readdir(dir))) {
            if (sscanf(entry->d_name, "file-%u", &index) == 1 && index < FILES) {
                seen[index]++;
            }
        }
        if (dir) {
            closedir(dir);
        }
        for (unsigned i = 0; i < FILES; i++) {
            MUST(seen[i] == 1, "file-%u is listed %u times", i, seen[i]);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    void *(*const work[])(void *) = {names, append, nameless, closed, listing};
    enum { THREADS = sizeof(work) / sizeof(work[0]) };
    pthread_t threads[THREADS];

    top = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
    if (top < 0) {
        fprintf(stderr, "usage: share-load DIR\n");
        return 2;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work[i], NULL);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("share-load: %ld done, %ld wrong\n", (long)done_count, (long)failures);
    return failures ? 1 : 0;
}
