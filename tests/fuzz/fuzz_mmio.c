/*
 * A hostile vcpud of the plain register devices: any accesses, ring positions, and saved registers
 * for the next process; and hostile console clients.
 */
#include "tests/fuzz/fuzz_device.h"

static struct fuzz_host host;
static const char *kind;

static struct mmio_channel *channel(void)
{
    return (struct mmio_channel *)host.state;
}

static void op_access(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint32_t head = atomic_load(&channel()->head);
    struct mmio_access *access = &channel()->ring[head % MMIO_CHANNEL_RING];

    access->offset = how >> 3;
    access->size = (uint8_t)(how & 1 ? 4 : 1);
    access->is_read = how & 2;
    access->value = fuzz_take(input, how & 1 ? 4 : 1);
    access->sequence++;
    if (how & 4) { /* the clock's registers */
        access->offset <<= 2;
    }
    atomic_store(&channel()->head, head + 1);
}

static void op_odd_access(struct fuzz_input *input)
{
    uint32_t head = atomic_load(&channel()->head);
    struct mmio_access *access = &channel()->ring[head % MMIO_CHANNEL_RING];

    access->offset = (uint32_t)fuzz_take(input, 4);
    access->size = (uint8_t)fuzz_take(input, 1);
    access->is_read = (uint8_t)fuzz_take(input, 1);
    access->value = fuzz_take(input, 8);
    atomic_store(&channel()->head, head + 1 + (uint32_t)fuzz_take(input, 2));
}

static void op_turn(struct fuzz_input *input)
{
    (void)input;
    device_settled(host.device);
    fuzz_turn(&host);
}

static void op_client(struct fuzz_input *input)
{
    fuzz_client(&host, input);
}

static void op_restart(struct fuzz_input *input)
{
    uint16_t at = (uint16_t)fuzz_take(input, 2);

    device_destroy(host.device);
    if (at >= 0xfff0) {
        fuzz_damage_console(&host, input);
    }
    if (at < sizeof(channel()->device_state)) {
        channel()->device_state[at] = (uint8_t)fuzz_take(input, 1);
    }
    fuzz_start(&host, kind, true);
    if (!host.device) {
        memset(channel()->device_state, 0, sizeof(channel()->device_state));
        fuzz_start(&host, kind, false);
    }
}

static void (*const operations[])(struct fuzz_input *) = {
    op_access, op_access, op_turn, op_client, op_restart, op_odd_access,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (!host.base) {
        fuzz_open(&host);
    }
    memset(host.state, 0, MMIO_STATE_SIZE);
    channel()->magic = MMIO_CHANNEL_MAGIC;
    channel()->version = MMIO_CHANNEL_VERSION;
    kind = fuzz_take(&input, 1) % 4 ? "serial" : "rtc";
    fuzz_start(&host, kind, false);
    while (input.size) {
        operations[fuzz_take(&input, 1) % (sizeof(operations) / sizeof(operations[0]))](&input);
    }
    fuzz_turn(&host);
    fuzz_end(&host);
    return 0;
}
