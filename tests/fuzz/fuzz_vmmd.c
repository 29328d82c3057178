/*
 * vmmd among hostile neighbours: clients that ask anything in any order, and processes that answer
 * with anything, say things unasked, and die. Processes are played: a descriptor that becomes
 * readable when one "ends". The records of machines are damaged between two lives of vmmd.
 */
#include "libshared/base/log.h"
#include "proto/control.pb-c.h"
#include "proto/device.pb-c.h"
#include "proto/jit.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "vmmd/machine.h"
#include "vmmd/spawn.h"
#include "vmmd/supervisor.h"
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PROCESSES 128

static char base[64], run[80], kernel[96], disk[96], link_setting[96];
static struct supervisor *supervisor;

/* ---- processes ---- */

static struct process {
    int pidfd; /* -1: none that nobody has waited for */
    bool ended;
    int signal;
} processes[PROCESSES];
static pid_t last_pid;

int spawn_gate_open(struct spawn_gate *gate)
{
    *gate = (struct spawn_gate){.read_fd = -1, .write_fd = -1};
    return 0;
}

void spawn_gate_release(struct spawn_gate *gate)
{
    gate->waiting = 0;
}

void spawn_gate_close(struct spawn_gate *gate)
{
    (void)gate;
}

void spawn_protect_descriptors(int first)
{
    (void)first;
}

static struct process *process_of(int pidfd)
{
    for (unsigned i = 0; i < PROCESSES; i++) {
        if (processes[i].pidfd == pidfd) {
            return &processes[i];
        }
    }
    return NULL;
}

int spawn_process(struct spawn_gate *gate, const char *program, char *const argv[],
                  const struct fdlist *list, pid_t *pid, int *pidfd)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct process *process = process_of(-1);
    (void)program, (void)argv;

    if (!process) {
        close(fd);
        return -EAGAIN;
    }
    for (size_t i = 0; i < list->count; i++) {
        fuzz_require(fcntl(list->entries[i].fd, F_GETFD) >= 0, "what is handed over is open");
    }
    *process = (struct process){.pidfd = fd};
    gate->waiting++;
    *pid = last_pid = last_pid % 1000 + 0x3ffff000; /* none that could be anybody's */
    *pidfd = fd;
    return 0;
}

/* It has bound its socket. */
int spawn_process_bound(struct spawn_gate *gate, const char *program, char *const argv[],
                        struct fdlist *list, pid_t *pid, int *pidfd, int *bound_fd)
{
    int result = spawn_process(gate, program, argv, list, pid, pidfd);

    if (result == 0) {
        *bound_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    return result;
}

static void end_process(struct process *process, int signal)
{
    if (process && process->pidfd >= 0 && !process->ended) {
        process->ended = true;
        process->signal = signal;
        eventfd_write(process->pidfd, 1);
    }
}

int pidfd_send_signal(int pidfd, int signal, siginfo_t *info, unsigned flags)
{
    (void)info, (void)flags;
    end_process(process_of(pidfd), signal);
    return 0;
}

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    struct process *process = process_of((int)id);
    (void)type;

    if (!process) { /* somebody has waited for it */
        errno = ECHILD;
        return -1;
    }
    if (!process->ended) {
        fuzz_require(options & WNOHANG, "nobody waits for a process that runs");
        info->si_pid = 0;
        return 0;
    }
    info->si_pid = last_pid;
    info->si_code = process->signal ? CLD_KILLED : CLD_EXITED;
    info->si_status = process->signal;
    process->pidfd = -1; /* which is closed soon, and may be another's then */
    return 0;
}

/* ---- what is said ---- */

static const char *const texts[] = {
    "",           "one",
    "two",        "three",
    kernel,       disk,
    "riscv64",    "auto",
    "raw",        "interp",
    "net0",       "disk0",
    "serial0",    "user",
    "vcpud",      "baseline",
    link_setting, "user,hostfwd=tcp::70-:22",
    "console0",   "input0",
    "arm64",      "qcow2",
    "rng0",       "console=ttyS0",
    "../x",       "config",
    "crashed",    "tap,ifname=absent",
};

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    static const uint64_t sizes[] = {0, 16 << 20, 64 << 20, UINT64_MAX};

    if (!strcmp(field->name, "memory_bytes")) {
        *value = sizes[fuzz_pick(input, 4)];
        return true;
    }
    if (!strcmp(field->name, "cpus")) {
        *value = 1 + fuzz_pick(input, 9);
        return true;
    }
    if (!strcmp(field->name, "perf_map")) { /* would leave files behind */
        *value = 0;
        return true;
    }
    if (!strcmp(field->name, "id")) {
        *value = fuzz_take(input, 1) & 7;
        return true;
    }
    return false;
}

