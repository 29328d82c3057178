#include "tests/lockstep/serial_port.h"

enum {
    DATA = 0, /* and, with the latch open, the divisor */
    INTERRUPT_ENABLE = 1,
    IDENTIFICATION = 2, /* written: FIFO control */
    LINE_CONTROL = 3,
    MODEM_CONTROL = 4,
    LINE_STATUS = 5,
    MODEM_STATUS = 6,
    SCRATCH = 7,
};
enum { ENABLE_EMPTY = 2, LATCH = 0x80, FIFO_ENABLE = 1, FIFOS_ON = 0xc0, LOOPBACK = 0x10 };
enum { NONE_PENDING = 1, EMPTY_PENDING = 2 };
enum { TRANSMITTER_EMPTY = 0x60, CARRIER_AND_READY = 0xb0 };

static void update_line(struct serial_port *port)
{
    irq_line_set(&port->irq, port->empty_pending && (port->interrupt_enable & ENABLE_EMPTY));
}

static uint8_t identify(struct serial_port *port)
{
    uint8_t fifos = port->fifo_control & FIFO_ENABLE ? FIFOS_ON : 0;
    if (port->empty_pending && (port->interrupt_enable & ENABLE_EMPTY)) {
        port->empty_pending = false;
        return fifos | EMPTY_PENDING;
    }
    return fifos | NONE_PENDING;
}

/* In loopback the outputs DTR, RTS, OUT1 and OUT2 come back as DSR, CTS, RI and DCD. */
static uint8_t modem_status(const struct serial_port *port)
{
    uint8_t out = port->modem_control;
    if (!(out & LOOPBACK)) {
        return CARRIER_AND_READY;
    }
    return (uint8_t)((out & 1) << 5 | (out & 2) << 3 | (out & 4) << 4 | (out & 8) << 4);
}

static uint8_t read_register(struct serial_port *port, uint64_t offset)
{
    bool latch = port->line_control & LATCH;
    switch (offset) {
    case DATA:
        return latch ? port->divisor[0] : 0;
    case INTERRUPT_ENABLE:
        return latch ? port->divisor[1] : port->interrupt_enable;
    case IDENTIFICATION:
        return identify(port);
    case LINE_CONTROL:
        return port->line_control;
    case MODEM_CONTROL:
        return port->modem_control;
    case LINE_STATUS:
        return TRANSMITTER_EMPTY;
    case MODEM_STATUS:
        return modem_status(port);
    case SCRATCH:
        return port->scratch;
    default:
        return 0;
    }
}

static void send(struct serial_port *port, uint8_t byte)
{
    port->recent[port->sent++ % sizeof(port->recent)] = (char)byte;
    port->hash = (port->hash ^ byte) * UINT64_C(0x100000001b3);
    port->empty_pending = true;
}

static void write_register(struct serial_port *port, uint64_t offset, uint8_t value)
{
    bool latch = port->line_control & LATCH;
    if (latch && offset <= INTERRUPT_ENABLE) {
        port->divisor[offset] = value;
        return;
    }
    switch (offset) {
    case DATA:
        if (!(port->modem_control & LOOPBACK)) {
            send(port, value);
        }
        break;
    case INTERRUPT_ENABLE:
        port->empty_pending |= (value & ~port->interrupt_enable & ENABLE_EMPTY) != 0;
        port->interrupt_enable = value & 0x0f;
        break;
    case IDENTIFICATION:
        port->fifo_control = value;
        break;
    case LINE_CONTROL:
        port->line_control = value;
        break;
    case MODEM_CONTROL:
        port->modem_control = value & 0x1f;
        break;
    case SCRATCH:
        port->scratch = value;
        break;
    default:
        break;
    }
}

static bool serial_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct serial_port *port = device;
    (void)size;
    *value = read_register(port, offset);
    update_line(port);
    return true;
}

static bool serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial_port *port = device;
    (void)size;
    write_register(port, offset, (uint8_t)value);
    update_line(port);
    return true;
}

const struct bus_ops serial_port_ops = {.read = serial_read, .write = serial_write};

bool serial_port_same(const struct serial_port *a, const struct serial_port *b)
{
    return a->interrupt_enable == b->interrupt_enable && a->line_control == b->line_control &&
           a->modem_control == b->modem_control && a->fifo_control == b->fifo_control &&
           a->scratch == b->scratch && a->divisor[0] == b->divisor[0] &&
           a->divisor[1] == b->divisor[1] && a->empty_pending == b->empty_pending &&
           a->sent == b->sent && a->hash == b->hash;
}

size_t serial_port_take(const struct serial_port *port, uint64_t *from, char *bytes, size_t size)
{
    size_t count = 0;
    if (port->sent - *from > sizeof(port->recent)) {
        *from = port->sent - sizeof(port->recent);
    }
    while (*from < port->sent && count < size) {
        bytes[count++] = port->recent[(*from)++ % sizeof(port->recent)];
    }
    return count;
}
