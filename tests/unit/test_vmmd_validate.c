/* Each mistake in a machine's configuration is told by its own code, before anything starts. */
#include "tests/unit/suite.h"
#include "vmmd/budget.h"
#include "vmmd/disk.h"
#include "vmmd/message.h"
#include "vmmd/network.h"
#include "vmmd/storage.h"
#include "vmmd/validate.h"
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static char base[64];
static struct error err;
static struct disk_chain chain; /* empty: of raw disks */
static Polyvisor__MachineConfig *config;

static const char *below(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", base, name);
    return path;
}

static const char *make_file(const char *name, const void *head, size_t head_size, off_t size)
{
    const char *path = below(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, head, head_size), (ssize_t)head_size);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
    return path;
}

static void set(char **field, const char *value)
{
    ck_assert_int_eq(message_set_string(field, value), 0);
}

/* A configuration that is good, for each test to spoil. */
static void make_config(void)
{
    Polyvisor__MachineConfig initial = POLYVISOR__MACHINE_CONFIG__INIT;

    strcpy(base, "/tmp/pv-validate.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    initial.name = "vm";
    initial.cpus = 2;
    initial.memory_bytes = 64 * MIB;
    initial.kernel = (char *)make_file("kernel", "kernel", 6, 4096);
    config = (Polyvisor__MachineConfig *)message_copy(&initial.base);
    ck_assert_ptr_nonnull(config);
}

static void free_config(void)
{
    char command[128];

    polyvisor__machine_config__free_unpacked(config, NULL);
    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    ck_assert_int_eq(system(command), 0);
}

static int validate(void)
{
    error_clear(&err);
    int result = config_validate(config, base, &err);
    ck_assert_int_eq(result, -(int)err.code);
    ck_assert_int_eq(err.message[0] != '\0', result != 0);
    return result;
}

static Polyvisor__DiskConfig *add_disk(const char *path)
{
    Polyvisor__DiskConfig initial = POLYVISOR__DISK_CONFIG__INIT;

    initial.path = (char *)path;
    config->disks = realloc(config->disks, (config->n_disks + 1) * sizeof(*config->disks));
    ck_assert_ptr_nonnull(config->disks);
    config->disks[config->n_disks] = (Polyvisor__DiskConfig *)message_copy(&initial.base);
    return config->disks[config->n_disks++];
}

START_TEST(a_good_one_passes_and_gets_its_defaults)
{
    add_disk(make_file("disk", "", 0, 1 << 20));
    ck_assert_int_eq(validate(), 0);
    ck_assert_str_eq(config->arch, "riscv64");
    ck_assert_str_eq(config->engine, "auto");
    ck_assert_str_eq(config->irqchip, "auto");
    ck_assert_str_eq(config->disks[0]->format, "raw");
    set(&config->engine, "interp");
    ck_assert_int_eq(validate(), 0);
    /* Firmware may come without a kernel. */
    set(&config->firmware, config->kernel);
    set(&config->kernel, "");
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(names)
{
    set(&config->name, "");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&config->name, "../x");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
    set(&config->name, "0123456789012345678901234567890123456789");
    ck_assert_int_eq(validate(), 0);
    /* Its sockets must have room, too. */
    ck_assert_int_eq(config_validate(config, "/tmp/a-runtime-directory-that-is-rather-long", &err),
                     -ERROR_CONFIG);
}
END_TEST

START_TEST(architectures_and_engines)
{
    set(&config->arch, "arm64");
    ck_assert_int_eq(validate(), -ERROR_UNSUPPORTED);
    ck_assert_int_gt(strlen(err.hint), 0);
    set(&config->arch, "x86_64");
    ck_assert_int_eq(validate(), -ERROR_UNSUPPORTED);
    set(&config->arch, "vax");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&config->arch, "riscv64");
    set(&config->engine, "baseline");
    ck_assert_int_eq(validate(), 0); /* vcpud knows whether it can */
    set(&config->engine, "warp");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
}
END_TEST

START_TEST(interrupt_controllers)
{
    set(&config->irqchip, "plic");
    ck_assert_int_eq(validate(), 0);
    set(&config->irqchip, "aia");
    ck_assert_int_eq(validate(), 0);
    set(&config->firmware, config->kernel);
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
    set(&config->irqchip, "auto");
    ck_assert_int_eq(validate(), 0);
    set(&config->irqchip, "gic");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
}
END_TEST

