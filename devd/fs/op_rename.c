/* Removing and renaming. */
#include "devd/fs/intent.h"
#include "devd/fs/nodes.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* The file that a name stands for: its node, if the guest knows it, loses that name; and before
 * that it is kept if it is open. */
static void prepare_loss(struct fs *fs, const struct share_identity *identity)
{
    pthread_mutex_lock(&fs->lock);
    uint32_t index = node_find(fs, identity);
    if (index) {
        node_keep(fs, index, false);
    }
    pthread_mutex_unlock(&fs->lock);
}

static void note_loss(struct fs *fs, const struct share_identity *identity, uint64_t parent,
                      const char *name)
{
    pthread_mutex_lock(&fs->lock);
    uint32_t index = node_find(fs, identity);
    if (index && node_is_named(fs, index, parent, name)) {
        node_set_name(fs, index, parent, "");
    }
    pthread_mutex_unlock(&fs->lock);
}

static int remove_once(struct fs *fs, const struct fs_message *message, int directory,
                       const char *name, bool is_directory, struct share_identity *lost)
{
    const struct share_intent *intent = intent_of(fs, message);
    struct statx status = {0};
    int result = fs_stat_at(directory, name, &status);
    struct share_identity present = fs_identity(&status);

    if (intent) {
        *lost = intent->source;
        if (result == -ENOENT || (result == 0 && !fs_same(&present, lost))) {
            return 0; /* an earlier process did it */
        }
    }
    if (result == -EXDEV) {
        return -EBUSY;
    }
    if (result < 0) {
        return result;
    }
    *lost = present;
    if (!intent) {
        prepare_loss(fs, lost);
        intent_begin(fs, message, lost, NULL);
    }
    return unlinkat(directory, name, is_directory ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

static int remove_name(struct fs *fs, struct fs_message *message, bool is_directory)
{
    struct share_identity lost = {0};
    struct node_pin parent;
    size_t offset = 0;
    const char *name = fs_name(message, &offset);

    if (!name) {
        return message->status;
    }
    int result = node_get(fs, message->header.nodeid, &parent);
    if (result < 0) {
        return result;
    }
    result = remove_once(fs, message, parent.fd, name, is_directory, &lost);
    if (result == 0) {
        note_loss(fs, &lost, message->header.nodeid, name);
    }
    node_put(fs, &parent);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}

int op_unlink(struct fs *fs, struct fs_message *message)
{
    return remove_name(fs, message, false);
}

int op_rmdir(struct fs *fs, struct fs_message *message)
{
    return remove_name(fs, message, true);
}

/* ---- Renaming ---- */

struct renaming {
    struct fs *fs;
    struct fs_message *message;
    struct node_pin from, to;
    uint64_t from_number, to_number;
    const char *old_name, *new_name;
    uint32_t flags;
    struct share_identity source, target; /* target: inode 0 when there is none */
};

static int identify(int directory, const char *name, struct share_identity *identity)
{
    struct statx status;
    int result = fs_stat_at(directory, name, &status);

    *identity = result == 0 ? fs_identity(&status) : (struct share_identity){0};
    return result == -EXDEV ? -EBUSY : result;
}

/* Whether an earlier process did what the intent says. */
static bool was_renamed(const struct renaming *renaming, const struct share_intent *intent,
                        const struct share_identity *at_old, const struct share_identity *at_new)
{
    if (!fs_same(at_new, &intent->source) || fs_same(at_old, &intent->source)) {
        return false;
    }
    return !(renaming->flags & RENAME_EXCHANGE) || fs_same(at_old, &intent->target);
}

static int rename_once(struct renaming *renaming)
{
    struct fs *fs = renaming->fs;
    const struct share_intent *intent = intent_of(fs, renaming->message);
    struct share_identity at_old, at_new;
    int result = identify(renaming->from.fd, renaming->old_name, &at_old);
    int target = identify(renaming->to.fd, renaming->new_name, &at_new);

    if (intent && was_renamed(renaming, intent, &at_old, &at_new)) {
        renaming->source = intent->source;
        renaming->target = intent->target;
        return 0;
    }
    if (result < 0 || (target < 0 && target != -ENOENT)) {
        return result < 0 ? result : target;
    }
    renaming->source = at_old;
    renaming->target = at_new;
    if (at_new.inode && !(renaming->flags & RENAME_EXCHANGE)) {
        prepare_loss(fs, &at_new);
    }
    intent_begin(fs, renaming->message, &renaming->source, &renaming->target);
    return renameat2(renaming->from.fd, renaming->old_name, renaming->to.fd, renaming->new_name,
                     renaming->flags) < 0
               ? -errno
               : 0;
}

static void note_renamed(const struct renaming *renaming)
{
    struct fs *fs = renaming->fs;
    bool exchanged = renaming->flags & RENAME_EXCHANGE;

    if (renaming->target.inode && !exchanged && !fs_same(&renaming->target, &renaming->source)) {
        note_loss(fs, &renaming->target, renaming->to_number, renaming->new_name);
    }
    pthread_mutex_lock(&fs->lock);
    uint32_t source = node_find(fs, &renaming->source);
    if (source) {
        node_set_name(fs, source, renaming->to_number, renaming->new_name);
    }
    uint32_t target = exchanged ? node_find(fs, &renaming->target) : 0;
    if (target) {
        node_set_name(fs, target, renaming->from_number, renaming->old_name);
    }
    pthread_mutex_unlock(&fs->lock);
}

static int rename_names(struct fs *fs, struct fs_message *message, uint64_t new_parent,
                        uint32_t flags, size_t offset)
{
    struct renaming renaming = {.fs = fs,
                                .message = message,
                                .from_number = message->header.nodeid,
                                .to_number = new_parent,
                                .flags = flags};

    renaming.old_name = fs_name(message, &offset);
    renaming.new_name = renaming.old_name ? fs_name(message, &offset) : NULL;
    if (!renaming.new_name) {
        return message->status;
    }
    if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
        return -EINVAL;
    }
    int result = node_get(fs, renaming.from_number, &renaming.from);
    if (result < 0) {
        return result;
    }
    result = node_get(fs, renaming.to_number, &renaming.to);
    if (result == 0) {
        result = rename_once(&renaming);
        if (result == 0) {
            note_renamed(&renaming);
        }
        node_put(fs, &renaming.to);
    }
    node_put(fs, &renaming.from);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}

int op_rename(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_rename_in, in, message);
    return rename_names(fs, message, in.newdir, 0, sizeof(in));
}

int op_rename2(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_rename2_in, in, message);
    return rename_names(fs, message, in.newdir, in.flags, sizeof(in));
}
