/*
 * A 16550A serial port (National Semiconductor PC16550D, June 1995), its line wired to the console.
 *
 * The line is infinitely fast outwards: a character leaves as it is written. Only when the
 * console is held by a lossless client does the transmitter stop being empty, early enough that a
 * guest which looks at LSR before it writes loses nothing.
 *
 * Inwards the port takes characters from the console only while there is room, like a line with
 * flow control, so it never overruns but in loopback. Two liberties keep typed characters from
 * being lost while a guest sets the port up, both invisible to it: a cleared receive FIFO gives
 * what it had not yet delivered back to the line, and until receive interrupts are enabled the line
 * pauses for a moment after the FIFO was cleared.
 */
#include "devd/device.h"
#include "devd/mmio.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum serial_offset {
    OFFSET_DATA = 0, /* RBR, THR; DLL with DLAB */
    OFFSET_IER = 1,  /* DLM with DLAB */
    OFFSET_IIR = 2,  /* FCR when written */
    OFFSET_LCR = 3,
    OFFSET_MCR = 4,
    OFFSET_LSR = 5,
    OFFSET_MSR = 6,
    OFFSET_SCR = 7,
    OFFSET_COUNT = 8
};

enum serial_ier { IER_RECEIVED = 1, IER_EMPTY = 2, IER_LINE = 4, IER_MODEM = 8, IER_BITS = 15 };
enum serial_iir {
    IIR_NONE = 1,
    IIR_MODEM = 0,
    IIR_EMPTY = 2,
    IIR_RECEIVED = 4,
    IIR_LINE = 6,
    IIR_TIMEOUT = 12,
    IIR_FIFO = 0xc0
};
enum serial_fcr { FCR_ENABLE = 1, FCR_CLEAR_RECEIVER = 2, FCR_DMA = 8, FCR_TRIGGER = 0xc0 };
enum serial_lcr { LCR_BREAK = 0x40, LCR_DIVISOR = 0x80 };
enum serial_mcr {
    MCR_DTR = 1,
    MCR_RTS = 2,
    MCR_OUT1 = 4,
    MCR_OUT2 = 8,
    MCR_LOOP = 16,
    MCR_BITS = 31
};
enum serial_lsr {
    LSR_READY = 1,
    LSR_OVERRUN = 2,
    LSR_PARITY = 4,
    LSR_FRAMING = 8,
    LSR_BREAK = 16,
    LSR_ERRORS = 30,
    LSR_HOLDING_EMPTY = 32,
    LSR_EMPTY = 64,
    LSR_FIFO_ERROR = 128
};
enum serial_msr { MSR_CTS = 16, MSR_DSR = 32, MSR_RI = 64, MSR_DCD = 128, MSR_LINES = 0xf0 };

#define FIFO_SIZE            16
#define REGISTERS_VERSION    2
#define INPUT_CLOCK_HZ       3686400 /* of the machine's device tree */
#define RECEIVER_PAUSE_US    100000
#define CHARACTER_TIMEOUT_US 50000 /* at most, for absurd divisors */

/* All that a restarted process needs. */
struct serial_registers {
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t msr;           /* lines and deltas */
    uint8_t overrun;       /* LSR_OVERRUN or 0 */
    uint8_t held;          /* transmitter waits for the console */
    uint8_t empty_pending; /* THR-empty interrupt not yet seen in IIR */
    uint8_t timed_out;     /* characters wait below the trigger level */
    uint8_t count;         /* in the receive FIFO */
    uint8_t returned_count;
    uint8_t fifo[FIFO_SIZE];         /* oldest first */
    uint8_t errors[FIFO_SIZE];       /* LSR error bits of each */
    uint8_t from_console[FIFO_SIZE]; /* 1: may go back to the line */
    uint8_t returned[FIFO_SIZE];     /* given back at a clear, to come again first */
    uint64_t output, input;          /* bytes that the console has of us and we of it, ever */
};
_Static_assert(sizeof(struct serial_registers) <= MMIO_REGISTERS_MAX, "fits the saved slot");

