#include "devd/fs/nodes.h"

#include "devd/fs/handles.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS      (1u << 17)
#define EVICT_LOOKS  64u   /* how many in use are passed over to find one that can be let go */
#define DEPTH_MAX    2048u /* of a walk: no path that the guest can name is deeper */
#define ROOT_NUMBER  ((uint64_t)FUSE_ROOT_ID)
#define NO_NAME_SLOT 0u
#define SETTLED_S    1

/* What this process knows besides. */
struct node_own {
    int fd;                /* plus one; 0: none */
    uint32_t pins;         /* requests that use it */
    uint32_t handles;      /* open ones, in the state as well */
    uint32_t next;         /* in its bucket; of a free one: the next free */
    uint32_t newer, older; /* among those with a descriptor that may be let go */
    uint32_t used_at;      /* the count of tidyings when it was used last, while among those */
    bool kept, seen;
    struct statx_timestamp seen_time;
    uint64_t seen_size;
};

struct node_table {
    struct node_own *own; /* SHARE_NODES_MAX, touched as they are used */
    uint32_t *buckets;
    uint32_t free;           /* first of them */
    uint32_t newest, oldest; /* descriptors */
    unsigned cached, cached_max;
    uint32_t tidyings;
    unsigned known, known_max; /* nodes in use; above which the guest is to keep no more */
    uint32_t long_free[SHARE_LONG_NAMES_MAX]; /* numbers of slots, plus one */
    unsigned long_free_count;
};

_Static_assert(SHARE_ROOT == FUSE_ROOT_ID, "the root's number is fixed by the protocol");

/* ---- Numbers ---- */

static uint64_t node_number(const struct fs *fs, uint32_t index)
{
    return index == SHARE_ROOT ? ROOT_NUMBER
                               : (uint64_t)fs->state->nodes[index].generation << 32 | index;
}

uint32_t node_index(const struct fs *fs, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    return index && index < fs->state->node_end && fs->state->nodes[index].used &&
                   node_number(fs, index) == number
               ? index
               : 0;
}

bool node_is(const struct fs *fs, uint32_t index, uint32_t generation)
{
    return index && index < fs->state->node_end && fs->state->nodes[index].used &&
           fs->state->nodes[index].generation == generation;
}

