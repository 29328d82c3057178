#include "vmmd/vcpu/guest.h"
#include "libshared/base/clock.h"
#include "vmmd/vcpu/code_listing.h"
#include "vmmd/vcpu/cpu_threads.h"
#include "vmmd/vcpu/devices.h"
#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "vmmd/vcpu/interrupt_thread.h"
#include "vmmd/vcpu/jit_link.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum image { IMAGE_KERNEL, IMAGE_INITRD, IMAGE_FIRMWARE, IMAGE_COUNT };
static const char *const IMAGE_NAMES[IMAGE_COUNT] = {"kernel", "initrd", "firmware"};

struct guest {
    struct notices *notices;
    struct memory memory;
    int images[IMAGE_COUNT]; /* kept for resets; -1 = none */
    struct machine *machine;
    struct perf_map *perf_map; /* NULL unless wanted */
    struct jit_link *jit;      /* NULL: nothing is optimised */
    struct interrupt_thread *interrupts;
    struct devices *devices;
    struct cpu_threads cpus;
    bool has_threads;
    bool running;
    bool resetting; /* devices are quieted, images not loaded yet; not running */
    bool parking;   /* resetting, and not even that: CPUs are still on their way out */
    bool resume;    /* when that is done */
};

/* --- building -------------------------------------------------------------------------------- */

/* On any thread: the guest ended, or wants a reset. */
static void machine_event(void *context, enum machine_event event, unsigned guest_code)
{
    static const Polyvisor__VcpuNoticeKind kinds[] = {
        [MACHINE_POWER_OFF] = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF,
        [MACHINE_RESET] = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET,
        [MACHINE_FAILURE] = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE,
    };
    struct guest *guest = context;
    notices_post(guest->notices, kinds[event], guest_code, NULL);
}

/* On the thread that talks to jitd, which may be resting. */
static void compiler_wanted(void *context)
{
    struct guest *guest = context;
    notices_post(guest->notices, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_COMPILER_WANTED, 0, NULL);
}

static const struct machine_model *find_model(const Polyvisor__VcpuConfigure *configure,
                                              struct error *err)
{
    const struct machine_model *model = machine_model_find(configure->arch);
    if (!model) {
        error_set(err, ERROR_UNSUPPORTED, 0, "there is no machine of architecture '%.40s'",
                  configure->arch);
    }
    return model;
}

static int find_engine(const char *name, enum engine_tier *tier, struct error *err)
{
    if (strcmp(name, "") == 0 || strcmp(name, "auto") == 0) {
        *tier = engine_tier_best();
        return 0;
    }
    if (engine_tier_find(name, tier)) {
        return 0;
    }
    error_set(err, ERROR_UNSUPPORTED, 0, "there is no engine '%.40s' on this host", name);
    error_hint(err, "use --engine interp or auto");
    return -ERROR_UNSUPPORTED;
}

/* Map a region from an inherited descriptor, which is not needed afterwards. */
static int map_memory(struct guest *guest, const struct machine_model *model, uint64_t bytes,
                      struct fdlist *descriptors, struct error *err)
{
    int ram = fdlist_take(descriptors, "ram");
    int codemap = fdlist_take(descriptors, "codemap");
    int result = 0;
    if (ram < 0 || codemap < 0) {
        result = error_set(err, ERROR_INTERNAL, ENOENT, "no guest memory was handed over");
        goto out;
    }
    int failure = memory_add_region(&guest->memory, ram, model->ram_base, bytes);
    if (failure == 0) {
        failure = memory_attach_codemap(&guest->memory, codemap);
    }
    if (failure != 0) {
        result = error_set(err, ERROR_MEMORY, -failure, "cannot map %llu bytes of guest memory: %s",
                           (unsigned long long)bytes, strerror(-failure));
    }
out:
    if (ram >= 0) {
        close(ram);
    }
    if (codemap >= 0) {
        close(codemap);
    }
    return result;
}

