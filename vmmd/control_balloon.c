/* The control socket's requests for a machine's balloon. */
#include "proto/device.pb-c.h"
#include "vmmd/budget.h"
#include "vmmd/control_internal.h"

/* The guest's statistics by their tags (Virtual I/O Device 1.2, 5.5.6.4, and later ones of Linux).
 */
static const char *const statistic_names[] = {
    "swap_in_bytes",
    "swap_out_bytes",
    "major_faults",
    "minor_faults",
    "free_bytes",
    "total_bytes",
    "available_bytes",
    "cache_bytes",
    "hugetlb_allocated",
    "hugetlb_failed",
    "oom_kills",
    "allocation_stalls",
    "async_scanned_pages",
    "direct_scanned_pages",
    "async_reclaimed_pages",
    "direct_reclaimed_pages",
};
#define STATISTICS (sizeof(statistic_names) / sizeof(statistic_names[0]))

struct balloon_view {
    Polyvisor__BalloonInfo info;
    Polyvisor__Statistic statistics[STATISTICS], *list[STATISTICS];
};

/* Tags that come twice or are unknown are not told. */
static void view_statistics(struct balloon_view *view, const Polyvisor__DeviceBalloonReport *report)
{
    uint64_t seen = 0;

    for (size_t i = 0; i < report->n_tags && i < report->n_values; i++) {
        uint32_t tag = report->tags[i];
        if (tag >= STATISTICS || seen & UINT64_C(1) << tag) {
            continue;
        }
        seen |= UINT64_C(1) << tag;
        Polyvisor__Statistic *statistic = &view->statistics[view->info.n_statistics];
        polyvisor__statistic__init(statistic);
        statistic->name = (char *)statistic_names[tag];
        statistic->value = report->values[i];
        view->list[view->info.n_statistics++] = statistic;
    }
}

static void view_init(struct balloon_view *view, const struct machine *machine,
                      const Polyvisor__DeviceBalloonReport *report)
{
    Polyvisor__BalloonInfo *info = &view->info;
    uint64_t memory = machine->config->memory_bytes;

    polyvisor__balloon_info__init(info);
    info->memory_bytes = memory;
    info->target_bytes = memory - (report->target_bytes < memory ? report->target_bytes : memory);
    info->guest_bytes = memory - (report->actual_bytes < memory ? report->actual_bytes : memory);
    info->resident_bytes = memory - budget_untouched(machine->ram_fd, memory);
    info->inflated_bytes = report->inflated_bytes;
    info->deflated_bytes = report->deflated_bytes;
    info->released_bytes = report->released_bytes;
    info->reported_bytes = report->reported_bytes;
    info->driver = report->driver;
    info->deflate_on_oom = report->deflate_on_oom;
    info->reporting = report->reporting;
    info->statistics_age_ms = report->age_ms;
    info->statistics = view->list;
    view_statistics(view, report);
}

static void control_balloon_came(struct child *child, const struct error *error,
                                 const ProtobufCMessage *reply, uint64_t serial)
{
    const struct machine *machine = ((struct machine_device *)child->owner)->machine;
    struct request *request = control_asked(machine, error, serial);
    const Polyvisor__DeviceReply *answer = (const Polyvisor__DeviceReply *)reply;
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    struct balloon_view view;
    struct error err;

    if (!request) {
        return;
    }
    if (!answer || !answer->balloon) {
        error_set(&err, ERROR_PROTOCOL, 0, "the balloon's process answered without its state");
        request_fail(request, &err);
        return;
    }
    view_init(&view, machine, answer->balloon);
    response.balloon = &view.info;
    request_send(request, &response);
}

void control_balloon(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->balloon->name);
    struct error err;

    if (machine) {
        int status =
            machine_balloon(machine, message->balloon, control_balloon_came, request->serial, &err);
        request_wait_process(request, status, &err, message->deadline_ms);
    }
}
