/*
 * What must survive the process that serves a shared directory: which files the guest knows by
 * which number, which it has open, and what was about to be done. It is in a memfd that vmmd owns
 * (descriptor `share-state`), all zeros but for magic and version at first. Only the device's
 * process writes it, in single stores, in the order that devd/fs says; vmmd never looks into it.
 *
 * Descriptors survive elsewhere: in the queue of a pair of sockets of which vmmd holds both ends
 * (devd/fs/keep.h). The kernel keeps what is under way between them.
 */
#ifndef POLYVISOR_SHARE_STATE_H
#define POLYVISOR_SHARE_STATE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHARE_STATE_MAGIC   0x48535650u /* "PVSH" */
#define SHARE_STATE_VERSION 1u

#define SHARE_NODES_MAX      (1u << 20)
#define SHARE_HANDLES_MAX    (1u << 15)
#define SHARE_LONG_NAMES_MAX (1u << 13)
#define SHARE_NAME_MAX       255u
#define SHARE_SHORT_NAME     68u
#define SHARE_QUEUES_MAX     9u   /* one for what has priority, and eight */
#define SHARE_SLOTS          256u /* requests of one queue */
#define SHARE_ROOT           1u   /* index of the shared directory itself */

/* Who a file is, whatever it is called. */
struct share_identity {
    uint64_t device, inode;
    uint64_t born; /* nanoseconds; 0 where the file system does not say */
};

/* A file that the guest knows: its number is the index and the generation. */
struct share_node {
    struct share_identity identity;
    uint64_t lookups;    /* how often the guest was told of it, less what it forgot */
    uint32_t generation; /* of the index */
    _Atomic uint32_t used;
    uint32_t parent, parent_generation;
    uint32_t type;        /* S_IFMT bits */
    uint32_t long_name;   /* index of the name plus one, when it does not fit here */
    uint16_t name_length; /* 0: it has none that is known */
    uint16_t reserved;
    char name[SHARE_SHORT_NAME];
};

enum share_handle_kind { SHARE_HANDLE_FREE = 0, SHARE_HANDLE_FILE = 1, SHARE_HANDLE_DIRECTORY = 2 };
struct share_handle {
    _Atomic uint32_t kind;
    uint32_t generation; /* of the index */
    uint32_t node, node_generation;
    uint32_t flags; /* of open(2), the host's */
    uint32_t reserved;
    uint64_t unique; /* of the request that opened it */
};

/* What a request that cannot simply be done twice was about to change. */
struct share_intent {
    _Atomic uint64_t unique; /* the guest's number of the request; written last */
    uint32_t opcode, reserved;
    struct share_identity source, target; /* inode 0: there was none */
};

/* The one forgetting that was under way. */
struct share_forget {
    uint64_t unique;
    uint32_t position; /* of a batch */
    _Atomic uint32_t phase;
    uint32_t node, generation;
    uint64_t lookups; /* to be left */
};

struct share_state {
    uint32_t magic, version;       /* V */
    _Atomic uint32_t session;      /* the guest has introduced itself */
    uint32_t flags, flags2;        /* FUSE_INIT's, negotiated */
    uint32_t node_end, handle_end; /* indexes from here on were never used */
    uint32_t reserved;
    struct share_forget forget;
    struct share_intent intents[SHARE_QUEUES_MAX * SHARE_SLOTS];
    struct share_handle handles[SHARE_HANDLES_MAX];
    char long_names[SHARE_LONG_NAMES_MAX][SHARE_NAME_MAX + 1];
    struct share_node nodes[SHARE_NODES_MAX];
};
_Static_assert(sizeof(struct share_node) == 128, "shared layout");
_Static_assert(sizeof(struct share_handle) == 32, "shared layout");
_Static_assert(sizeof(struct share_intent) == 64, "shared layout");
#define SHARE_STATE_SIZE ((sizeof(struct share_state) + 4095u) & ~(size_t)4095u)

#endif