static uint32_t *bucket_of(const struct fs *fs, const struct share_identity *identity)
{
    uint64_t mixed = (identity->inode ^ identity->device << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &fs->nodes->buckets[mixed >> 40 & (BUCKETS - 1)];
}

bool nodes_have_room(const struct fs *fs)
{
    const struct node_table *table = fs->nodes;
    return table->known < table->known_max && table->long_free_count > SHARE_LONG_NAMES_MAX / 2;
}

uint32_t node_find(const struct fs *fs, const struct share_identity *identity)
{
    uint32_t index = *bucket_of(fs, identity);

    while (index && !fs_same(&fs->state->nodes[index].identity, identity)) {
        index = fs->nodes->own[index].next;
    }
    return index;
}

/* ---- Descriptors ---- */

static bool in_line(const struct node_own *own, uint32_t index)
{
    return own->fd && !own->kept && index != SHARE_ROOT;
}

static void line_leave(struct node_table *table, uint32_t index)
{
    struct node_own *own = &table->own[index];

    *(own->newer ? &table->own[own->newer].older : &table->newest) = own->older;
    *(own->older ? &table->own[own->older].newer : &table->oldest) = own->newer;
    own->newer = own->older = 0;
    table->cached--;
}

static void line_join(struct node_table *table, uint32_t index)
{
    struct node_own *own = &table->own[index];

    own->older = table->newest;
    own->newer = 0;
    own->used_at = table->tidyings;
    *(table->newest ? &table->own[table->newest].newer : &table->oldest) = index;
    table->newest = index;
    table->cached++;
}

static void descriptor_drop(struct node_table *table, uint32_t index)
{
    struct node_own *own = &table->own[index];

    if (own->fd) {
        if (in_line(own, index)) {
            line_leave(table, index);
        }
        close(own->fd - 1);
        own->fd = 0;
    }
}

static void descriptors_trim(struct node_table *table)
{
    uint32_t index = table->oldest;

    for (unsigned i = 0; i < EVICT_LOOKS && index && table->cached > table->cached_max; i++) {
        uint32_t newer = table->own[index].newer;
        if (!table->own[index].pins) {
            descriptor_drop(table, index);
        }
        index = newer;
    }
}

static void descriptor_set(struct node_table *table, uint32_t index, int fd)
{
    struct node_own *own = &table->own[index];

    own->fd = fd + 1;
    if (in_line(own, index)) {
        line_join(table, index);
        descriptors_trim(table);
    }
}

bool nodes_tidy(struct fs *fs)
{
    struct node_table *table = fs->nodes;
    bool more = false;

    for (uint32_t index = table->oldest, newer; index && !more; index = newer) {
        const struct node_own *own = &table->own[index];
        newer = own->newer;
        const struct share_node *node = &fs->state->nodes[index];
        if (node->type == S_IFDIR || own->handles || !node->name_length) {
            continue; /* the guest may be in it; held anyway; not found again */
        }
        if (own->used_at == table->tidyings || own->pins) {
            more = true;
        } else {
            descriptor_drop(table, index);
        }
    }
    table->tidyings++;
    return more;
}

/* ---- Names ---- */

static const char *node_name(const struct fs *fs, uint32_t index, char name[SHARE_NAME_MAX + 1])
{
    const struct share_node *node = &fs->state->nodes[index];
    size_t length = node->name_length;
    const char *from = node->name;

    if (node->long_name) {
        from = fs->state->long_names[(node->long_name - 1) % SHARE_LONG_NAMES_MAX];
    } else if (length > SHARE_SHORT_NAME) {
        length = 0;
    }
    if (length == 0 || length > SHARE_NAME_MAX) {
        return NULL;
    }
    memcpy(name, from, length);
    name[length] = '\0';
    return name;
}

static void name_clear(struct fs *fs, uint32_t index)
{
    struct share_node *node = &fs->state->nodes[index];

    node->name_length = 0;
    atomic_signal_fence(memory_order_seq_cst); /* before the name changes */
    if (node->long_name) {
        fs->nodes->long_free[fs->nodes->long_free_count++] = node->long_name;
        node->long_name = NO_NAME_SLOT;
    }
}

void node_set_name(struct fs *fs, uint32_t index, uint64_t parent, const char *name)
{
    struct share_node *node = &fs->state->nodes[index];
    struct node_table *table = fs->nodes;
    size_t length = strlen(name);

    if (index == SHARE_ROOT || node_is_named(fs, index, parent, name)) {
        return;
    }
    name_clear(fs, index);
    node->parent = (uint32_t)parent;
    node->parent_generation = parent == ROOT_NUMBER ? 0 : (uint32_t)(parent >> 32);
    if (length <= SHARE_SHORT_NAME) {
        memcpy(node->name, name, length);
    } else if (table->long_free_count) {
        uint32_t slot = table->long_free[--table->long_free_count];
        memcpy(fs->state->long_names[slot - 1], name, length);
        node->long_name = slot;
    } else {
        return; /* nameless: it can be used while it has a descriptor */
    }
    atomic_signal_fence(memory_order_seq_cst);
    node->name_length = (uint16_t)length;
}

bool node_is_named(const struct fs *fs, uint32_t index, uint64_t parent, const char *name)
{
    const struct share_node *node = &fs->state->nodes[index];
    char present[SHARE_NAME_MAX + 1];

    return node_name(fs, index, present) && strcmp(present, name) == 0 &&
           node_index(fs, parent) == node->parent &&
           (parent == ROOT_NUMBER || node->parent_generation == (uint32_t)(parent >> 32));
}

/* ---- Finding a file again ---- */

/* The index of a node's parent, or 0 when it is not known any more. */
static uint32_t node_parent(const struct fs *fs, uint32_t index)
{
    const struct share_node *node = &fs->state->nodes[index];
    uint32_t parent = node->parent;

    return parent == SHARE_ROOT || node_is(fs, parent, node->parent_generation) ? parent : 0;
}

/* Open it by its name in its parent, which has a descriptor. */
static int node_reopen(struct fs *fs, uint32_t parent, uint32_t index)
{
    struct share_identity identity;
    struct statx status;
    char name[SHARE_NAME_MAX + 1];

    if (!node_name(fs, index, name)) {
        return -ESTALE;
    }
    int fd = fs_open_name(fs->nodes->own[parent].fd - 1, name);
    if (fd < 0) {
        return fd == -ENOENT || fd == -ENOTDIR || fd == -EXDEV || fd == -ELOOP ? -ESTALE : fd;
    }
    int result = fs_stat(fd, &status);
    identity = fs_identity(&status);
    if (result == 0 && !fs_same(&identity, &fs->state->nodes[index].identity)) {
        result = -ESTALE;
    }
    if (result < 0) {
        close(fd);
        return result;
    }
    descriptor_set(fs->nodes, index, fd);
    return 0;
}

/* See that it has a descriptor: from the next ancestor that has one down. */
static int node_resolve(struct fs *fs, uint32_t index)
{
    uint32_t *way = NULL;
    unsigned depth = 0;
    int result = 0;

    if (fs->nodes->own[index].fd) {
        return 0;
    }
    way = malloc(DEPTH_MAX * sizeof(*way));
    if (!way) {
        return -ENOMEM;
    }
    for (uint32_t at = index; !fs->nodes->own[at].fd; at = node_parent(fs, at)) {
        if (depth == DEPTH_MAX || !node_parent(fs, at)) {
            result = -ESTALE;
            break;
        }
        way[depth++] = at;
    }
    while (result == 0 && depth > 0) {
        uint32_t parent = node_parent(fs, way[--depth]);
        /* Making room must not let go of the one that is needed next. */
        fs->nodes->own[parent].pins++;
        result = node_reopen(fs, parent, way[depth]);
        fs->nodes->own[parent].pins--;
    }
    free(way);
    return result;
}

int node_hold(struct fs *fs, uint32_t index, struct node_pin *pin)
{
    struct node_own *own = &fs->nodes->own[index];
    int result = node_resolve(fs, index);

    if (result == 0) {
        own->pins++;
        own->used_at = fs->nodes->tidyings;
        if (in_line(own, index) && fs->nodes->newest != index) {
            line_leave(fs->nodes, index);
            line_join(fs->nodes, index);
        }
        *pin = (struct node_pin){.index = index, .fd = own->fd - 1};
    }
    return result;
}

int node_get(struct fs *fs, uint64_t number, struct node_pin *pin)
{
    pthread_mutex_lock(&fs->lock);
    uint32_t index = node_index(fs, number);
    int result = index ? node_hold(fs, index, pin) : -ESTALE;
    pthread_mutex_unlock(&fs->lock);
    return result;
}

/* ---- Life ---- */

static void node_free(struct fs *fs, uint32_t index)
{
    struct node_table *table = fs->nodes;
    struct share_node *node = &fs->state->nodes[index];
    struct node_own *own = &table->own[index];
    bool kept = own->kept;
    uint32_t *place = bucket_of(fs, &node->identity);

    while (*place && *place != index) {
        place = &table->own[*place].next;
    }
    if (*place) {
        *place = own->next;
    }
    name_clear(fs, index);
    descriptor_drop(table, index);
    node->used = 0;
    node->generation++;
    table->known--;
    memset(own, 0, sizeof(*own));
    own->next = table->free;
    table->free = index;
    if (kept) {
        keep_drop(&fs->keep, handle_kept, fs);
    }
}

/* Gone when nobody needs it: the guest, an open handle, a request. */
static void node_settle(struct fs *fs, uint32_t index)
{
    const struct node_own *own = &fs->nodes->own[index];

    if (index != SHARE_ROOT && !fs->state->nodes[index].lookups && !own->handles && !own->pins) {
        node_free(fs, index);
    }
}

void node_release(struct fs *fs, uint32_t index)
{
    fs->nodes->own[index].pins--;
    node_settle(fs, index);
}

void node_put(struct fs *fs, const struct node_pin *pin)
{
    pthread_mutex_lock(&fs->lock);
    node_release(fs, pin->index);
    pthread_mutex_unlock(&fs->lock);
}

static uint32_t node_allocate(struct fs *fs)
{
    struct node_table *table = fs->nodes;
    uint32_t index = table->free;

    if (index) {
        table->free = table->own[index].next;
    } else if (fs->state->node_end < SHARE_NODES_MAX) {
        index = fs->state->node_end;
        fs->state->node_end = index + 1;
    } else {
        return 0;
    }
    memset(&table->own[index], 0, sizeof(table->own[index]));
    return index;
}

static uint32_t node_create(struct fs *fs, const struct statx *status)
{
    uint32_t index = node_allocate(fs);
    struct share_node *node = &fs->state->nodes[index];

    if (!index) {
        return 0;
    }
    node->identity = fs_identity(status);
    node->type = status->stx_mode & S_IFMT;
    node->lookups = 0;
    node->parent = node->parent_generation = 0;
    node->name_length = 0;
    node->long_name = NO_NAME_SLOT;
    node->used = 1;
    fs->nodes->known++;
    uint32_t *bucket = bucket_of(fs, &node->identity);
    fs->nodes->own[index].next = *bucket;
    *bucket = index;
    return index;
}

int node_tell(struct fs *fs, const struct statx *status, uint64_t parent, const char *name, int fd,
              uint64_t *number)
{
    struct share_identity identity = fs_identity(status);
    uint32_t index = node_find(fs, &identity);

    index = index ? index : node_create(fs, status);
    if (!index) {
        if (fd >= 0) {
            close(fd);
        }
        return -ENFILE;
    }
    fs->state->nodes[index].lookups++;
    if (name[0]) {
        node_set_name(fs, index, parent, name);
    }
    if (fd >= 0 && fs->nodes->own[index].fd) {
        close(fd);
    } else if (fd >= 0) {
        descriptor_set(fs->nodes, index, fd);
    }
    *number = node_number(fs, index);
    return 0;
}

void node_set_lookups(struct fs *fs, uint32_t index, uint64_t lookups)
{
    fs->state->nodes[index].lookups = lookups;
    node_settle(fs, index);
}

void node_add_handle(struct fs *fs, uint32_t index, int change)
{
    fs->nodes->own[index].handles += (uint32_t)change;
    node_settle(fs, index);
}

/* ---- What is kept ---- */

int node_keep(struct fs *fs, uint32_t index, bool always)
{
    struct node_own *own = &fs->nodes->own[index];
    const struct keep_name name = {
        .kind = KEEP_NODE, .index = index, .generation = fs->state->nodes[index].generation};

    if (own->kept || (!always && !own->handles)) {
        return 0;
    }
    int status = node_resolve(fs, index);
    if (status == 0) {
        status = keep_add(&fs->keep, &name, own->fd - 1, handle_kept, fs);
    }
    if (status == 0) {
        if (in_line(own, index)) {
            line_leave(fs->nodes, index);
        }
        own->kept = true;
    }
    return status;
}

int node_kept(const struct fs *fs, const struct keep_name *name)
{
    return node_is(fs, name->index, name->generation) && fs->nodes->own[name->index].kept
               ? fs->nodes->own[name->index].fd - 1
               : -1;
}

bool node_restore(struct fs *fs, const struct keep_name *name, int fd)
{
    struct node_own *own = &fs->nodes->own[name->index % SHARE_NODES_MAX];

    if (!node_is(fs, name->index, name->generation) || own->fd) {
        return false;
    }
    own->kept = true;
    descriptor_set(fs->nodes, name->index, fd);
    return true;
}

/* Hosts tell times in steps of milliseconds: two changes within one of them look like one. */
static bool is_settled(const struct statx *status)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - status->stx_mtime.tv_sec > SETTLED_S;
}

