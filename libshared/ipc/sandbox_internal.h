/* What the files of the sandbox share. */
#ifndef POLYVISOR_IPC_SANDBOX_INTERNAL_H
#define POLYVISOR_IPC_SANDBOX_INTERNAL_H

#include <stdbool.h>

/* Sanitizers need /proc and system calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer) ||                           \
    __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANDBOX_SANITIZED true
#else
#define SANDBOX_SANITIZED false
#endif

struct sandbox_isolation;

/* Leave of what is in view what the process needs, where the kernel can: sandbox_paths.c. 0, or -1
 * with errno set. Before there are threads, since others would not be restricted. */
int sandbox_restrict_paths(const struct sandbox_isolation *isolation);

/* Have whoever deletes a file be told that it is gone, from now on: a process that ends before it
 * is sealed closes its sockets, too. 0, or -1 with errno set. */
int sandbox_pretend_unlinked(void);

#endif
