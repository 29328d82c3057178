/*
 * connectd: one connection to the server of a network block device, then the end. vmmd starts it
 * for each attempt, because names have to be looked up, which waits and reads what strangers send;
 * the device's process has no network. See docs/design/devices.md.
 *
 *   connectd FOLDER URI   with descriptor `channel` (libshared/nbd/channel.h) and, where there was
 * a connection before, `old`; FOLDER is the machine's
 *
 * The old connection comes first: its server is to have done what it got by it. Otherwise a write
 * that a killed process had sent could be done after a newer one that came by the new connection.
 */
#include "connectd/dial.h"
#include "connectd/fence.h"
#include "libshared/base/log.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/nbd/channel.h"
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FENCE_MS     2000
#define DIAL_MS      5000 /* for each of a host's addresses */
#define LIFE_SECONDS 30   /* then the alarm ends it */

/* What a name is looked up with. */
static const char *const NETWORK_FILES[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
                                            NULL};

/* What it sees: the folder of a Unix socket, or the machine's, and what names are looked up with.
 */
static int isolate(const struct nbd_uri *uri, const char *machine, struct error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(uri->socket, '/');
    struct sandbox_isolation isolation = {
        .directory = folder, .also = NETWORK_FILES, .keep_user = true, .network = true};

    snprintf(folder, sizeof(folder), "%s", machine);
    if (uri->is_unix) {
        snprintf(folder, sizeof(folder), "%.*s", (int)(slash - uri->socket), uri->socket);
        isolation.also = NULL;
    }
    int status = sandbox_isolate(&isolation, err);
    return status ? status : sandbox_seal(SANDBOX_CONNECTOR, NULL, err);
}

static void tell_failure(int channel, const struct error *err)
{
    struct nbd_message message = {.kind = NBD_FAILED, .cause = (uint32_t)err->cause};

    snprintf(message.text, sizeof(message.text), "%s", err->message);
    nbd_message_send(channel, &message, -1);
}

static int live(const char *text, const char *machine, int channel, int old, struct error *err)
{
    const struct nbd_message connected = {.kind = NBD_CONNECTED};
    struct nbd_uri uri;
    int status = nbd_uri_parse(text, ERROR_CONFIG, &uri, err);

    status = status ? status : isolate(&uri, machine, err);
    if (status) {
        return status;
    }
    if (old >= 0 && !fence_wait(old, FENCE_MS)) {
        log_warning("the server does not end the old connection; going on without");
    }
    int fd = dial(&uri, DIAL_MS, err);
    if (fd < 0) {
        return fd;
    }
    status = nbd_message_send(channel, &connected, fd);
    return status < 0 ? error_set(err, ERROR_IO, -status, "cannot hand over a connection: %s",
                                  strerror(-status))
                      : 0;
}

int main(int argc, char **argv)
{
    struct fdlist descriptors = {.count = 0};
    struct error err;

    error_clear(&err);
    log_open("connectd");
    alarm(LIFE_SECONDS);
    signal(SIGPIPE, SIG_IGN);
    if (argc != 3 || fdlist_inherit(&descriptors) < 0) {
        fprintf(stderr, "usage: connectd FOLDER URI (started by vmmd)\n");
        return error_exit_status(ERROR_USAGE);
    }
    int channel = fdlist_take(&descriptors, "channel");
    int old = fdlist_take(&descriptors, "old");
    if (channel < 0) {
        return error_exit_status(ERROR_USAGE);
    }
    int status = live(argv[2], argv[1], channel, old, &err);
    if (status < 0) {
        tell_failure(channel, &err);
    }
    return status < 0 ? error_exit_status(err.code) : 0;
}