START_TEST(processors_and_memory)
{
    static const uint64_t impossible[] = {
        0, 1, MIB, 15 * MIB, 16 * MIB + 1, 16 * MIB + 4096, UINT64_MAX, UINT64_MAX - MIB + 1};

    config->cpus = 0;
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    config->cpus = 9;
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    config->cpus = 8;
    ck_assert_int_eq(validate(), 0);
    for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
        config->memory_bytes = impossible[i];
        ck_assert_int_eq(validate(), -ERROR_MEMORY);
        ck_assert_int_gt(strlen(err.hint), 0);
    }
    config->memory_bytes = 16 * MIB;
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(memory_is_not_promised_twice)
{
    uint64_t available = budget_available();

    ck_assert_int_gt(available, BUDGET_RESERVE);
    ck_assert_int_eq(budget_check(available / 4, 0, &err), 0);
    ck_assert_int_eq(budget_check(available / 4, available - available / 8, &err), -ERROR_MEMORY);
    ck_assert_int_eq(budget_check(UINT64_MAX, 0, &err), -ERROR_MEMORY);
    ck_assert_int_eq(budget_check(MIB, UINT64_MAX - BUDGET_RESERVE, &err), -ERROR_MEMORY);
}
END_TEST

START_TEST(images)
{
    set(&config->kernel, "");
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    set(&config->initrd, make_file("initrd", "", 0, 4096));
    set(&config->firmware, make_file("firmware", "", 0, 4096));
    ck_assert_int_eq(validate(), -ERROR_CONFIG); /* an initrd for nobody */
    set(&config->kernel, below("absent"));
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    ck_assert_int_eq(err.cause, ENOENT);
    set(&config->kernel, base);
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    set(&config->kernel, make_file("empty", "", 0, 0));
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    set(&config->kernel, "kernel");
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    set(&config->kernel, "/dev/null");
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    ck_assert_int_eq(mkfifo(below("pipe"), 0600), 0);
    set(&config->kernel, below("pipe")); /* must not wait for a writer */
    ck_assert_int_eq(validate(), -ERROR_KERNEL);
    set(&config->kernel, below("kernel"));
    set(&config->initrd, make_file("large", "", 0, 65 << 20));
    ck_assert_int_eq(validate(), -ERROR_MEMORY);
    ck_assert_int_gt(strlen(err.hint), 0);
}
END_TEST

START_TEST(long_command_lines)
{
    char text[CONFIG_APPEND_MAX + 2];

    memset(text, 'x', sizeof(text));
    text[CONFIG_APPEND_MAX] = '\0';
    set(&config->append, text);
    ck_assert_int_eq(validate(), 0);
    text[CONFIG_APPEND_MAX] = 'x';
    text[CONFIG_APPEND_MAX + 1] = '\0';
    set(&config->append, text);
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
}
END_TEST

START_TEST(disks_that_are_none)
{
    Polyvisor__DiskConfig *disk = add_disk(below("absent"));

    ck_assert_int_eq(validate(), -ERROR_DISK);
    set(&disk->path, base);
    ck_assert_int_eq(validate(), -ERROR_DISK);
    disk->read_only = true;
    ck_assert_int_eq(validate(), -ERROR_DISK);
    disk->read_only = false;
    set(&disk->path, "disk.img");
    ck_assert_int_eq(validate(), -ERROR_DISK);
    set(&disk->path, "/dev/null");
    ck_assert_int_eq(validate(), -ERROR_DISK);
    set(&disk->path, make_file("empty", "", 0, 0));
    ck_assert_int_eq(validate(), -ERROR_DISK);
    set(&disk->path, make_file("odd", "", 0, 1000));
    ck_assert_int_eq(validate(), -ERROR_DISK);
    ck_assert_int_gt(strlen(err.hint), 0);
}
END_TEST