struct serial {
    struct serial_registers registers;
    struct event *timeout; /* four character times without traffic */
    struct event *pause;   /* the line pauses after a clear */
    bool paused;
};

static struct serial *serial_of(const struct device *device)
{
    return device->own;
}

/* ---- State that is derived ---- */

static bool fifo_enabled(const struct serial_registers *r)
{
    return r->fcr & FCR_ENABLE;
}

static unsigned receiver_size(const struct serial_registers *r)
{
    return fifo_enabled(r) ? FIFO_SIZE : 1;
}

static unsigned receiver_trigger(const struct serial_registers *r)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return fifo_enabled(r) ? levels[(r->fcr & FCR_TRIGGER) >> 6] : 1;
}

static uint8_t line_status(const struct serial_registers *r)
{
    uint8_t status = r->overrun;

    if (r->count) {
        status |= LSR_READY | r->errors[0];
    }
    if (fifo_enabled(r)) {
        for (unsigned i = 0; i < r->count; i++) {
            status |= r->errors[i] ? LSR_FIFO_ERROR : 0;
        }
    }
    if (!r->held) {
        status |= LSR_HOLDING_EMPTY | LSR_EMPTY;
    }
    return status;
}

/* Table 5 of the data sheet: the highest of the enabled causes. */
static uint8_t interrupt_cause(const struct serial_registers *r)
{
    if ((r->ier & IER_LINE) && (line_status(r) & LSR_ERRORS)) {
        return IIR_LINE;
    }
    if ((r->ier & IER_RECEIVED) && r->count >= receiver_trigger(r)) {
        return IIR_RECEIVED;
    }
    if ((r->ier & IER_RECEIVED) && r->timed_out) {
        return IIR_TIMEOUT;
    }
    if ((r->ier & IER_EMPTY) && r->empty_pending) {
        return IIR_EMPTY;
    }
    if ((r->ier & IER_MODEM) && (r->msr & ~MSR_LINES)) {
        return IIR_MODEM;
    }
    return IIR_NONE;
}

/* Modem lines as the guest sees them: a terminal that is always there, or in loopback its own
 * outputs. Deltas note a change, for RI only its end. */
static void modem_update(struct serial_registers *r)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;

    if (r->mcr & MCR_LOOP) {
        lines = (r->mcr & MCR_RTS ? MSR_CTS : 0) | (r->mcr & MCR_DTR ? MSR_DSR : 0) |
                (r->mcr & MCR_OUT1 ? MSR_RI : 0) | (r->mcr & MCR_OUT2 ? MSR_DCD : 0);
    }
    uint8_t changed = (r->msr ^ lines) & MSR_LINES;
    if (lines & MSR_RI) {
        changed &= (uint8_t)~MSR_RI;
    }
    r->msr = lines | (r->msr & (uint8_t)~MSR_LINES) | changed >> 4;
}

/* ---- Receiver ---- */

/* Four characters of start, eight data and stop bit, in microseconds. */
static long character_timeout_us(const struct serial_registers *r)
{
    uint64_t divisor = r->dll | r->dlm << 8;
    uint64_t wait = divisor * 16 * 40 * 1000000 / INPUT_CLOCK_HZ;
    return wait < CHARACTER_TIMEOUT_US ? (long)wait : CHARACTER_TIMEOUT_US;
}

/* Characters came or went: the time until a timeout interrupt starts again. */
static void timeout_restart(struct serial *serial)
{
    struct serial_registers *r = &serial->registers;

    r->timed_out = 0;
    if (fifo_enabled(r) && r->count) {
        struct timeval wait = {.tv_usec = character_timeout_us(r)};
        event_add(serial->timeout, &wait);
    } else {
        event_del(serial->timeout);
    }
}

