/*
 * The files that the guest knows. Each has a number (an index and a generation, so that the number
 * of one that was forgotten names nothing), an identity (device, inode, time of birth) and, in the
 * state that outlives the process, its parent and its name there.
 *
 * In this process a file has an O_PATH descriptor as long as there is room for it. When it has none
 * (let go to make room, or a new process) it is found again by its parent and its name, and what is
 * there counts only if its identity is the same: a file that the host replaced is -ESTALE, and
 * the guest's kernel looks the name up anew. A file without a name is kept (keep.h).
 *
 * The order of stores. A node's fields are written before `used`; its name_length is 0 while its
 * name changes; a request that changes names is repeated by the next process (intent.h) and then
 * writes them again. A count of lookups may be too high after a death, never too low.
 *
 * All functions but node_get and node_put want fs->lock.
 */
#ifndef POLYVISOR_DEVD_FS_NODES_H
#define POLYVISOR_DEVD_FS_NODES_H

#include "devd/fs/fs_internal.h"

/* A node in use: it stays and so does its descriptor. */
struct node_pin {
    uint32_t index;
    int fd; /* O_PATH */
};

/* Take over what the state holds. `cached` and `known` are fs_options'. 0 or -ENOMEM. */
int nodes_create(struct fs *fs, unsigned cached, unsigned known);
void nodes_destroy(struct fs *fs);
/* Once handles and what was kept are taken over: forget those that nobody needs. */
void nodes_sweep(struct fs *fs);
/* Forget all but the root. */
void nodes_clear(struct fs *fs);

/* The index of that number, or 0. */
uint32_t node_index(const struct fs *fs, uint64_t number);
/* Whether the node of that index is still the one of that generation. */
bool node_is(const struct fs *fs, uint32_t index, uint32_t generation);
uint32_t node_find(const struct fs *fs, const struct share_identity *identity);

/* Take the node of that number into use. 0, or -ESTALE when there is none or its file is gone, or
 * another negative errno. Takes the lock itself. */
int node_get(struct fs *fs, uint64_t number, struct node_pin *pin);
void node_put(struct fs *fs, const struct node_pin *pin);
/* The same, of the index of a node that is there. */
int node_hold(struct fs *fs, uint32_t index, struct node_pin *pin);
void node_release(struct fs *fs, uint32_t index);

/* Tell the guest of a file: a lookup more. `fd` is its O_PATH descriptor, taken in any case, or -1.
 * 0 with its number, or -ENFILE. */
int node_tell(struct fs *fs, const struct statx *status, uint64_t parent, const char *name, int fd,
              uint64_t *number);
/* Leave so many lookups; with none the node is gone. */
void node_set_lookups(struct fs *fs, uint32_t index, uint64_t lookups);
/* Its file is now called so. An empty name: it has none. */
void node_set_name(struct fs *fs, uint32_t index, uint64_t parent, const char *name);
/* Whether that is its name. */
bool node_is_named(const struct fs *fs, uint32_t index, uint64_t parent, const char *name);

/* How many open handles it has: they keep it, too. */
void node_add_handle(struct fs *fs, uint32_t index, int change);
/* Keep the file if it is open and not kept yet: its last name is about to go. `always`: also when
 * it is not open. 0 or -ENOSPC. */
int node_keep(struct fs *fs, uint32_t index, bool always);
/* For keep.h. */
int node_kept(const struct fs *fs, const struct keep_name *name);
bool node_restore(struct fs *fs, const struct keep_name *name, int fd); /* takes fd when true */

/* Whether the guest may keep more files in mind than it uses: while it knows few enough. */
bool nodes_have_room(const struct fs *fs);
/* Let go of the descriptors of files that nobody has used since the last call or has open: what the
 * host removes gives back its room. Whether there is something to let go of another time. */
bool nodes_tidy(struct fs *fs);

/* Whether the contents are those that the guest saw when it last opened the file; from now on
 * it has seen these. Of a file that was changed a moment before, nobody can say. */
bool node_unchanged(struct fs *fs, uint32_t index, const struct statx *status);

#endif