static int create_machine(struct guest *guest, const struct machine_model *model,
                          const Polyvisor__VcpuConfigure *configure, struct error *err)
{
    enum machine_irqchip irqchip;
    if (!machine_irqchip_find(configure->irqchip, &irqchip)) {
        return error_set(err, ERROR_CONFIG, 0, "there is no irqchip '%.40s'", configure->irqchip);
    }
    const struct machine_config config = {
        .cpu_count = configure->cpus,
        .memory_size = configure->memory_bytes,
        .kernel_fd = guest->images[IMAGE_KERNEL],
        .initrd_fd = guest->images[IMAGE_INITRD],
        .firmware_fd = guest->images[IMAGE_FIRMWARE],
        .append = configure->append,
        .irqchip = irqchip,
        .event = machine_event,
        .event_context = guest,
    };
    guest->machine = model->create(&config, &guest->memory, err);
    return guest->machine ? 0 : -ERROR_INTERNAL;
}

/* perf's map of compiled code, when vmmd opened one. */
static int take_perf_map(struct guest *guest, struct fdlist *descriptors, struct error *err)
{
    int fd = fdlist_take(descriptors, "perf-map");
    if (fd < 0) {
        return 0;
    }
    guest->perf_map = perf_map_create(fd);
    if (!guest->perf_map) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the map for perf");
    }
    engine_set_perf_map(guest->machine->engine, guest->perf_map);
    return 0;
}

static int create_devices(struct guest *guest, const Polyvisor__VcpuConfigure *configure,
                          struct fdlist *descriptors, struct error *err)
{
    guest->interrupts = interrupt_thread_create(err);
    if (!guest->interrupts) {
        return -ERROR_INTERNAL;
    }
    guest->devices = devices_create(configure, guest->machine, descriptors, guest->interrupts,
                                    guest->notices, err);
    if (!guest->devices) {
        return -ERROR_INTERNAL;
    }
    fdlist_tell(descriptors, "transports");
    return 0;
}

static int start_threads(struct guest *guest, struct error *err)
{
    int result = interrupt_thread_start(guest->interrupts, err);
    if (result == 0) {
        result = cpu_threads_create(&guest->cpus, guest->machine, err);
    }
    return result;
}

static int build(struct guest *guest, const Polyvisor__VcpuConfigure *configure,
                 struct fdlist *descriptors, struct error *err)
{
    const struct machine_model *model = find_model(configure, err);
    enum engine_tier tier = ENGINE_INTERP;
    int result = model ? find_engine(configure->engine, &tier, err) : -ERROR_UNSUPPORTED;
    if (result == 0) {
        result = map_memory(guest, model, configure->memory_bytes, descriptors, err);
    }
    if (result == 0) {
        result = create_machine(guest, model, configure, err);
    }
    if (result == 0) {
        engine_set_tier(guest->machine->engine, tier);
    }
    if (result == 0) {
        result = take_perf_map(guest, descriptors, err);
    }
    if (result == 0 && tier == ENGINE_OPTIMISED && configure->jit_path[0]) {
        guest->jit = jit_link_create(&jit_link_engine, guest->machine->engine, configure->jit_path,
                                     compiler_wanted, guest, err);
        result = guest->jit ? 0 : -ERROR_INTERNAL;
    }
    if (result == 0) {
        result = create_devices(guest, configure, descriptors, err);
    }
    if (result == 0) {
        result = guest->machine->model->load(guest->machine, err);
    }
    return result;
}

struct guest *guest_create(const Polyvisor__VcpuConfigure *configure, struct fdlist *descriptors,
                           struct notices *notices, struct error *err)
{
    struct guest *guest = calloc(1, sizeof(*guest));
    if (!guest) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the guest machine");
        return NULL;
    }
    guest->notices = notices;
    for (unsigned i = 0; i < IMAGE_COUNT; i++) {
        int fd = fdlist_take(descriptors, "%s", IMAGE_NAMES[i]);
        guest->images[i] = fd >= 0 ? fd : -1;
    }
    if (build(guest, configure, descriptors, err) != 0) {
        guest_destroy(guest);
        return NULL;
    }
    return guest;
}