static void receiver_push(struct serial *serial, uint8_t byte, uint8_t error, bool from_console)
{
    struct serial_registers *r = &serial->registers;

    if (r->count == receiver_size(r)) {
        r->overrun = LSR_OVERRUN;
        if (fifo_enabled(r)) {
            return; /* the FIFO keeps what it has */
        }
        r->count = 0; /* the buffer register is overwritten */
    }
    r->fifo[r->count] = byte;
    r->errors[r->count] = error;
    r->from_console[r->count] = from_console;
    r->count++;
    timeout_restart(serial);
}

static uint8_t receiver_pop(struct serial *serial)
{
    struct serial_registers *r = &serial->registers;
    uint8_t byte = r->fifo[0];

    if (r->count == 0) {
        return 0;
    }
    r->count--;
    memmove(r->fifo, r->fifo + 1, r->count);
    memmove(r->errors, r->errors + 1, r->count);
    memmove(r->from_console, r->from_console + 1, r->count);
    timeout_restart(serial);
    return byte;
}

/* Whether the line delivers characters now. */
static bool receiver_open(const struct serial *serial)
{
    const struct serial_registers *r = &serial->registers;
    return !(r->mcr & MCR_LOOP) && (!serial->paused || (r->ier & IER_RECEIVED));
}

/* Characters given back come before new ones. */
static void receiver_refill(struct serial *serial)
{
    struct serial_registers *r = &serial->registers;

    while (r->returned_count && r->count < receiver_size(r) && receiver_open(serial)) {
        receiver_push(serial, r->returned[0], 0, true);
        r->returned_count--;
        memmove(r->returned, r->returned + 1, r->returned_count);
    }
}

static void receiver_clear(struct serial *serial)
{
    struct serial_registers *r = &serial->registers;
    uint8_t back[2 * FIFO_SIZE];
    unsigned count = 0;

    for (unsigned i = 0; i < r->count; i++) {
        if (r->from_console[i]) {
            back[count++] = r->fifo[i];
        }
    }
    memcpy(back + count, r->returned, r->returned_count);
    count += r->returned_count;
    /* Never more than one FIFO: only when none is returned does the console deliver. */
    r->returned_count = (uint8_t)(count < FIFO_SIZE ? count : FIFO_SIZE);
    memcpy(r->returned, back, r->returned_count);
    r->count = 0;
    timeout_restart(serial);

    struct timeval wait = {.tv_usec = RECEIVER_PAUSE_US};
    serial->paused = true;
    event_add(serial->pause, &wait);
}

static void receiver_timed_out(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct serial_registers *r = &serial_of(device)->registers;

    (void)fd;
    (void)what;
    if (r->count) {
        r->timed_out = 1;
        mmio_device_update(device);
    }
}

static void receiver_resumed(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct serial *serial = serial_of(device);

    (void)fd;
    (void)what;
    serial->paused = false;
    receiver_refill(serial);
    mmio_device_update(device);
    console_input_resume(device->console);
}

static size_t serial_input_room(void *context)
{
    struct serial *serial = serial_of(context);
    struct serial_registers *r = &serial->registers;

    if (!receiver_open(serial) || r->returned_count) {
        return 0;
    }
    return receiver_size(r) - r->count;
}

static void serial_input(void *context, const uint8_t *bytes, size_t count)
{
    struct serial *serial = serial_of(context);

    for (size_t i = 0; i < count; i++) {
        receiver_push(serial, bytes[i], 0, true);
    }
    serial->registers.input += count;
    mmio_device_update(context);
}

/* ---- Transmitter ---- */

static void transmit(struct device *device, uint8_t byte)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;

    if (r->mcr & MCR_LOOP) {
        receiver_push(serial, byte, 0, false);
    } else {
        /* Only a guest that does not look at LSR writes past the headroom; like a real port's
         * FIFO this one then loses characters. */
        console_write(device->console, &byte, 1);
        r->output = console_position(device->console);
        r->held = console_held(device->console);
    }
    r->empty_pending = !r->held;
}