bool node_unchanged(struct fs *fs, uint32_t index, const struct statx *status)
{
    struct node_own *own = &fs->nodes->own[index];
    bool same = own->seen && own->seen_size == status->stx_size &&
                own->seen_time.tv_sec == status->stx_mtime.tv_sec &&
                own->seen_time.tv_nsec == status->stx_mtime.tv_nsec;

    own->seen = is_settled(status);
    own->seen_size = status->stx_size;
    own->seen_time = status->stx_mtime;
    return same;
}

/* ---- Start and end ---- */

/* All slots of long names are free but those that are in use. */
static void long_names_scan(struct fs *fs)
{
    struct node_table *table = fs->nodes;
    bool *taken = calloc(SHARE_LONG_NAMES_MAX, sizeof(*taken));

    for (uint32_t i = 0; taken && i < fs->state->node_end; i++) {
        struct share_node *node = &fs->state->nodes[i];
        if (node->long_name > SHARE_LONG_NAMES_MAX || !node->used) {
            node->long_name = NO_NAME_SLOT;
        }
        if (node->long_name && taken[node->long_name - 1]) {
            node->name_length = 0;
            node->long_name = NO_NAME_SLOT;
        } else if (node->long_name) {
            taken[node->long_name - 1] = true;
        }
    }
    table->long_free_count = 0;
    for (uint32_t slot = SHARE_LONG_NAMES_MAX; taken && slot > 0; slot--) {
        if (!taken[slot - 1]) {
            table->long_free[table->long_free_count++] = slot;
        }
    }
    free(taken);
}

