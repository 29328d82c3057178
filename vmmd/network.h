/*
 * What vmmd knows of the networks of machines: it completes and checks the settings of cards, and
 * finds out early, and with the right words, what the host will refuse. Nothing here waits.
 */
#ifndef POLYVISOR_VMMD_NETWORK_H
#define POLYVISOR_VMMD_NETWORK_H

#include "libshared/base/error.h"
#include "libshared/net/setting.h"
#include "proto/control.pb-c.h"

#define CONFIG_NETS_MAX 8

/* Check the settings of all cards and give each without an Ethernet address one: it is made from
 * the runtime directory, the machine's name and the card's number, so it stays. The texts in
 * `config` are replaced by complete ones. 0 or a negative code (CONFIG, INTERNAL). */
int network_complete(Polyvisor__MachineConfig *config, const char *directory, struct error *err);
/* Check that the host would let the machine have them now: ports, interfaces. 0 or a negative code
 * (BUSY, PERMISSION, CONFIG, UNSUPPORTED, IO). */
int network_check_host(const Polyvisor__MachineConfig *config, struct error *err);
/* The same for the ports of one card. */
int network_check_forwards(const struct net_setting *setting, struct error *err);

#endif
