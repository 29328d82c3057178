/*
 * vcpud's end of a plain register device, whose process writes anything into the page they share:
 * any access of the guest ends, within its deadline.
 */
#include "libshared/base/log.h"
#include "tests/fuzz/fuzz_clock.h"
#include "tests/fuzz/fuzz_input.h"
#include "vmmd/vcpu/device/mmio_client.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 100

static struct mmio_channel *channel;
static int kick, reply;
static struct fuzz_input *device_input;

/* ---- the device process: it acts when a CPU waits ---- */

static void act(void)
{
    struct fuzz_input *input = device_input;
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint32_t head = atomic_load(&channel->head);
    const struct mmio_access *last = &channel->ring[(head - 1) % MMIO_CHANNEL_RING];

    switch (how & 7) {
    case 0:
    case 1: /* an answer as it should be */
        atomic_store(&channel->tail, head);
        atomic_store(&channel->answer_value, fuzz_number(input));
        atomic_store(&channel->answer_sequence, last->sequence);
        eventfd_write(reply, 1);
        break;
    case 2:
        atomic_store(&channel->tail, (uint32_t)fuzz_number(input));
        break;
    case 3:
        atomic_store(&channel->answer_sequence, fuzz_number(input));
        eventfd_write(reply, 1);
        break;
    case 4:
        atomic_store(&channel->shadow_valid, (uint32_t)fuzz_number(input));
        atomic_store(&channel->shadow[how >> 4], fuzz_number(input));
        break;
    case 5:
        atomic_store(&channel->device_sleeps, how >> 4);
        atomic_store(&channel->irq_level, how >> 3);
        break;
    case 6:
        ((uint8_t *)channel)[8 + fuzz_number(input) % (MMIO_STATE_SIZE - 8)] =
            (uint8_t)fuzz_take(input, 1);
        break;
    default: /* it says nothing */
        break;
    }
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    (void)mask, (void)count;
    fuzz_require(timeout != NULL, "no CPU waits for ever");
    act();
    fds->revents = POLLIN;
    atomic_fetch_add(&fuzz_now_ns, 1000000);
    return 1;
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
    (void)left;
    act();
    atomic_fetch_add(&fuzz_now_ns, (uint64_t)time->tv_nsec + 1000000);
    return 0;
}

/* ---- vcpud ---- */

static unsigned slow_calls, silent_calls, level_calls;

static void slow(void *context)
{
    (void)context;
    slow_calls++;
}

static void unresponsive(void *context)
{
    (void)context;
    silent_calls++;
}

static void set_level(void *controller, unsigned number, bool level)
{
    (void)controller, (void)number, (void)level;
    level_calls++;
}

static void guest(struct mmio_client *client, struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned size = 1u << (how & 3);
    uint64_t value = 0, offset = how & 0x80 ? fuzz_number(input) & 0xffffffff : how >> 3 & 15;
    uint64_t before = atomic_load(&fuzz_now_ns);

    switch (how >> 2 & 7) {
    case 0:
    case 1:
    case 2:
        MMIO_CLIENT_OPS.read(client, offset, size, &value);
        fuzz_require(size == 8 || value >> (8 * size) == 0, "a read has its width");
        break;
    case 3:
    case 4:
        for (unsigned count = how & 0x40 ? 600 : 1; count > 0; count--) { /* more than fit */
            MMIO_CLIENT_OPS.write(client, offset, size, fuzz_number(input));
        }
        break;
    case 5:
        mmio_client_update_irq(client);
        break;
    case 6:
        mmio_client_reset(client);
        break;
    default:
        act();
        break;
    }
    /* Twice: a reset writes and may wait for room more than once, but not with a dead device. */
    fuzz_require(atomic_load(&fuzz_now_ns) - before < UINT64_C(5000000) * DEADLINE_MS * 2,
                 "an access ends in time");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    const struct irq_line irq = {.set = set_level};

    if (!channel) {
        setenv("POLYVISOR_LOG", "error", 1);
        log_open("fuzz");
        channel =
            mmap(NULL, MMIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        reply = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        fuzz_require(channel != MAP_FAILED, "memory");
    }
    memset(channel, 0, MMIO_STATE_SIZE);
    channel->magic = MMIO_CHANNEL_MAGIC;
    channel->version = MMIO_CHANNEL_VERSION;
    device_input = &input;
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    if (how & 2) { /* what an earlier vcpud and device left */
        atomic_store(&channel->head, (uint32_t)fuzz_number(&input));
        atomic_store(&channel->tail, (uint32_t)fuzz_number(&input));
    }
    struct mmio_client_config config = {
        .name = "fuzz0",
        .kind = how & 1 ? "serial" : "rtc",
        .channel = channel,
        .kick = kick,
        .reply = reply,
        .deadline_ms = DEADLINE_MS,
        .slow_ms = DEADLINE_MS / 4,
        .slow = slow,
        .unresponsive = unresponsive,
    };
    struct mmio_client *client = mmio_client_create(&config);
    fuzz_require(client != NULL, "memory");
    mmio_client_set_irq(client, &irq);
    while (input.size) {
        guest(client, &input);
    }
    mmio_client_destroy(client);
    return 0;
}