void guest_destroy(struct guest *guest)
{
    if (!guest) {
        return;
    }
    guest_end(guest);
    jit_link_destroy(guest->jit);
    devices_destroy(guest->devices);
    interrupt_thread_destroy(guest->interrupts);
    if (guest->machine) {
        guest->machine->model->destroy(guest->machine);
    }
    perf_map_destroy(guest->perf_map);
    memory_close(&guest->memory);
    for (unsigned i = 0; i < IMAGE_COUNT; i++) {
        if (guest->images[i] >= 0) {
            close(guest->images[i]);
        }
    }
    free(guest);
}

/* --- running --------------------------------------------------------------------------------- */

int guest_run(struct guest *guest, struct error *err)
{
    if (!guest->has_threads) {
        int result = start_threads(guest, err);
        if (result != 0) {
            return result;
        }
        guest->has_threads = true;
    }
    if (guest->resetting) {
        guest->resume = true;
        return 0;
    }
    guest->running = true;
    cpu_threads_resume(&guest->cpus);
    return 0;
}

int guest_pause(struct guest *guest, struct error *err)
{
    if ((guest->running || guest->parking) &&
        !cpu_threads_pause(&guest->cpus, TUNABLE_PAUSE_WAIT_MS)) {
        if (guest->running) {
            cpu_threads_resume(&guest->cpus);
        }
        error_set(err, ERROR_BUSY, 0, "a CPU waits for a device that does not answer");
        error_hint(err, "try again in a moment; 'vmctl device list' tells how the devices are");
        return -ERROR_BUSY;
    }
    guest->running = false;
    guest->resume = false;
    return 0;
}

void guest_end(struct guest *guest)
{
    if (guest->devices) {
        devices_abandon(guest->devices, true);
    }
    cpu_threads_stop(&guest->cpus);
    guest->running = false;
    guest->resetting = guest->parking = false;
}

/* Whether all CPUs have parked, and all devices been told. */
static bool reset_parked(struct guest *guest, unsigned wait_ms)
{
    if (guest->parking && (!guest->has_threads || cpu_threads_pause(&guest->cpus, wait_ms))) {
        devices_reset(guest->devices);
        guest->parking = false;
    }
    return !guest->parking;
}