static const struct fuzz_words words = {
    .texts = texts, .count = sizeof(texts) / sizeof(texts[0]), .number = number};

static void say(struct fuzz_input *input, int socket, const ProtobufCMessageDescriptor *type,
                enum channel_kind kind)
{
    static uint8_t frame[FUZZ_FRAME_MAX];

    if (socket >= 0) {
        fuzz_push(socket, frame, fuzz_frame(input, &words, type, (uint16_t)kind, frame));
    }
}

static void op_client(struct fuzz_input *input)
{
    say(input, fuzz_find_socket("control.sock"), &polyvisor__request__descriptor, CHANNEL_CONTROL);
}

/* A machine that is possible, asked for in full: bytes alone seldom make one. */
static void op_create(struct fuzz_input *input)
{
    static uint8_t frame[4096];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__StartRequest start = POLYVISOR__START_REQUEST__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    Polyvisor__DiskConfig one_disk = POLYVISOR__DISK_CONFIG__INIT, *disks[] = {&one_disk};
    char *nets[] = {how & 64 ? link_setting : (char *)"user"};

    one_disk.path = disk;
    config.name = (char *)texts[1 + how % 3];
    config.kernel = kernel;
    config.cpus = 1;
    config.memory_bytes = 16 << 20;
    config.engine = how & 4 ? (char *)"interp" : (char *)"auto";
    config.disks = disks;
    config.n_disks = how & 8 ? 1 : 0;
    config.net = nets;
    config.n_net = how & 16 ? 1 : 0;
    request.id = how;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    request.create = &create;
    create.config = &config;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t size = (uint32_t)polyvisor__request__pack(&request, frame + FUZZ_FRAME_HEAD);
        memcpy(frame, "PVM1\1\0\0\0", 8);
        memcpy(frame + 8, &size, 4);
        fuzz_push(fuzz_find_socket("control.sock"), frame, size + FUZZ_FRAME_HEAD);
        request.body_case = POLYVISOR__REQUEST__BODY_START;
        request.start = &start;
        start.name = config.name;
        start.hold = how & 32;
    }
}

/* One of the processes says something. */
static void op_process(struct fuzz_input *input)
{
    int wanted = (int)fuzz_take(input, 1) % 32;

    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        const char *address = fuzz_sockets[i].address;
        if (!fuzz_sockets[i].open || strstr(address, "control.sock") ||
            strstr(address, "events.sock") || wanted-- > 0) {
            continue;
        }
        if (strstr(address, "vcpud.sock")) {
            say(input, i, &polyvisor__vcpu_reply__descriptor, CHANNEL_VCPU);
        } else if (strstr(address, "jitd")) {
            say(input, i, &polyvisor__jit_control_reply__descriptor, CHANNEL_JIT_CONTROL);
        } else {
            say(input, i, &polyvisor__device_reply__descriptor, CHANNEL_DEVICE);
        }
        return;
    }
}

/* All that are asked for their configuration have done it: the machine runs. */
static void op_configured(struct fuzz_input *input)
{
    static uint8_t frame[64];
    uint64_t id = 1 + (fuzz_take(input, 1) & 3);

    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        const char *address = fuzz_sockets[i].address;
        bool vcpu = strstr(address, "vcpud.sock") != NULL, jit = strstr(address, "jitd") != NULL;
        if (!fuzz_sockets[i].open || strstr(address, "control.sock") ||
            strstr(address, "events.sock")) {
            continue;
        }
        uint16_t kind = vcpu ? CHANNEL_VCPU : jit ? CHANNEL_JIT_CONTROL : CHANNEL_DEVICE;
        memcpy(frame, "PVM1\0\0\0\0\2\0\0\0\x08", 13);
        memcpy(frame + 4, &kind, 2);
        frame[13] = (uint8_t)id;
        fuzz_push(i, frame, 14);
    }
}