static void serial_output_released(void *context)
{
    struct serial_registers *r = &serial_of(context)->registers;

    r->held = 0;
    r->empty_pending = 1;
    mmio_device_update(context);
}

/* ---- Registers ---- */

static uint64_t read_data(struct device *device)
{
    struct serial *serial = serial_of(device);

    if (serial->registers.lcr & LCR_DIVISOR) {
        return serial->registers.dll;
    }
    uint8_t byte = receiver_pop(serial);
    receiver_refill(serial);
    console_input_resume(device->console);
    return byte;
}

static uint64_t read_ier(struct device *device)
{
    const struct serial_registers *r = &serial_of(device)->registers;
    return r->lcr & LCR_DIVISOR ? r->dlm : r->ier;
}

static uint64_t read_iir(struct device *device)
{
    struct serial_registers *r = &serial_of(device)->registers;
    uint8_t cause = interrupt_cause(r);

    if (cause == IIR_EMPTY) {
        r->empty_pending = 0;
    }
    return cause | (fifo_enabled(r) ? IIR_FIFO : 0);
}

static uint64_t read_lcr(struct device *device)
{
    return serial_of(device)->registers.lcr;
}

static uint64_t read_mcr(struct device *device)
{
    return serial_of(device)->registers.mcr;
}

static uint64_t read_lsr(struct device *device)
{
    struct serial_registers *r = &serial_of(device)->registers;
    uint8_t status = line_status(r);

    r->overrun = 0;
    r->errors[0] = 0;
    return status;
}

static uint64_t read_msr(struct device *device)
{
    struct serial_registers *r = &serial_of(device)->registers;
    uint8_t status = r->msr;

    r->msr &= MSR_LINES;
    return status;
}

static uint64_t read_scr(struct device *device)
{
    return serial_of(device)->registers.scr;
}

static void write_data(struct device *device, uint8_t value)
{
    struct serial_registers *r = &serial_of(device)->registers;

    if (r->lcr & LCR_DIVISOR) {
        r->dll = value;
    } else {
        transmit(device, value);
    }
}

static void write_ier(struct device *device, uint8_t value)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;

    if (r->lcr & LCR_DIVISOR) {
        r->dlm = value;
        return;
    }
    uint8_t added = (uint8_t)(value & ~r->ier);
    r->ier = value & IER_BITS;
    /* Enabling the interrupt while the transmitter is empty raises it. */
    if ((added & IER_EMPTY) && !r->held) {
        r->empty_pending = 1;
    }
    if (added & IER_RECEIVED) {
        receiver_refill(serial);
        console_input_resume(device->console);
    }
}

static void write_fcr(struct device *device, uint8_t value)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;
    bool toggled = (value ^ r->fcr) & FCR_ENABLE;

    /* Changing the enable bit clears both FIFOs; without it the other bits are not programmed. */
    if (toggled || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RECEIVER))) {
        receiver_clear(serial);
    }
    r->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
}

static void write_lcr(struct device *device, uint8_t value)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;
    bool breaks = (value & ~r->lcr) & LCR_BREAK;

    r->lcr = value;
    if (breaks && (r->mcr & MCR_LOOP)) {
        receiver_push(serial, 0, LSR_BREAK, false);
    }
}

static void write_mcr(struct device *device, uint8_t value)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;

    r->mcr = value & MCR_BITS;
    modem_update(r);
    receiver_refill(serial);
    console_input_resume(device->console);
}

static void write_nothing(struct device *device, uint8_t value)
{
    (void)device;
    (void)value;
}

static void write_scr(struct device *device, uint8_t value)
{
    serial_of(device)->registers.scr = value;
}