static void nodes_scan(struct fs *fs)
{
    struct node_table *table = fs->nodes;

    table->known = 0;
    for (uint32_t index = fs->state->node_end - 1; index > SHARE_ROOT; index--) {
        const struct share_node *node = &fs->state->nodes[index];
        table->known += node->used != 0;
        uint32_t *place = node->used ? bucket_of(fs, &node->identity) : &table->free;
        table->own[index].next = *place;
        *place = index;
    }
    long_names_scan(fs);
}

static int root_set(struct fs *fs)
{
    struct share_node *root = &fs->state->nodes[SHARE_ROOT];
    struct statx status;
    int result = fs_stat(fs->root, &status);

    if (result < 0) {
        return result;
    }
    root->identity = fs_identity(&status);
    root->type = S_IFDIR;
    root->lookups = 1;
    root->generation = 0;
    root->used = 1;
    fs->nodes->own[SHARE_ROOT].fd = fs->root + 1;
    uint32_t *bucket = bucket_of(fs, &root->identity);
    fs->nodes->own[SHARE_ROOT].next = *bucket;
    *bucket = SHARE_ROOT;
    return 0;
}

void nodes_sweep(struct fs *fs)
{
    for (uint32_t index = SHARE_ROOT + 1; index < fs->state->node_end; index++) {
        if (fs->state->nodes[index].used) {
            node_settle(fs, index);
        }
    }
}

