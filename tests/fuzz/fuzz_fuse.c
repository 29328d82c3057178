/*
 * A guest that keeps no rule of FUSE, on a directory of the host in which others change things
 * meanwhile; and servers that die: requests come again to the next one. Nothing outside the
 * directory is ever changed, answers fit in their room, and nothing is left open.
 */
#include "devd/fs/fs.h"
#include "libshared/mem/memory.h"
#include "tests/fuzz/fuzz_input.h"
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define STEPS  64
#define KNOWN  16
#define ROOM   65536u
#define MARGIN 64u

static const char *const names[] = {"a", "b", "dir", "link", "fifo",   "file", "..",
                                    ".", "",  "a/b", "/etc", "secret", "deep", "x"};
#define NAMES (sizeof(names) / sizeof(names[0]))

/* What the arguments of a message are made of: bytes, where in them a handle and a file's number
 * are (or -1), and how many names follow. */
static const struct shape {
    uint32_t opcode;
    int bytes, handle, node, names;
} shapes[] = {
    {FUSE_LOOKUP, 0, -1, -1, 1},
    {FUSE_FORGET, 8, -1, -1, 0},
    {FUSE_GETATTR, 16, 8, -1, 0},
    {FUSE_SETATTR, sizeof(struct fuse_setattr_in), 8, -1, 0},
    {FUSE_READLINK, 0, -1, -1, 0},
    {FUSE_SYMLINK, 0, -1, -1, 2},
    {FUSE_MKNOD, 16, -1, -1, 1},
    {FUSE_MKDIR, 8, -1, -1, 1},
    {FUSE_UNLINK, 0, -1, -1, 1},
    {FUSE_RMDIR, 0, -1, -1, 1},
    {FUSE_RENAME, 8, -1, 0, 2},
    {FUSE_RENAME2, 16, -1, 0, 2},
    {FUSE_LINK, 8, -1, 0, 1},
    {FUSE_OPEN, 8, -1, -1, 0},
    {FUSE_READ, 40, 0, -1, 0},
    {FUSE_WRITE, 40, 0, -1, 1},
    {FUSE_STATFS, 0, -1, -1, 0},
    {FUSE_RELEASE, 24, 0, -1, 0},
    {FUSE_FSYNC, 16, 0, -1, 0},
    {FUSE_SETXATTR, 8, -1, -1, 2},
    {FUSE_GETXATTR, 8, -1, -1, 1},
    {FUSE_LISTXATTR, 8, -1, -1, 0},
    {FUSE_REMOVEXATTR, 0, -1, -1, 1},
    {FUSE_INIT, 64, -1, -1, 0},
    {FUSE_OPENDIR, 8, -1, -1, 0},
    {FUSE_READDIR, 40, 0, -1, 0},
    {FUSE_READDIRPLUS, 40, 0, -1, 0},
    {FUSE_RELEASEDIR, 24, 0, -1, 0},
    {FUSE_FSYNCDIR, 16, 0, -1, 0},
    {FUSE_CREATE, 16, -1, -1, 1},
    {FUSE_DESTROY, 0, -1, -1, 0},
    {FUSE_BATCH_FORGET, 40, -1, 8, 0},
    {FUSE_FALLOCATE, 32, 0, -1, 0},
    {FUSE_LSEEK, 24, 0, -1, 0},
    {FUSE_COPY_FILE_RANGE, 56, 0, 16, 0},
    {FUSE_TMPFILE, 16, -1, -1, 0},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

struct session {
    struct fs *fs;
    struct fuzz_input *input;
    int base, state, keep[2];
    bool read_only;
    enum share_cache cache;
    uint64_t nodes[KNOWN], handles[KNOWN];
    unsigned node_count, handle_count;
    uint64_t unique;
    uint8_t message[16384], reply[ROOM + MARGIN];
};

static void serve(struct session *session)
{
    struct error err;
    int root = openat(session->base, "share", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct fs_options options = {
        .setting = {.cache = session->cache, .read_only = session->read_only},
        .root = root,
        .links = "/proc/self/fd",
        .state = session->state,
        .keep_in = fcntl(session->keep[0], F_DUPFD_CLOEXEC, 0),
        .keep_out = fcntl(session->keep[1], F_DUPFD_CLOEXEC, 0),
        .cached = 4,
        .known = 8,
        .host_uid = geteuid(),
    };

    session->fs = fs_create(&options, &err);
    fuzz_require(session->fs != NULL, "a server starts");
    close(root);
}

static uint64_t choose(struct session *session, const uint64_t *known, unsigned count)
{
    unsigned how = fuzz_pick(session->input, 32);
    return how < 30 && count ? known[how % count] : fuzz_number(session->input);
}

static void learn(uint64_t *known, unsigned *count, uint64_t value)
{
    known[*count < KNOWN ? (*count)++ : value % KNOWN] = value;
}

/* Bytes, mostly small numbers, 32 bits each. */
static size_t make_fixed(struct session *session, const struct shape *shape, uint8_t *to)
{
    memset(to, 0, (size_t)shape->bytes);
    for (int at = 0; at + 4 <= shape->bytes; at += 4) {
        uint32_t value = (uint32_t)fuzz_number(session->input);
        memcpy(to + at, &value, sizeof(value));
    }
    if (shape->handle >= 0) {
        uint64_t value = choose(session, session->handles, session->handle_count);
        memcpy(to + shape->handle, &value, sizeof(value));
    }
    if (shape->node >= 0) {
        uint64_t value = choose(session, session->nodes, session->node_count);
        memcpy(to + shape->node, &value, sizeof(value));
    }
    if (shape->opcode == FUSE_INIT) {
        const uint32_t head[] = {7, 38};
        memcpy(to, head, fuzz_pick(session->input, 8) ? sizeof(head) : 0);
    }
    if (shape->opcode == FUSE_WRITE || shape->opcode == FUSE_FALLOCATE) {
        memset(to + 12, 0, 4); /* no files of terabytes */
        memset(to + (shape->opcode == FUSE_WRITE ? 14 : 20), 0,
               shape->opcode == FUSE_WRITE ? 2 : 4);
        to[11] = 0;
    }
    return (size_t)shape->bytes;
}

static size_t make_name(struct session *session, uint8_t *to)
{
    unsigned how = fuzz_pick(session->input, 64);

    if (how < 60) {
        const char *name = names[how % NAMES];
        memcpy(to, name, strlen(name) + 1);
        return strlen(name) + 1;
    }
    if (how == 60) { /* long */
        size_t length = 200 + fuzz_pick(session->input, 128);
        memset(to, 'n', length);
        to[length] = '\0';
        return length + 1;
    }
    size_t size;
    const uint8_t *bytes = fuzz_bytes(session->input, 32, &size);
    memcpy(to, bytes, size);
    return size;
}

static void remember(struct session *session, uint32_t opcode, size_t bytes)
{
    const uint8_t *body = session->reply + sizeof(struct fuse_out_header);
    uint64_t node = 0, handle = 0;

    switch (opcode) {
    case FUSE_CREATE:
    case FUSE_TMPFILE:
        memcpy(&handle, body + sizeof(struct fuse_entry_out), sizeof(handle));
        learn(session->handles, &session->handle_count, handle);
        /* fall through */
    case FUSE_LOOKUP:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
        fuzz_require(bytes >= sizeof(struct fuse_entry_out), "an entry is whole");
        memcpy(&node, body, sizeof(node));
        learn(session->nodes, &session->node_count, node);
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        memcpy(&handle, body, sizeof(handle));
        learn(session->handles, &session->handle_count, handle);
        break;
    default:
        break;
    }
}

/* Run what is in session->message; the server may die before it answers, or after. */
static void deliver(struct session *session, struct fs_message *message)
{
    unsigned lives = fuzz_pick(session->input, 8) == 0 ? 2 : 1;

    for (unsigned life = 0; life < lives; life++) {
        message->again = life > 0;
        message->impatient = fuzz_pick(session->input, 4) == 0;
        memset(session->reply + message->reply_room, 0xa5, MARGIN);
        fs_run(session->fs, message);
        if (message->waits) {
            message->impatient = false;
            fs_run(session->fs, message);
        }
        if (life + 1 < lives) {
            fs_destroy(session->fs);
            serve(session);
        }
    }
    fuzz_require(message->replied <= message->reply_room, "an answer fits");
    for (unsigned i = 0; i < MARGIN; i++) {
        fuzz_require(session->reply[message->reply_room + i] == 0xa5, "nothing is written behind");
    }
    struct fuse_out_header header = {0};
    if (message->replied) {
        memcpy(&header, session->reply, sizeof(header));
        fuzz_require(header.len == message->replied, "an answer says its length");
        fuzz_require(header.unique == message->header.unique, "an answer says to what");
        fuzz_require(header.error <= 0 && header.error > -1000, "an error is one");
    }
    if (message->replied > sizeof(header) && header.error == 0) {
        remember(session, message->header.opcode, message->replied - sizeof(header));
    }
}

static void step_request(struct session *session)
{
    unsigned how = fuzz_pick(session->input, 64);
    const struct shape *shape = &shapes[how % SHAPES];
    uint32_t opcode = how == 63 ? (uint32_t)fuzz_number(session->input) : shape->opcode;
    size_t size = make_fixed(session, shape, session->message);

    for (int i = 0; i < shape->names; i++) {
        size += make_name(session, session->message + size);
    }
    if (fuzz_pick(session->input, 32) == 0) {
        size -= fuzz_pick(session->input, 64) % (size + 1);
    }
    size_t fixed = fs_argument_bytes(opcode, size);
    struct iovec data = {session->message + fixed, size - fixed};
    size_t room = fuzz_pick(session->input, 16) ? ROOM : fuzz_pick(session->input, 256);
    /* The answer's room comes in two pieces, as it does from a driver. */
    struct iovec reply[2] = {{session->reply, room / 3},
                             {session->reply + room / 3, room - room / 3}};
    struct fs_message message = {
        .header = {.len = (uint32_t)(sizeof(message.header) + size),
                   .opcode = opcode,
                   .unique = session->unique += 2,
                   .nodeid = choose(session, session->nodes, session->node_count)},
        .arguments = session->message,
        .argument_bytes = fixed,
        .data = &data,
        .data_count = 1,
        .data_bytes = size - fixed,
        .reply = reply,
        .reply_count = 2,
        .reply_room = room,
        .slot = fuzz_pick(session->input, 4),
    };
    fs_is_slow(opcode);
    if (!fs_is_alone(opcode) || fuzz_pick(session->input, 8) == 0) {
        deliver(session, &message);
    }
}

/* Somebody on the host changes what a name stands for. */
static void step_host(struct session *session)
{
    const char *name = names[fuzz_pick(session->input, 6)],
               *other = names[fuzz_pick(session->input, 6)];
    int share = openat(session->base, "share", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    switch (fuzz_pick(session->input, 7)) {
    case 0:
        unlinkat(share, name, 0);
        break;
    case 1:
        symlinkat("../outside/secret", share, name);
        break;
    case 2:
        symlinkat("../outside", share, name);
        break;
    case 3:
        renameat(share, name, share, other);
        break;
    case 4:
        mkfifoat(share, name, 0666);
        break;
    case 5:
        mkdirat(share, name, 0755);
        break;
    default:
        linkat(session->base, "outside/other", share, name, 0);
        break;
    }
    close(share);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    chmod(path, 0700);
    remove(path);
    return 0;
}

static void check_outside(int base)
{
    char text[8] = "";
    struct stat status;
    int fd = openat(base, "outside/secret", O_RDONLY | O_CLOEXEC);

    fuzz_require(read(fd, text, sizeof(text)) == 6 && memcmp(text, "secret", 6) == 0,
                 "the outside stays as it is");
    fuzz_require(fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0640 &&
                     status.st_nlink == 1,
                 "and its attributes");
    close(fd);
    fuzz_require(fstatat(base, "outside", &status, 0) == 0 && status.st_nlink == 2 &&
                     (status.st_mode & 07777) == 0755,
                 "and its directory");
}

static int make_base(char *path)
{

    struct rlimit present;

    if (getrlimit(RLIMIT_FSIZE, &present) == 0 && present.rlim_cur == RLIM_INFINITY) {
        /* Sparse files of any size are the guest's right, but nobody wants them here. */
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){UINT64_C(256) << 20, present.rlim_max});
    }
    umask(0);
    fuzz_require(mkdtemp(path) != NULL, "there is a folder");
    int base = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fuzz_require(mkdirat(base, "share", 0755) == 0 && mkdirat(base, "outside", 0755) == 0 &&
                     mkdirat(base, "share/dir", 0755) == 0,
                 "there are folders");
    int fd = openat(base, "outside/secret", O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    fuzz_require(write(fd, "secret", 6) == 6, "there is a secret");
    close(fd);
    close(openat(base, "outside/other", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    close(openat(base, "share/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    return base;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct session session;
    struct fuzz_input input = {bytes, size};
    const uint32_t head[] = {SHARE_STATE_MAGIC, SHARE_STATE_VERSION};
    char path[] = "/tmp/polyvisor-fuse-XXXXXX";

    signal(SIGXFSZ, SIG_IGN);
    memset(&session, 0, sizeof(session));
    session.input = &input;
    session.base = make_base(path);
    session.state = memory_create_fd("share-state", SHARE_STATE_SIZE);
    fuzz_require(pwrite(session.state, head, sizeof(head), 0) == sizeof(head), "there is a state");
    fuzz_require(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, session.keep) == 0,
        "there are sockets");
    session.read_only = fuzz_pick(&input, 16) == 0;
    session.cache = (enum share_cache)fuzz_pick(&input, 3);
    learn(session.nodes, &session.node_count, 1);
    serve(&session);
    struct fuse_init_in init = {.major = 7, .minor = 38, .flags = ~0u};
    struct iovec room = {session.reply, ROOM};
    struct fs_message begin = {.header = {.opcode = FUSE_INIT, .len = sizeof(init) + 40},
                               .arguments = (void *)&init,
                               .argument_bytes = sizeof(init),
                               .reply = &room,
                               .reply_count = 1,
                               .reply_room = ROOM};
    fs_run(session.fs, &begin);
    for (unsigned i = 0; i < STEPS && input.size > 0; i++) {
        unsigned what = fuzz_pick(&input, 16);
        if (what == 0) {
            step_host(&session);
        } else if (what == 1 && fuzz_pick(&input, 4) == 0) {
            fs_destroy(session.fs);
            serve(&session);
        } else {
            step_request(&session);
        }
    }
    check_outside(session.base);
    fs_destroy(session.fs);
    close(session.base);
    close(session.state);
    close(session.keep[0]);
    close(session.keep[1]);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    fuzz_check_descriptors();
    return 0;
}
