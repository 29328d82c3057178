/*
 * Building an image: image/build-image does it, in a process group of its own; this watches it,
 * tells how far it is, ends it when we are told to end, and puts the finished disk in its place.
 */
#ifndef POLYVISOR_CLI_IMAGE_BUILD_H
#define POLYVISOR_CLI_IMAGE_BUILD_H

#include "cli/command.h"

#define BUILD_SUITE_MAX    32
#define BUILD_HOSTNAME_MAX 63
#define BUILD_SIZE_MIN     (UINT64_C(1) << 30)
#define BUILD_SIZE_MAX     (UINT64_C(1) << 44)

struct image_build {
    const char *arch;
    char suite[BUILD_SUITE_MAX + 1];
    char *packages; /* separated by spaces, allocated; "" for none */
    uint64_t size;  /* bytes of the disk */
    const char *hostname;
    const char *password; /* of root; NULL: none is needed at the console */
    const char *ssh_key;  /* file of public keys that may log in as root, or NULL */
    const char *script;   /* file, or NULL */
    const char *mirror;   /* or NULL: this machine's */
    const char *output;   /* absolute path; replaced if it exists */
};

/* "debian:SUITE". 0 or -ERROR_USAGE, -ERROR_UNSUPPORTED with *err set. */
int image_build_parse_source(const char *text, char suite[BUILD_SUITE_MAX + 1], struct error *err);
/* Names of packages separated by commas, checked, into a list separated by spaces to be freed. NULL
 * with *err set. `more` (or NULL) is one more name. */
char *image_build_parse_packages(const char *text, const char *more, struct error *err);
/* Whether it is a name that a host may have (RFC 1123, 2.1; one label). */
bool image_build_hostname_valid(const char *name);

/* One line that the recipe says, split in place at its tabs. */
struct build_report {
    const char *kind; /* "stage", "progress", "error" */
    const char *words[3];
};
void image_build_parse_report(char *line, struct build_report *report);

/* Build it. 0, 128 + a signal's number when one ended it, or a negative code with *err set. */
int image_build_run(const struct image_build *build, const struct invocation *invocation,
                    struct error *err);

#endif
