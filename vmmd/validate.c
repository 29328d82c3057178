#include "vmmd/validate.h"

#include "libshared/ipc/runtime.h"
#include "libshared/watchdog/setting.h"
#include "vmmd/balloon.h"
#include "vmmd/budget.h"
#include "vmmd/console_ports.h"
#include "vmmd/disk.h"
#include "vmmd/message.h"
#include "vmmd/network.h"
#include "vmmd/shared_directory.h"
#include "vmmd/storage.h"
#include "vmmd/vsock.h"
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

/* The longest socket of a machine: what must fit in sun_path after the machine's name. */
#define CONFIG_SOCKET_SUFFIX "/console0.transport.sock"

static int config_check_name(const Polyvisor__MachineConfig *config, const char *directory,
                             struct error *err)
{
    if (!runtime_name_valid(config->name)) {
        error_set(err, ERROR_CONFIG, 0, "'%.60s' is not a valid machine name", config->name);
        error_hint(err,
                   "1 to %d letters, digits, '-', '_' and '.', the first a letter, digit or '_'",
                   MACHINE_NAME_MAX);
        return -ERROR_CONFIG;
    }
    size_t length =
        strlen(directory) + strlen("/vms/") + strlen(config->name) + strlen(CONFIG_SOCKET_SUFFIX);
    if (length >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        error_set(err, ERROR_CONFIG, 0, "the machine name '%s' is too long for sockets in '%s'",
                  config->name, directory);
        error_hint(err, "choose a shorter name or runtime directory");
        return -ERROR_CONFIG;
    }
    return 0;
}

static int config_check_arch(Polyvisor__MachineConfig *config, struct error *err)
{
    static const char *const planned[] = {"arm64", "x86_64"};

    if (!config->arch[0] && message_set_string(&config->arch, CONFIG_DEFAULT_ARCH) < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    if (!strcmp(config->arch, CONFIG_DEFAULT_ARCH)) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(planned) / sizeof(planned[0]); i++) {
        if (!strcmp(config->arch, planned[i])) {
            error_set(err, ERROR_UNSUPPORTED, 0, "architecture '%s' is not implemented yet",
                      config->arch);
            error_hint(err, "riscv64 is");
            return -ERROR_UNSUPPORTED;
        }
    }
    error_set(err, ERROR_CONFIG, 0, "unknown architecture '%.40s'", config->arch);
    error_hint(err, "riscv64 is implemented; arm64 and x86_64 are planned");
    return -ERROR_CONFIG;
}

static int config_check_engine(Polyvisor__MachineConfig *config, struct error *err)
{
    static const char *const known[] = {"auto", "interp", "baseline"};

    if (!config->engine[0] && message_set_string(&config->engine, "auto") < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    /* Whether the host can have it is for vcpud to say. */
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (!strcmp(config->engine, known[i])) {
            return 0;
        }
    }
    error_set(err, ERROR_CONFIG, 0, "unknown engine '%.40s'", config->engine);
    error_hint(err, "use 'interp', 'baseline', or 'auto' for the best there is");
    return -ERROR_CONFIG;
}

static int config_check_irqchip(Polyvisor__MachineConfig *config, struct error *err)
{
    static const char *const known[] = {"auto", "plic", "aia"};

    if (!config->irqchip[0] && message_set_string(&config->irqchip, "auto") < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(config->irqchip, known[i])) {
            continue;
        }
        if (config->firmware[0] && !strcmp(config->irqchip, "aia")) {
            error_set(err, ERROR_CONFIG, 0, "a machine with firmware cannot have irqchip=aia");
            error_hint(err, "leave out --machine irqchip=aia: it then has a PLIC");
            return -ERROR_CONFIG;
        }
        return 0;
    }
    error_set(err, ERROR_CONFIG, 0, "unknown irqchip '%.40s'", config->irqchip);
    error_hint(err, "use 'plic', 'aia', or 'auto' for what the kernel knows");
    return -ERROR_CONFIG;
}

static int config_check_on_panic(Polyvisor__MachineConfig *config, struct error *err)
{
    static const char *const known[] = {CONFIG_PANIC_REPORT, CONFIG_PANIC_STOP};

    if (!config->on_panic[0] && message_set_string(&config->on_panic, CONFIG_PANIC_REPORT) < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (!strcmp(config->on_panic, known[i])) {
            return 0;
        }
    }
    error_set(err, ERROR_CONFIG, 0, "a panic of the guest can lead to no '%.40s'",
              config->on_panic);
    error_hint(err, "use 'report' or 'stop'");
    return -ERROR_CONFIG;
}

static int config_check_cpus(const Polyvisor__MachineConfig *config, struct error *err)
{
    if (config->cpus >= 1 && config->cpus <= CONFIG_CPUS_MAX) {
        return 0;
    }
    return error_set(err, ERROR_CONFIG, 0, "%" PRIu32 " CPUs wanted, 1 to %d are possible",
                     config->cpus, CONFIG_CPUS_MAX);
}