START_TEST(disks_that_are_write_protected)
{
    const char *path = make_file("disk", "", 0, 4096);
    Polyvisor__DiskConfig *disk = add_disk(path);

    chmod(path, 0444);
    ck_assert_int_eq(validate(), -ERROR_DISK);
    ck_assert_int_gt(strlen(err.hint), 0);
    disk->read_only = true;
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(disk_formats)
{
    Polyvisor__DiskConfig *disk = add_disk(make_file("disk", "QFI\xfb", 4, 4096));

    ck_assert_int_eq(validate(), -ERROR_UNSUPPORTED);
    ck_assert_int_gt(strlen(err.hint), 0);
    set(&disk->format, "qcow2");
    ck_assert_int_eq(validate(), -ERROR_DISK); /* it is none */
    set(&disk->format, "vmdk");
    ck_assert_int_eq(validate(), -ERROR_UNSUPPORTED);
    set(&disk->format, "raw"); /* whoever says so means it */
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(disk_settings)
{
    Polyvisor__DiskConfig *disk = add_disk(make_file("disk", "", 0, 4096));
    Polyvisor__DeviceDisk message;

    ck_assert_int_eq(validate(), 0);
    ck_assert_str_eq(disk->cache, "writeback");
    ck_assert_str_eq(disk->werror, "report");
    ck_assert_str_eq(disk->aio, "auto");
    ck_assert(!disk_is_direct(disk));
    ck_assert_uint_eq(disk_queue_count(disk, 1), 1);
    ck_assert_uint_eq(disk_queue_count(disk, 64), DISK_QUEUES_MAX);
    disk->queues = 3;
    ck_assert_uint_eq(disk_queue_count(disk, 1), 3);
    disk->queues = DISK_QUEUES_MAX + 1;
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    disk->queues = 0;
    set(&disk->cache, "directsync");
    set(&disk->werror, "enospc");
    set(&disk->aio, "threads");
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
    ck_assert(disk_is_direct(disk));
    disk_describe(disk, &message);
    ck_assert(message.write_through && message.threads);
    ck_assert_int_eq(message.write_error, POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_ENOSPC);
    set(&disk->cache, "unsafe");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    ck_assert_int_gt(strlen(err.hint), 0);
    set(&disk->cache, "none");
    set(&disk->werror, "stop");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&disk->werror, "wait");
    set(&disk->aio, "native");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&disk->aio, "auto");
    set(&disk->serial, "twenty-one-characters");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&disk->serial, "a blank");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    set(&disk->serial, "just-twenty-letters.");
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
}
END_TEST