static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int nodes_create(struct fs *fs, unsigned cached, unsigned known)
{
    struct node_table *table = calloc(1, sizeof(*table));

    fs->nodes = table;
    if (!table) {
        return -ENOMEM;
    }
    table->cached_max = cached;
    table->known_max = known;
    table->own = reserve(SHARE_NODES_MAX * sizeof(*table->own));
    table->buckets = reserve(BUCKETS * sizeof(*table->buckets));
    if (!table->own || !table->buckets) {
        return -ENOMEM;
    }
    if (fs->state->node_end <= SHARE_ROOT || fs->state->node_end > SHARE_NODES_MAX) {
        fs->state->node_end = SHARE_ROOT + 1;
    }
    nodes_scan(fs);
    return root_set(fs);
}

void nodes_clear(struct fs *fs)
{
    struct node_table *table = fs->nodes;

    for (uint32_t index = SHARE_ROOT + 1; index < fs->state->node_end; index++) {
        struct share_node *node = &fs->state->nodes[index];
        descriptor_drop(table, index);
        if (node->used) {
            node->used = 0;
            node->generation++;
        }
        node->name_length = 0;
        node->long_name = NO_NAME_SLOT;
        memset(&table->own[index], 0, sizeof(table->own[index]));
    }
    madvise(table->buckets, BUCKETS * sizeof(*table->buckets), MADV_DONTNEED); /* zeros again */
    table->free = 0;
    nodes_scan(fs);
    root_set(fs);
}

void nodes_destroy(struct fs *fs)
{
    struct node_table *table = fs->nodes;

    if (!table) {
        return;
    }
    if (table->own && table->buckets) {
        for (uint32_t index = SHARE_ROOT + 1; index < fs->state->node_end; index++) {
            descriptor_drop(table, index);
        }
    }
    if (table->own) {
        munmap(table->own, SHARE_NODES_MAX * sizeof(*table->own));
    }
    if (table->buckets) {
        munmap(table->buckets, BUCKETS * sizeof(*table->buckets));
    }
    free(table);
    fs->nodes = NULL;
}
