#include "vmmd/shared_directory.h"

#include "libshared/base/descriptor.h"
#include "libshared/mem/memory.h"
#include "libshared/share/setting.h"
#include "libshared/share/state.h"
#include "vmmd/validate.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEEP_BUFFER (4 << 20) /* bytes; the kernel may grant less */

static int check_one(const char *text, struct share_setting *setting, struct error *err)
{
    int result = share_setting_parse(text, ERROR_CONFIG, setting, err);

    if (result == 0 && setting->path[0] != '/') {
        result = error_set(err, ERROR_CONFIG, 0, "the path of the share '%.100s' is not absolute",
                           setting->path);
    }
    return result;
}

int shared_directory_check(const Polyvisor__MachineConfig *config, struct error *err)
{
    struct share_setting setting, other;

    if (config->n_shares > SHARES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu shares: at most %d", config->n_shares,
                         SHARES_MAX);
    }
    /* All shares but the first take slots of the last disks. */
    if (config->n_shares > 1 && config->n_disks + config->n_shares - 1 > CONFIG_DISKS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu disks and %zu shares: no room for so many",
                         config->n_disks, config->n_shares);
    }
    for (size_t i = 0; i < config->n_shares; i++) {
        int result = check_one(config->shares[i], &setting, err);
        for (size_t j = 0; result == 0 && j < i; j++) {
            share_setting_parse(config->shares[j], ERROR_CONFIG, &other, NULL);
            if (strcmp(setting.tag, other.tag) == 0) {
                result =
                    error_set(err, ERROR_CONFIG, 0, "two shares have the tag '%s'", setting.tag);
                error_hint(err, "the guest tells them apart by their tags");
            }
        }
        if (result) {
            return result;
        }
    }
    return 0;
}

static int open_directory(const char *text, struct error *err)
{
    struct share_setting setting;
    int result = check_one(text, &setting, err);

    if (result) {
        return result;
    }
    int fd = open(setting.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        enum error_code code = errno == EACCES ? ERROR_PERMISSION : ERROR_CONFIG;
        error_set(err, code, errno, "cannot share '%.150s': %s", setting.path, strerror(errno));
        error_hint(err, "--share DIR:TAG needs a directory of this host");
        return -(int)code;
    }
    return fd;
}

int shared_directory_check_host(const Polyvisor__MachineConfig *config, struct error *err)
{
    for (size_t i = 0; i < config->n_shares; i++) {
        int fd = open_directory(config->shares[i], err);
        if (fd < 0) {
            return fd;
        }
        close(fd);
    }
    return 0;
}

void shared_directory_close(struct shared_directory *share)
{
    descriptor_close(&share->directory);
    descriptor_close(&share->state);
    descriptor_close(&share->keep_in);
    descriptor_close(&share->keep_out);
}

/* Zeros but for magic and version. */
static int open_state(void)
{
    const uint32_t head[] = {SHARE_STATE_MAGIC, SHARE_STATE_VERSION};
    int fd = memory_create_fd("share-state", SHARE_STATE_SIZE);

    if (fd >= 0 && pwrite(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) {
        close(fd);
        return -EIO;
    }
    return fd;
}

static int open_keep(struct shared_directory *share)
{
    const int bytes = KEEP_BUFFER;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
        return -errno;
    }
    share->keep_in = ends[0];
    share->keep_out = ends[1];
    if (setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0) {
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* what is granted */
    }
    return 0;
}

int shared_directory_open(const char *text, struct shared_directory *share, struct error *err)
{
    *share = (struct shared_directory){-1, -1, -1, -1};
    share->directory = open_directory(text, err);
    if (share->directory < 0) {
        return share->directory;
    }
    share->state = open_state();
    int result = share->state < 0 ? share->state : open_keep(share);
    if (result < 0) {
        shared_directory_close(share);
        return error_set(err, ERROR_IO, -result, "cannot set up a share: %s", strerror(-result));
    }
    return 0;
}

bool shared_directory_path(const char *text, char *folder, size_t size, bool *read_only)
{
    struct share_setting setting;

    if (share_setting_parse(text, ERROR_CONFIG, &setting, NULL) < 0) {
        return false;
    }
    *read_only = setting.read_only;
    snprintf(folder, size, "%s", setting.path);
    return true;
}

unsigned shared_directory_queue_count(unsigned cpus)
{
    return 1 + (cpus < SHARE_QUEUES_MAX - 1 ? cpus : SHARE_QUEUES_MAX - 1);
}
