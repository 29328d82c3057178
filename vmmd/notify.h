/* Tell systemd that the service is up (sd_notify(3)'s protocol: one datagram), when it asked. */
#ifndef POLYVISOR_VMMD_NOTIFY_H
#define POLYVISOR_VMMD_NOTIFY_H

/* `state` is for example "READY=1". Does nothing outside systemd. */
void notify_systemd(const char *state);

#endif