START_TEST(disks_are_locked)
{
    Polyvisor__DiskConfig *disk = add_disk(make_file("disk", "", 0, 4096));
    Polyvisor__DiskConfig other = POLYVISOR__DISK_CONFIG__INIT;

    other.path = disk->path;
    int held = storage_open_disk(&other, &chain, &err);
    ck_assert_int_ge(held, 0);
    ck_assert_int_eq(validate(), -ERROR_BUSY);
    disk->read_only = true;
    ck_assert_int_eq(validate(), -ERROR_BUSY);
    close(held);
    other.read_only = true;
    held = storage_open_disk(&other, &chain, &err);
    ck_assert_int_ge(held, 0);
    ck_assert_int_eq(validate(), 0); /* readers share */
    disk->read_only = false;
    ck_assert_int_eq(validate(), -ERROR_BUSY);
    close(held);
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(a_lock_goes_with_its_last_holder)
{
    Polyvisor__DiskConfig disk = POLYVISOR__DISK_CONFIG__INIT;
    int gate[2];

    disk.path = (char *)make_file("disk", "", 0, 4096);
    ck_assert_int_eq(pipe(gate), 0);
    int held = storage_open_disk(&disk, &chain, &err);
    pid_t device = fork();
    if (device == 0) { /* as a device process does: inherits, and lives on */
        char byte;
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(held);
    ck_assert_int_eq(storage_open_disk(&disk, &chain, &err), -ERROR_BUSY);
    close(gate[1]);
    waitpid(device, NULL, 0);
    held = storage_open_disk(&disk, &chain, &err);
    ck_assert_int_ge(held, 0);
    close(held);
    close(gate[0]);
}
END_TEST

START_TEST(one_disk_is_not_two)
{
    const char *path = make_file("disk", "", 0, 4096);

    add_disk(path);
    add_disk(path);
    ck_assert_int_eq(validate(), -ERROR_BUSY);
    config->disks[0]->read_only = config->disks[1]->read_only = true;
    ck_assert_int_eq(validate(), 0);
}
END_TEST

START_TEST(too_many_disks)
{
    for (int i = 0; i <= CONFIG_DISKS_MAX; i++) {
        add_disk("/none");
    }
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    while (config->n_disks > 0) {
        polyvisor__disk_config__free_unpacked(config->disks[--config->n_disks], NULL);
    }
}
END_TEST

static void add_net(const char *text)
{
    config->net = realloc(config->net, (config->n_net + 1) * sizeof(char *));
    config->net[config->n_net++] = strdup(text);
}

START_TEST(network_cards_get_an_address_that_stays)
{
    char first[128], other[128];

    add_net("user");
    add_net("user,mac=52:54:00:00:00:01,hostfwd=tcp:[::1]:4430-:443,mtu=9000,queues=2");
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
    snprintf(first, sizeof(first), "%s", config->net[0]);
    ck_assert_int_eq(strncmp(first, "user,mac=52:", 12), 0);
    ck_assert_uint_eq(strlen(first), strlen("user,mac=52:00:00:00:00:00"));
    ck_assert_str_eq(config->net[1], "user,hostfwd=tcp:[::1]:4430-:443,mac=52:54:00:00:00:01,"
                                     "mtu=9000,queues=2");
    /* What was completed is complete. */
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
    ck_assert_str_eq(config->net[0], first);
    /* It is the same each time, and another for another card. */
    free(config->net[0]);
    config->net[0] = strdup("user");
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
    ck_assert_str_eq(config->net[0], first);
    free(config->net[1]);
    config->net[1] = strdup("user");
    ck_assert_int_eq(config_validate_form(config, base, &err), 0);
    snprintf(other, sizeof(other), "%s", config->net[1]);
    ck_assert_str_ne(first, other);
}
END_TEST

START_TEST(bad_network_cards)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {
        {"bridge", ERROR_CONFIG},
        {"link,path=relative", ERROR_CONFIG},
        {"tap,ifname=pvnone0", ERROR_CONFIG},
        {"user,mac=53:54:00:00:00:01", ERROR_CONFIG},
        {"user,hostfwd=tcp:203.0.113.1:4711-:80", ERROR_CONFIG},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        add_net(cases[i].text);
        ck_assert_msg(validate() == -cases[i].code, "%s: %s", cases[i].text, err.message);
        free(config->net[--config->n_net]);
    }
    add_net("user,mac=52:54:00:00:00:01");
    add_net("user,mac=52:54:00:00:00:01");
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
    for (int i = 0; i < CONFIG_NETS_MAX; i++) {
        add_net("user");
    }
    ck_assert_int_eq(validate(), -ERROR_CONFIG);
}
END_TEST

START_TEST(a_port_that_is_in_use)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[64];

    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    snprintf(text, sizeof(text), "user,hostfwd=tcp:127.0.0.1:%u-:80", ntohs(address.sin_port));
    add_net(text);
    ck_assert_int_eq(validate(), -ERROR_BUSY);
    ck_assert(strstr(err.message, "is in use") != NULL);
    ck_assert_uint_ne(strlen(err.hint), 0);
    close(fd);
    ck_assert_int_eq(validate(), 0);
    /* Twice in one machine is no better. */
    add_net(text);
    ck_assert_int_eq(validate(), -ERROR_BUSY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: validation");
    TCase *tests = tcase_create("validation");

    tcase_add_checked_fixture(tests, make_config, free_config);
    tcase_add_test(tests, a_good_one_passes_and_gets_its_defaults);
    tcase_add_test(tests, names);
    tcase_add_test(tests, architectures_and_engines);
    tcase_add_test(tests, interrupt_controllers);
    tcase_add_test(tests, processors_and_memory);
    tcase_add_test(tests, memory_is_not_promised_twice);
    tcase_add_test(tests, images);
    tcase_add_test(tests, long_command_lines);
    tcase_add_test(tests, disks_that_are_none);
    tcase_add_test(tests, disks_that_are_write_protected);
    tcase_add_test(tests, disk_formats);
    tcase_add_test(tests, disk_settings);
    tcase_add_test(tests, disks_are_locked);
    tcase_add_test(tests, a_lock_goes_with_its_last_holder);
    tcase_add_test(tests, one_disk_is_not_two);
    tcase_add_test(tests, too_many_disks);
    tcase_add_test(tests, network_cards_get_an_address_that_stays);
    tcase_add_test(tests, bad_network_cards);
    tcase_add_test(tests, a_port_that_is_in_use);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