static int config_check_memory_size(const Polyvisor__MachineConfig *config, struct error *err)
{
    uint64_t bytes = config->memory_bytes;

    if (bytes < CONFIG_MEMORY_MIN) {
        error_set(err, ERROR_MEMORY, 0,
                  "%" PRIu64 " bytes of memory wanted, a machine needs at least %" PRIu64 " MiB",
                  bytes, CONFIG_MEMORY_MIN / MIB);
        error_hint(err, "for example --memory 512M");
        return -ERROR_MEMORY;
    }
    if (bytes % MIB) {
        error_set(err, ERROR_MEMORY, 0, "%" PRIu64 " bytes of memory are not a multiple of 1 MiB",
                  bytes);
        error_hint(err, "the next that is: %" PRIu64 "M", bytes / MIB + 1);
        return -ERROR_MEMORY;
    }
    return 0;
}

static int config_check_hotplug_slots(Polyvisor__MachineConfig *config, struct error *err)
{
    if (!config->hotplug_slots) {
        config->hotplug_slots = HOTPLUG_SLOTS_DEFAULT;
    }
    return config->hotplug_slots <= HOTPLUG_SLOTS_MAX
               ? 0
               : error_set(err, ERROR_CONFIG, 0,
                           "room for %" PRIu32 " devices to come wanted, the most is %d",
                           config->hotplug_slots, HOTPLUG_SLOTS_MAX);
}

static int config_check_path(const char *what, const char *path, enum error_code code,
                             struct error *err)
{
    if (path[0] != '/') {
        return error_set(err, code, 0, "the path of %s '%.100s' is not absolute", what, path);
    }
    if (strlen(path) >= PATH_MAX) {
        return error_set(err, code, 0, "the path of %s is longer than %d bytes", what,
                         PATH_MAX - 1);
    }
    return 0;
}

struct config_image {
    const char *what, *path;
};

#define CONFIG_IMAGES 3

static void config_list_images(const Polyvisor__MachineConfig *config,
                               struct config_image images[CONFIG_IMAGES])
{
    images[0] = (struct config_image){"kernel", config->kernel};
    images[1] = (struct config_image){"initrd", config->initrd};
    images[2] = (struct config_image){"firmware", config->firmware};
}

static int config_check_image_paths(const Polyvisor__MachineConfig *config, struct error *err)
{
    struct config_image images[CONFIG_IMAGES];
    int result = 0;

    if (!config->kernel[0] && !config->firmware[0]) {
        error_set(err, ERROR_KERNEL, 0, "machine '%s' has neither kernel nor firmware",
                  config->name);
        error_hint(err, "give one with --kernel or --firmware");
        return -ERROR_KERNEL;
    }
    if (config->initrd[0] && !config->kernel[0]) {
        error_set(err, ERROR_CONFIG, 0, "an initrd without a kernel");
        error_hint(err, "give the kernel with --kernel");
        return -ERROR_CONFIG;
    }
    config_list_images(config, images);
    for (size_t i = 0; i < CONFIG_IMAGES && !result; i++) {
        if (images[i].path[0]) {
            result = config_check_path(images[i].what, images[i].path, ERROR_KERNEL, err);
        }
    }
    return result;
}

static int config_check_image_files(const Polyvisor__MachineConfig *config, struct error *err)
{
    struct config_image images[CONFIG_IMAGES];
    uint64_t total = 0;

    config_list_images(config, images);
    for (size_t i = 0; i < CONFIG_IMAGES; i++) {
        uint64_t size = 0;
        if (!images[i].path[0]) {
            continue;
        }
        int fd = storage_open_image(images[i].what, images[i].path, &size, err);
        if (fd < 0) {
            return fd;
        }
        close(fd);
        total += size;
        if (size >= config->memory_bytes || total >= config->memory_bytes) {
            error_set(err, ERROR_MEMORY, 0,
                      "%s '%s' (%" PRIu64 " MiB) does not fit in %" PRIu64 " MiB of memory",
                      images[i].what, images[i].path, (size + MIB - 1) / MIB,
                      config->memory_bytes / MIB);
            error_hint(err, "give the machine more memory (--memory)");
            return -ERROR_MEMORY;
        }
    }
    return 0;
}

static int config_check_append(const Polyvisor__MachineConfig *config, struct error *err)
{
    size_t length = strlen(config->append);

    if (length <= CONFIG_APPEND_MAX) {
        return 0;
    }
    return error_set(err, ERROR_CONFIG, 0, "the kernel command line has %zu bytes, the most is %d",
                     length, CONFIG_APPEND_MAX);
}

static int config_check_disk_paths(Polyvisor__MachineConfig *config, struct error *err)
{
    if (config->n_disks > CONFIG_DISKS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu disks wanted, the most is %d", config->n_disks,
                         CONFIG_DISKS_MAX);
    }
    for (size_t i = 0; i < config->n_disks; i++) {
        Polyvisor__DiskConfig *disk = config->disks[i];
        int result = disk_is_network(disk) && strlen(disk->path) < PATH_MAX
                         ? 0
                         : config_check_path("disk", disk->path, ERROR_DISK, err);
        if (!result && disk->backing[0]) {
            result = config_check_path("folder of backing files", disk->backing, ERROR_DISK, err);
        }
        result = result ? result : disk_complete(disk, err);
        if (result) {
            return result;
        }
    }
    return 0;
}