/* Most devices confirm within a millisecond or two: then nobody need come back. */
static bool reset_confirmed(struct guest *guest, unsigned wait_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t end_ns = clock_monotonic_ns() + wait_ms * NS_PER_MS;

    while (devices_reset_pending(guest->devices)) {
        if (clock_monotonic_ns() >= end_ns) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return true;
}

static int reset_step(struct guest *guest, unsigned wait_ms, struct error *err)
{
    if (!reset_parked(guest, wait_ms) || !reset_confirmed(guest, wait_ms)) {
        return GUEST_RESET_PENDING;
    }
    guest->resetting = false;
    devices_abandon(guest->devices, false);
    int result = guest->machine->model->load(guest->machine, err);
    if (result == 0) {
        devices_raise_levels(guest->devices);
        if (guest->resume) {
            result = guest_run(guest, err);
        }
    }
    return result;
}

int guest_reset(struct guest *guest, struct error *err)
{
    if (!guest->resetting) {
        guest->resetting = guest->parking = true;
        guest->resume = guest->running;
        guest->running = false;
        devices_abandon(guest->devices, true);
    }
    return reset_step(guest, TUNABLE_RESET_WAIT_MS, err);
}

int guest_reset_continue(struct guest *guest, struct error *err)
{
    return guest->resetting ? reset_step(guest, 0, err) : 0;
}

void guest_report_stuck(struct guest *guest)
{
    devices_report_stuck(guest->devices);
}

void guest_device_gone(struct guest *guest, const char *id)
{
    devices_gone(guest->devices, id);
}

int guest_attach(struct guest *guest, const Polyvisor__VcpuDevice *wanted, uint64_t handover,
                 struct error *err)
{
    return devices_attach(guest->devices, wanted, handover, err);
}

int guest_detach(struct guest *guest, const char *id, bool force, struct error *err)
{
    return devices_detach(guest->devices, id, force, err);
}

/* What the message takes over from the engine, by the same names. */
#define GUEST_STATISTICS(X)                                                                        \
    X(retired)                                                                                     \
    X(blocks_decoded)                                                                              \
    X(blocks_dropped)                                                                              \
    X(blocks_lowered)                                                                              \
    X(lookups)                                                                                     \
    X(tlb_misses)                                                                                  \
    X(tlb_victims)                                                                                 \
    X(slow_accesses)                                                                               \
    X(exceptions)                                                                                  \
    X(interrupts)                                                                                  \
    X(block_bytes)                                                                                 \
    X(blocks_compiled)                                                                             \
    X(compiled_guest_bytes)                                                                        \
    X(compiled_host_bytes)                                                                         \
    X(compile_ns)                                                                                  \
    X(compile_median_ns)                                                                           \
    X(compile_p99_ns)                                                                              \
    X(code_bytes)                                                                                  \
    X(code_bytes_max)                                                                              \
    X(code_memory_full)                                                                            \
    X(slow_device)                                                                                 \
    X(slow_crossing)                                                                               \
    X(slow_watched)                                                                                \
    X(slow_misaligned)                                                                             \
    X(exits_attention)                                                                             \
    X(waits)                                                                                       \
    X(samples)                                                                                     \
    X(samples_optimised)                                                                           \
    X(retired_optimised)                                                                           \
    X(regions)                                                                                     \
    X(region_bytes)                                                                                \
    X(regions_installed)                                                                           \
    X(region_guest_bytes)                                                                          \
    X(region_install_ns)                                                                           \
    X(regions_dropped)                                                                             \
    X(regions_stale)                                                                               \
    X(regions_refused)                                                                             \
    X(region_median_ns)                                                                            \
    X(region_p99_ns)

void guest_stats(struct guest *guest, Polyvisor__VcpuStats *stats)
{
    struct engine_stats engine = {0};
    engine_stats(guest->machine->engine, &engine);
#define X(name) stats->name = engine.name;
    GUEST_STATISTICS(X)
#undef X
    struct virtio_pci_counts devices = {0};
    devices_count(guest->devices, &devices);
    stats->kicks = devices.kicks;
    stats->device_interrupts = devices.interrupts;
    stats->device_messages = devices.messages;
    struct machine_counts machine = {0};
    guest->machine->model->count(guest->machine, &machine);
    stats->messages = machine.messages;
    if (guest->jit) {
        struct jit_link_stats jit;
        jit_link_get_stats(guest->jit, &jit);
        stats->region_requests = jit.requests;
        stats->region_fetches = jit.fetches;
        stats->regions_from_cache = jit.from_cache;
        stats->jit_dropped = jit.dropped;
        stats->jit_lives = jit.lives;
        stats->region_compile_ns = jit.compile_ns;
        stats->region_compile_median_ns = jit.compile_median_ns;
        stats->region_compile_p99_ns = jit.compile_p99_ns;
    }
}

Polyvisor__CodeListing *guest_list_code(struct guest *guest, const Polyvisor__CodeRequest *request,
                                        struct error *err)
{
    struct cpu *cpu = engine_cpu(guest->machine->engine, request->cpu);
    bool was_running = guest->running;
    if (!cpu) {
        error_set(err, ERROR_NOT_FOUND, 0, "there is no CPU %u", request->cpu);
        error_hint(err, "the machine has CPUs 0 to %u", guest->machine->config.cpu_count - 1);
        return NULL;
    }
    if (was_running && guest_pause(guest, err) != 0) {
        return NULL;
    }
    Polyvisor__CodeListing *listing = code_listing_create(cpu, request, err);
    if (was_running && guest_run(guest, err) != 0) {
        polyvisor__code_listing__free_unpacked(listing, NULL);
        return NULL;
    }
    return listing;
}
