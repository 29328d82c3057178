/*
 * A 16550 in this process that sends at once: what the guest prints is collected, nothing is ever
 * received. All it does it does inside a register access, so that two machines which execute the
 * same instructions see the same port. Source: the PC16550D data sheet.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_SERIAL_PORT_H
#define POLYVISOR_TESTS_LOCKSTEP_SERIAL_PORT_H

#include "vmmd/vcpu/machine/bus.h"
#include <stddef.h>

struct serial_port {
    struct irq_line irq;
    uint8_t interrupt_enable, line_control, modem_control, fifo_control, scratch;
    uint8_t divisor[2];
    bool empty_pending; /* "transmitter empty" was not read from the identification register */
    uint64_t sent;      /* bytes */
    uint64_t hash;      /* of all of them */
    char recent[4096];  /* the latest: byte n of all is at n modulo the size */
};

/* `device` is the struct serial_port, which starts as all zero. */
extern const struct bus_ops serial_port_ops;

/* The registers and what was sent are the same. */
bool serial_port_same(const struct serial_port *a, const struct serial_port *b);
/* Bytes from number *from on, at most `size`; moves *from behind them. */
size_t serial_port_take(const struct serial_port *port, uint64_t *from, char *bytes, size_t size);

#endif