static void op_death(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned wanted = how & 31;

    for (unsigned i = 0; i < PROCESSES; i++) {
        if (processes[i].pidfd >= 0 && !processes[i].ended && wanted-- == 0) {
            end_process(&processes[i], how & 0x80 ? SIGKILL : 0);
            return;
        }
    }
}

static void op_refuse(struct fuzz_input *input)
{
    int socket = (int)fuzz_take(input, 1) % 32;
    fuzz_set_refuses(socket, !fuzz_sockets[socket].refuses);
}

/* ---- vmmd ---- */

/* One turn, instead of turns until it ends: what supervisor_run calls. */
int event_base_dispatch(struct event_base *loop)
{
    return event_base_loop(loop, EVLOOP_NONBLOCK);
}

static void open_supervisor(bool load)
{
    struct supervisor_options options = {
        .directory = run, .programs = base, .leash_fd = -1, .load = load};
    struct error err = {0};

    supervisor = supervisor_open(&options, &err);
    fuzz_require(supervisor != NULL, err.message);
}

static void op_turn(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    atomic_fetch_add(&fuzz_now_ns, (uint64_t)(how & 7) * 1000000000);
    for (unsigned i = 0; i < 3; i++) {
        supervisor_run(supervisor);
    }
}

/* vmmd ends and another comes; somebody was at the record of a machine meanwhile. */
static void op_restart(struct fuzz_input *input)
{
    char path[128];
    uint8_t byte;

    supervisor_close(supervisor);
    snprintf(path, sizeof(path), "%s/vms/%s/state", run, texts[1 + fuzz_pick(input, 3)]);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (unsigned count = fuzz_pick(input, 8); fd >= 0 && count > 0; count--) {
        off_t at = (off_t)fuzz_take(input, 1);
        byte = (uint8_t)fuzz_take(input, 1);
        fuzz_require(pwrite(fd, &byte, 1, at) == 1, "a record");
    }
    if (fd >= 0) {
        close(fd);
    }
    open_supervisor(true);
}

static void (*const operations[])(struct fuzz_input *) = {
    op_client, op_client,     op_create, op_process, op_process, op_process,
    op_turn,   op_configured, op_turn,   op_death,   op_restart, op_refuse,
};

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type;
    return walk->level > 0 ? remove(path) : 0;
}

static void empty(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_all(void)
{
    empty(base);
    rmdir(base);
}

static void make_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0700);
    fuzz_require(fd >= 0 && ftruncate(fd, 65536) == 0, "a file");
    close(fd);
}

static void prepare(void)
{
    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    signal(SIGPIPE, SIG_IGN); /* as vmmd does: a spare may have ended */
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
        fprintf(stderr, "fuzz_vmmd: in the host's own network\n");
    }
    /* Many small files: better none of a disk. */
    strcpy(base, access("/dev/shm", W_OK) == 0 ? "/dev/shm/pv-fuzz-XXXXXX" : "/tmp/pv-fuzz-XXXXXX");
    fuzz_require(mkdtemp(base) != NULL, "a folder");
    atexit(remove_all);
    snprintf(run, sizeof(run), "%s/run", base);
    snprintf(kernel, sizeof(kernel), "%s/kernel", base);
    snprintf(disk, sizeof(disk), "%s/disk", base);
    snprintf(link_setting, sizeof(link_setting), "link,path=%.70s/link", base);
    make_file(kernel);
    make_file(disk);
    static const char *const programs[] = {"vcpud", "devd", "jitd"}; /* never run */
    for (unsigned i = 0; i < 3; i++) {
        char path[96];
        snprintf(path, sizeof(path), "%s/%s", base, programs[i]);
        make_file(path);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        processes[i].pidfd = -1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    char machines[96];

    if (!base[0]) {
        prepare();
    }
    mkdir(run, 0700);
    snprintf(machines, sizeof(machines), "%s/vms", run);
    mkdir(machines, 0700);
    open_supervisor(false);
    while (input.size) {
        operations[fuzz_pick(&input, sizeof(operations) / sizeof(operations[0]))](&input);
    }
    supervisor_run(supervisor);
    supervisor_close(supervisor);
    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        fuzz_require(!fuzz_sockets[i].open, "all sockets are closed");
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        fuzz_require(processes[i].pidfd < 0, "all processes are waited for");
    }
    empty(run);
    fuzz_check_descriptors();
    return 0;
}
