/*
 * What `--watchdog` says. vmctl checks the text early, vmmd keeps it.
 *
 *   [sunxi,]action=reset|poweroff|pause|report|none
 *
 * The model is the one that stock riscv64 kernels have a driver for: that of Allwinner's chips.
 */
#ifndef POLYVISOR_WATCHDOG_SETTING_H
#define POLYVISOR_WATCHDOG_SETTING_H

#include "libshared/base/error.h"

/* What becomes of a machine whose guest has not fed its watchdog in time. */
enum watchdog_action {
    WATCHDOG_RESET,    /* as the chip would */
    WATCHDOG_POWEROFF, /* the machine ends */
    WATCHDOG_PAUSE,    /* it is held, until it is started again */
    WATCHDOG_REPORT,   /* it goes on, and there is an event */
    WATCHDOG_NONE,     /* it goes on */
};

/* Read `text`. 0, or the negative `code` (of the kind of error that a wrong text is to the caller)
 * with *err set. */
int watchdog_setting_parse(const char *text, enum error_code code, enum watchdog_action *action,
                           struct error *err);

#endif
