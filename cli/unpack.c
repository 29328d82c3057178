#include "cli/unpack.h"

#include "cli/output.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE     65536
#define TOLD_MOST 20 /* lines about what was not made */

/* Without ARCHIVE_EXTRACT_UNLINK: that takes links out of the way that lie in a path, and they may
 * be the user's. One that has the very name of what comes is replaced. */
#define RULES                                                                                      \
    (ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |    \
     ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS)

struct unpacking {
    struct archive *from, *to;
    unsigned failures;
};

/* Names and reasons hold what the guest wrote. */
static void tell(struct unpacking *unpacking, const char *name, const char *reason)
{
    if (++unpacking->failures > TOLD_MOST) {
        return;
    }
    fputs("vmctl: cp: ", stderr);
    output_printable(stderr, name != NULL ? name : "?");
    fputs(": ", stderr);
    output_printable(stderr, reason != NULL ? reason : "it cannot be made");
    fputc('\n', stderr);
    if (unpacking->failures == TOLD_MOST) {
        fputs("vmctl: cp: what else fails is not told\n", stderr);
    }
}

/* The bytes of a file. False: the archive is at its end, or damaged. */
static bool copy_bytes(struct unpacking *unpacking, const char *name)
{
    const void *bytes;
    size_t size;
    la_int64_t offset;
    int status;

    while ((status = archive_read_data_block(unpacking->from, &bytes, &size, &offset)) ==
           ARCHIVE_OK) {
        if (archive_write_data_block(unpacking->to, bytes, size, offset) < ARCHIVE_OK) {
            tell(unpacking, name, archive_error_string(unpacking->to));
            return true; /* the rest of it is passed over */
        }
    }
    if (status < ARCHIVE_WARN) {
        tell(unpacking, name, archive_error_string(unpacking->from));
        return false;
    }
    return true;
}

static bool take_entry(struct unpacking *unpacking, struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    mode_t type = archive_entry_filetype(entry);

    if (type == S_IFBLK || type == S_IFCHR) {
        tell(unpacking, name, "a device, which is left out");
        return true;
    }
    if (archive_write_header(unpacking->to, entry) < ARCHIVE_OK) {
        tell(unpacking, name, archive_error_string(unpacking->to));
        return true;
    }
    bool goes_on = archive_entry_size(entry) <= 0 || copy_bytes(unpacking, name);
    if (archive_write_finish_entry(unpacking->to) < ARCHIVE_OK) {
        tell(unpacking, name, archive_error_string(unpacking->to));
    }
    return goes_on;
}

static void take_all(struct unpacking *unpacking)
{
    struct archive_entry *entry;
    int status;

    do {
        status = archive_read_next_header(unpacking->from, &entry);
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN && status != ARCHIVE_EOF) {
            tell(unpacking, "the guest's archive", archive_error_string(unpacking->from));
        }
    } while ((status == ARCHIVE_OK || status == ARCHIVE_WARN) && take_entry(unpacking, entry));
}

/* In the child, in the folder. Its exit status. */
static int unpack(int fd)
{
    struct unpacking unpacking = {.from = archive_read_new(), .to = archive_write_disk_new()};
    char rest[4096];

    if (unpacking.from == NULL || unpacking.to == NULL ||
        archive_read_support_format_tar(unpacking.from) != ARCHIVE_OK ||
        archive_write_disk_set_options(unpacking.to, RULES) != ARCHIVE_OK ||
        archive_read_open_fd(unpacking.from, fd, PIECE) != ARCHIVE_OK) {
        tell(&unpacking, "the guest's archive",
             unpacking.from != NULL ? archive_error_string(unpacking.from) : "out of memory");
    } else {
        take_all(&unpacking);
        if (archive_write_close(unpacking.to) != ARCHIVE_OK) {
            tell(&unpacking, "the folders", archive_error_string(unpacking.to));
        }
    }
    archive_write_free(unpacking.to);
    archive_read_free(unpacking.from);
    /* What pads it: were nobody to take that, sending it would be an error. */
    while (read(fd, rest, sizeof(rest)) > 0) {
    }
    return unpacking.failures == 0 ? 0 : 1;
}

int unpack_start(const char *folder, pid_t *child, struct error *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make a pipe: %s", strerror(errno));
    }
    *child = fork();
    if (*child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setlocale(LC_CTYPE, "C.UTF-8"); /* names that are not ASCII */
        close(ends[1]);
        if (chdir(folder) < 0) {
            fprintf(stderr, "vmctl: cp: %s: %s\n", folder, strerror(errno));
            _exit(1);
        }
        int status = unpack(ends[0]);
        fflush(stderr);
        _exit(status);
    }
    close(ends[0]);
    if (*child < 0) {
        error_set(err, ERROR_IO, errno, "cannot start a process: %s", strerror(errno));
        close(ends[1]);
        return -ERROR_IO;
    }
    return ends[1];
}
