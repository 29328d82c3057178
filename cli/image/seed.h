/*
 * A disk that tells cloud-init what to make of a machine (its NoCloud data source): an ISO 9660
 * file system of the label "cidata" with the files user-data, meta-data and, if given,
 * network-config.
 *
 *   --cloud-init USER-DATA[,meta-data=FILE][,network-config=FILE]
 *
 * What cloud-init would not even complain of is refused here: user-data of no kind that it knows,
 * and YAML that is indented with tabs.
 */
#ifndef POLYVISOR_CLI_IMAGE_SEED_H
#define POLYVISOR_CLI_IMAGE_SEED_H

#include "cli/options.h"

#define SEED_FILE_MAX (UINT32_C(16) << 20)

struct seed_setting { /* owns its absolute paths */
    char *user_data, *meta_data, *network_config;
};

extern const struct option_type option_cloud_init; /* struct seed_setting */

/* Make the disk at `path`, a new file. Without meta-data the instance is called `name`, which
 * changes from start to start, so that cloud-init takes each for a new one. 0 or a negative code
 * with *err set. */
int seed_make(const struct seed_setting *setting, const char *name, const char *path,
              struct error *err);

#endif
