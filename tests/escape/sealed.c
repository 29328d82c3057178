/*
 * Put around sandbox_seal (the linker's --wrap) in real programs: once they have confined
 * themselves they try every way out, and say on standard error, which is vmmd's log, how that went:
 *
 *   PROGRAM: escape NUMBER of COUNT: ERRNO WHAT
 *
 * Then they go on as if nothing had happened. Nothing is tried where no filter is in force: some of
 * it would do harm.
 */
#include "libshared/ipc/sandbox.h"
#include "tests/escape/escapes.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int __real_sandbox_seal(enum sandbox_job job, const struct sandbox_user *user, struct error *err);
int __wrap_sandbox_seal(enum sandbox_job job, const struct sandbox_user *user, struct error *err);

/* No filter lets this call through, and without one it always works. */
static bool filter_in_force(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0;
}

static void tell(const char *what)
{
    char line[200];
    int length = snprintf(line, sizeof(line), "%s: %s\n", program_invocation_short_name, what);
    ssize_t written =
        write(STDERR_FILENO, line, (size_t)length); /* whole lines: others write, too */
    (void)written;
}

int __wrap_sandbox_seal(enum sandbox_job job, const struct sandbox_user *user, struct error *err)
{
    int result = __real_sandbox_seal(job, user, err);
    char line[160];

    if (result < 0) {
        return result;
    }
    if (!filter_in_force()) {
        tell("escapes: no filter");
        return result;
    }
    for (size_t i = 0; i < escape_count; i++) {
        snprintf(line, sizeof(line), "escape %zu of %zu: %d %s", i, escape_count,
                 escape_attempts[i].try(), escape_attempts[i].what);
        tell(line);
    }
    tell("escapes told");
    return result;
}