static const struct {
    uint64_t (*read)(struct device *device);
    void (*write)(struct device *device, uint8_t value);
} serial_register[OFFSET_COUNT] = {
    [OFFSET_DATA] = {read_data, write_data},  [OFFSET_IER] = {read_ier, write_ier},
    [OFFSET_IIR] = {read_iir, write_fcr},     [OFFSET_LCR] = {read_lcr, write_lcr},
    [OFFSET_MCR] = {read_mcr, write_mcr},     [OFFSET_LSR] = {read_lsr, write_nothing},
    [OFFSET_MSR] = {read_msr, write_nothing}, [OFFSET_SCR] = {read_scr, write_scr},
};

/* The port is eight bits wide: of a wider access only the low byte counts. */
static uint64_t serial_read(struct device *device, uint32_t offset, unsigned size)
{
    (void)size;
    return offset < OFFSET_COUNT ? serial_register[offset].read(device) : 0;
}

static void serial_write(struct device *device, uint32_t offset, unsigned size, uint64_t value)
{
    (void)size;
    if (offset < OFFSET_COUNT) {
        serial_register[offset].write(device, (uint8_t)value);
    }
}

static bool serial_interrupt(const struct device *device)
{
    return interrupt_cause(&serial_of(device)->registers) != IIR_NONE;
}

/* LSR may be read without asking while it holds no error bit, which a read would clear. */
static uint32_t serial_shadows(const struct device *device, uint64_t values[])
{
    uint8_t status = line_status(&serial_of(device)->registers);

    values[OFFSET_LSR] = status;
    return status & LSR_ERRORS ? 0 : 1u << OFFSET_LSR;
}

static void serial_restored(struct device *device)
{
    struct serial *serial = serial_of(device);
    struct serial_registers *r = &serial->registers;

    if (r->count > receiver_size(r)) {
        r->count = (uint8_t)receiver_size(r);
    }
    if (r->returned_count > FIFO_SIZE) {
        r->returned_count = FIFO_SIZE;
    }
    /* What was written after these registers were saved will be written again. */
    console_rewind(device->console, r->output);
    r->output = console_position(device->console);
    console_input_settle(device->console, r->input);
    r->input = console_input_position(device->console);
    if (r->held && !console_held(device->console)) {
        r->held = 0;
        r->empty_pending = 1;
    }
    uint8_t timed_out = r->timed_out;
    timeout_restart(serial);
    r->timed_out = timed_out;
}

static const struct console_operations serial_console = {
    .input_room = serial_input_room,
    .input = serial_input,
    .output_released = serial_output_released,
};

static int serial_init(struct device *device, struct error *err)
{
    struct serial *serial = calloc(1, sizeof(*serial));

    if (!serial) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = serial;
    device->registers = &serial->registers;
    serial->registers.dll = 2; /* 115200 baud */
    modem_update(&serial->registers);
    serial->registers.msr &= MSR_LINES;
    serial->registers.empty_pending = 1;
    serial->timeout = event_new(device->base, -1, 0, receiver_timed_out, device);
    serial->pause = event_new(device->base, -1, 0, receiver_resumed, device);
    if (!serial->timeout || !serial->pause) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

static void serial_destroy(struct device *device)
{
    struct serial *serial = serial_of(device);

    if (!serial) {
        return;
    }
    if (serial->timeout) {
        event_free(serial->timeout);
    }
    if (serial->pause) {
        event_free(serial->pause);
    }
    free(serial);
}

DEVICE_MODEL(serial) = {
    .kind = "serial",
    .device_class = DEVICE_MMIO,
    .console = &serial_console,
    .init = serial_init,
    .destroy = serial_destroy,
    .mmio =
        {
            .read = serial_read,
            .write = serial_write,
            .interrupt = serial_interrupt,
            .shadows = serial_shadows,
            .restored = serial_restored,
            .registers_version = REGISTERS_VERSION,
            .registers_size = sizeof(struct serial_registers),
        },
};