/* All disks are held open at once, so that one that is named twice meets its own lock. */
static int config_check_disk_files(Polyvisor__MachineConfig *config, struct error *err)
{
    int fds[CONFIG_DISKS_MAX];
    struct disk_chain chain;
    size_t count = 0;
    int result = 0;

    for (size_t i = 0; i < config->n_disks && !result; i++) {
        Polyvisor__DiskConfig *disk = config->disks[i];
        if (disk_is_network(disk)) {
            continue; /* looked at when the machine starts */
        }
        int fd = storage_open_disk(disk, &chain, err);
        if (fd < 0) {
            result = fd;
            break;
        }
        disk_chain_close(&chain); /* readers share */
        fds[count++] = fd;
        if (!disk->format[0] && message_set_string(&disk->format, storage_disk_format(disk)) < 0) {
            result = error_set(err, ERROR_INTERNAL, 0, "out of memory");
        }
    }
    while (count > 0) {
        close(fds[--count]);
    }
    return result;
}

int config_validate_form(Polyvisor__MachineConfig *config, const char *directory, struct error *err)
{
    int result = config_check_name(config, directory, err);

    result = result ? result : config_check_arch(config, err);
    result = result ? result : config_check_engine(config, err);
    result = result ? result : config_check_irqchip(config, err);
    result = result ? result : config_check_on_panic(config, err);
    result = result ? result : config_check_cpus(config, err);
    result = result ? result : config_check_memory_size(config, err);
    result = result ? result : config_check_append(config, err);
    result = result ? result : balloon_complete(config, err);
    result = result ? result : config_check_hotplug_slots(config, err);
    result = result ? result : config_check_image_paths(config, err);
    result = result ? result : config_check_disk_paths(config, err);
    result = result ? result : network_complete(config, directory, err);
    if (!result && config->watchdog[0]) {
        enum watchdog_action action;
        result = watchdog_setting_parse(config->watchdog, ERROR_CONFIG, &action, err);
    }
    result = result ? result : console_ports_check(config, err);
    if (!result && config->vsock[0]) {
        result = vsock_check(config->vsock, err);
    }
    return result ? result : shared_directory_check(config, err);
}

int config_validate(Polyvisor__MachineConfig *config, const char *directory, struct error *err)
{
    int result = config_validate_form(config, directory, err);

    result = result ? result : budget_check(config->memory_bytes, 0, err);
    result = result ? result : config_check_image_files(config, err);
    result = result ? result : config_check_disk_files(config, err);
    result = result ? result : network_check_host(config, err);
    return result ? result : shared_directory_check_host(config, err);
}

int config_check_attachment(const Polyvisor__DeviceAttachRequest *wanted, struct error *err)
{
    if ((wanted->disk != NULL) + (wanted->net[0] != '\0') + (wanted->vsock[0] != '\0') == 1) {
        return 0;
    }
    return error_set(err, ERROR_PROTOCOL, 0, "a request to plug in not just one device");
}

/* As the card of that number among the others. */
static int config_validate_card(Polyvisor__MachineConfig *only, char **setting, size_t number,
                                const char *const *cards, const char *directory, struct error *err)
{
    char *texts[CONFIG_NETS_MAX] = {NULL};
    int result = 0;

    only->net = texts;
    for (size_t i = 0; i < CONFIG_NETS_MAX && !result; i++) {
        texts[i] = strdup(i == number ? *setting : cards[i] ? cards[i] : "user");
        only->n_net = i + 1;
        if (!texts[i]) {
            result = error_set(err, ERROR_INTERNAL, 0, "out of memory");
        }
    }
    result = result ? result : network_complete(only, directory, err);
    if (!result && message_set_string(setting, texts[number]) < 0) {
        result = error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    for (size_t i = 0; i < CONFIG_NETS_MAX; i++) {
        free(texts[i]);
    }
    return result;
}

int config_validate_attachment(const Polyvisor__MachineConfig *machine,
                               Polyvisor__DeviceAttachRequest *wanted, size_t number,
                               const char *const *cards, const char *directory, struct error *err)
{
    Polyvisor__MachineConfig only = POLYVISOR__MACHINE_CONFIG__INIT;
    int result;

    only.name = machine->name;
    if (wanted->vsock[0]) {
        return vsock_check(wanted->vsock, err);
    }
    if (wanted->net[0]) {
        return config_validate_card(&only, &wanted->net, number, cards, directory, err);
    }
    only.n_disks = 1;
    only.disks = &wanted->disk;
    result = config_check_disk_paths(&only, err);
    return result ? result : config_check_disk_files(&only, err);
}
