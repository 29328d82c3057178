/* vmctl image: disks with a system on them. No vmmd is asked. */
#include "cli/image/build.h"
#include "cli/image/image_file.h"
#include "cli/image/store.h"
#include "cli/output.h"
#include "cli/values.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct image_settings {
    const char *arch, *packages, *hostname, *password, *mirror, *name;
    char *output, *ssh_key, *script;
    uint64_t size;
    bool replace;
};

static const struct option_spec options[] = {
    {.name = "arch",
     .type = &option_choice,
     .argument = "ARCH",
     .choices = "riscv64|arm64|x86_64",
     .default_value = "riscv64",
     .summary = "build: the instruction set of its machines",
     .offset = offsetof(struct image_settings, arch)},
    {.name = "packages",
     .type = &option_text,
     .argument = "NAME[,NAME...]",
     .summary = "build: install these, too, with what they depend on",
     .offset = offsetof(struct image_settings, packages)},
    {.name = "size",
     .type = &option_size,
     .argument = "SIZE",
     .default_value = "2G",
     .summary = "build: the size of the disk; it takes room on the host only where it is used",
     .offset = offsetof(struct image_settings, size)},
    {.name = "hostname",
     .type = &option_text,
     .argument = "NAME",
     .summary = "build: what its machines are called (default: the suite)",
     .offset = offsetof(struct image_settings, hostname)},
    {.name = "root-password",
     .type = &option_text,
     .argument = "TEXT",
     .summary = "build: the password of root at the console; without one none is needed there",
     .offset = offsetof(struct image_settings, password)},
    {.name = "ssh-key",
     .type = &option_file,
     .argument = "FILE",
     .summary = "build: public keys that may log in as root; also installs openssh-server",
     .offset = offsetof(struct image_settings, ssh_key)},
    {.name = "script",
     .type = &option_file,
     .argument = "FILE",
     .summary = "build: run this program in the new system at the end, as root and with a network",
     .offset = offsetof(struct image_settings, script)},
    {.name = "mirror",
     .type = &option_text,
     .argument = "URL",
     .summary = "build: fetch packages from there (default: where this machine does)",
     .offset = offsetof(struct image_settings, mirror)},
    {.name = "name",
     .type = &option_name,
     .argument = "NAME",
     .summary = "build: what the image is called (default: as in debian-trixie-riscv64)",
     .offset = offsetof(struct image_settings, name)},
    {.name = "output",
     .letter = 'o',
     .type = &option_file,
     .argument = "FILE",
     .summary = "build: make this file instead of an image with a name",
     .offset = offsetof(struct image_settings, output)},
    {.name = "replace",
     .type = &option_flag,
     .summary = "build: take the place of an image that is there already",
     .offset = offsetof(struct image_settings, replace)},
    {.name = NULL},
};

/* ---- build ---- */

/* What is wrong with the settings, before anything is begun. */
static int check(const struct image_settings *settings, struct error *err)
{
    if (strcmp(settings->arch, "riscv64") != 0) {
        error_set(err, ERROR_UNSUPPORTED, 0, "no images are built for %s", settings->arch);
        error_hint(err, "riscv64 is what there is");
        return -ERROR_UNSUPPORTED;
    }
    if (settings->size < BUILD_SIZE_MIN || settings->size > BUILD_SIZE_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "--size: an image has from 1 GiB to 16 TiB");
    }
    if (settings->hostname != NULL && !image_build_hostname_valid(settings->hostname)) {
        error_set(err, ERROR_USAGE, 0, "--hostname: '%.80s' is not the name of a host",
                  settings->hostname);
        error_hint(err, "letters, digits and '-', at most 63, with '-' neither first nor last");
        return -ERROR_USAGE;
    }
    if (settings->password != NULL && strpbrk(settings->password, ":\n") != NULL) {
        return error_set(err, ERROR_USAGE, 0, "--root-password: neither ':' nor a line feed");
    }
    const char *const files[] = {settings->ssh_key, settings->script};
    for (size_t i = 0; i < 2; i++) {
        if (files[i] != NULL && access(files[i], R_OK) != 0) {
            return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_PERMISSION, errno,
                             "cannot read '%.200s': %s", files[i], strerror(errno));
        }
    }
    return 0;
}

/* Where the image goes, and that it may. */
static int choose_output(const struct image_settings *settings, const char *suite,
                         char path[PATH_MAX], char name[MACHINE_NAME_MAX + 1], struct error *err)
{
    int status = 0;

    name[0] = '\0';
    if (settings->output != NULL) {
        if (settings->name != NULL) {
            return error_set(err, ERROR_USAGE, 0, "an image has a --name or a file with -o");
        }
        snprintf(path, PATH_MAX, "%s", settings->output);
    } else {
        if (settings->name != NULL) {
            snprintf(name, MACHINE_NAME_MAX + 1, "%s", settings->name);
        } else if (snprintf(name, MACHINE_NAME_MAX + 1, "debian-%s-%s", suite, settings->arch) >
                   MACHINE_NAME_MAX) {
            return error_set(err, ERROR_USAGE, 0, "the image needs a --name");
        }
        status = store_make_directory(path, err);
        status = status == 0 ? store_path(name, path, err) : status;
    }
    if (status == 0 && !settings->replace && access(path, F_OK) == 0) {
        error_set(err, ERROR_EXISTS, EEXIST, "'%.200s' is there already",
                  name[0] != '\0' ? name : path);
        error_hint(err, "--replace takes its place%s",
                   name[0] != '\0' ? "; --name gives another one" : "");
        return -ERROR_EXISTS;
    }
    if (status == 0) {
        char *slash = strrchr(path, '/');
        *slash = '\0';
        if (access(slash == path ? "/" : path, W_OK) != 0) {
            status = error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_NOT_FOUND, errno,
                               "cannot make a file in '%.200s': %s", path, strerror(errno));
        }
        *slash = '/';
    }
    return status;
}

static int report_build(const struct invocation *invocation, const char *path, const char *name,
                        struct error *err)
{
    if (invocation->globals->json) {
        json_t *object = json_pack("{s:o}", "image", output_json_text(path));
        if (name[0] != '\0') {
            json_object_set_new(object, "name", output_json_text(name));
        }
        return output_json_line(object, err);
    }
    output_status(invocation->globals, "vmctl run --image %s boots it", name[0] ? name : path);
    return 0;
}

static int build(const struct invocation *invocation, struct error *err)
{
    const struct image_settings *settings = invocation->settings;
    struct image_build build = {.arch = settings->arch,
                                .size = settings->size,
                                .password = settings->password,
                                .ssh_key = settings->ssh_key,
                                .script = settings->script,
                                .mirror = settings->mirror};
    char path[PATH_MAX], name[MACHINE_NAME_MAX + 1];
    int status = image_build_parse_source(invocation->positionals[1], build.suite, err);

    status = status == 0 ? check(settings, err) : status;
    status = status == 0 ? choose_output(settings, build.suite, path, name, err) : status;
    if (status != 0) {
        return status;
    }
    build.packages = image_build_parse_packages(
        settings->packages, settings->ssh_key != NULL ? "openssh-server" : NULL, err);
    if (build.packages == NULL) {
        return -(int)err->code;
    }
    build.hostname = settings->hostname != NULL ? settings->hostname : build.suite;
    build.output = path;
    status = image_build_run(&build, invocation, err);
    free(build.packages);
    return status == 0 ? report_build(invocation, path, name, err) : status;
}

/* ---- list and show ---- */

static json_t *image_json(const char *name, const char *path, const struct image_file *image)
{
    const struct image_properties *properties = &image->properties;
    json_t *object = json_pack(
        "{s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "file",
        output_json_text(path), "bytes", (json_int_t)image->bytes, "used_bytes",
        (json_int_t)image->used_bytes, "arch", output_json_text(properties->arch), "distribution",
        output_json_text(properties->distribution), "suite", output_json_text(properties->suite),
        "kernel", output_json_text(properties->kernel), "built",
        output_json_text(properties->built), "packages", output_json_text(properties->packages),
        "command_line", output_json_text(image->command_line), "polyvisor",
        output_json_text(properties->polyvisor), "agent", output_json_text(properties->agent));

    if (name != NULL) {
        json_object_set_new(object, "name", output_json_text(name));
    }
    return object;
}

/* The version of polyvisor that made it; those of before 0.1.0 do not say. */
static const char *made_by(const struct image_properties *properties)
{
    return properties->polyvisor[0] != '\0' ? properties->polyvisor : "unknown";
}

struct listing {
    json_t *array; /* NULL: a table */
    struct output_table table;
};

/* One that is damaged is listed all the same, so that it can be removed. */
static int list_one(void *context, const char *name, const char *path, struct error *err)
{
    struct listing *listing = context;
    struct image_file image;
    struct error reason = {0};
    int status = image_file_open(&image, path, &reason);

    (void)err;
    if (listing->array != NULL) {
        json_array_append_new(listing->array,
                              status == 0
                                  ? image_json(name, path, &image)
                                  : json_pack("{s:o, s:o, s:o}", "name", output_json_text(name),
                                              "file", output_json_text(path), "error",
                                              output_json_text(reason.message)));
    } else if (status == 0) {
        char size[32], used[32], system[80];
        value_format_size(image.bytes, size, sizeof(size));
        value_format_size(image.used_bytes, used, sizeof(used));
        snprintf(system, sizeof(system), "%s %s", image.properties.distribution,
                 image.properties.suite);
        output_table_add(&listing->table, name);
        output_table_add(&listing->table, system);
        output_table_add(&listing->table, image.properties.arch);
        output_table_add(&listing->table, size);
        output_table_add(&listing->table, used);
        output_table_add(&listing->table, image.properties.built);
        output_table_add(&listing->table, made_by(&image.properties));
    } else {
        static const char *const cells[] = {"(damaged)", "", "", "", "", ""};
        output_table_add(&listing->table, name);
        for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
            output_table_add(&listing->table, cells[i]);
        }
    }
    if (status == 0) {
        image_file_close(&image);
    }
    return 0;
}

static int list(const struct invocation *invocation, struct error *err)
{
    static const char *const columns[] = {"NAME",    "SYSTEM", "ARCH", "SIZE",
                                          "ON DISK", "BUILT",  "BY"};
    struct listing listing = {.array = invocation->globals->json ? json_array() : NULL};

    if (listing.array != NULL) {
        int status = store_walk(list_one, &listing, err);
        if (status != 0) {
            json_decref(listing.array);
        }
        return status == 0 ? output_json(listing.array, err) : status;
    }
    output_table_open(&listing.table, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
        output_table_add(&listing.table, columns[i]);
    }
    int status = store_walk(list_one, &listing, err);
    int printed = output_table_print(&listing.table, stdout, status == 0 ? err : NULL);
    return status != 0 ? status : printed;
}

static void print_line(const char *label, const char *value)
{
    if (value[0] != '\0') {
        printf("%-13s", label);
        output_printable(stdout, value);
        putchar('\n');
    }
}

static int show(const struct invocation *invocation, struct error *err)
{
    char path[PATH_MAX], text[96], size[32], used[32];
    struct image_file image;
    int status = store_resolve(invocation->positionals[1], path, err);

    status = status == 0 ? image_file_open(&image, path, err) : status;
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json) {
        status = output_json(image_json(NULL, path, &image), err);
    } else {
        value_format_size(image.bytes, size, sizeof(size));
        value_format_size(image.used_bytes, used, sizeof(used));
        print_line("File:", path);
        snprintf(text, sizeof(text), "%s %s", image.properties.distribution,
                 image.properties.suite);
        print_line("System:", text);
        print_line("Arch:", image.properties.arch);
        snprintf(text, sizeof(text), "%s, %s of it on this disk", size, used);
        print_line("Size:", text);
        print_line("Kernel:", image.properties.kernel);
        print_line("Built:", image.properties.built);
        snprintf(text, sizeof(text), "polyvisor %s%s%s", made_by(&image.properties),
                 image.properties.agent[0] != '\0' ? ", its agent speaks version " : "",
                 image.properties.agent);
        print_line("Made by:", text);
        print_line("Packages:", image.properties.packages);
        print_line("Command line:", image.command_line);
        status = output_flush(err);
    }
    image_file_close(&image);
    return status;
}

/* ---- rm ---- */

static int rm(const struct invocation *invocation, struct error *err)
{
    const char *name = invocation->positionals[1];
    char path[PATH_MAX];
    int status = store_path(name, path, err);

    if (status != 0) {
        return status;
    }
    if (unlink(path) < 0) {
        error_set(err,
                  errno == ENOENT   ? ERROR_NOT_FOUND
                  : errno == EACCES ? ERROR_PERMISSION
                                    : ERROR_IO,
                  errno, "cannot remove the image '%.80s': %s", name, strerror(errno));
        error_hint(err, "'vmctl image list' shows those there are");
        return -(int)err->code;
    }
    if (invocation->globals->json) {
        return output_json(json_pack("{s:o}", "name", output_json_text(name)), err);
    }
    output_status(invocation->globals, "%s removed", name);
    return 0;
}

/* ---- the command ---- */

static const struct command_action actions[] = {
    {"build", "debian:SUITE", 1, 1, build},
    {"list", "", 0, 0, list},
    {"show", "NAME|FILE", 1, 1, show},
    {"rm", "NAME", 1, 1, rm},
    {.name = NULL},
};

const struct command command_image = {
    .name = "image",
    .summary = "build, list, show or remove images of whole systems",
    .description =
        "build makes a disk with a Debian system that 'vmctl run --image' boots. Packages are "
        "fetched from this machine's own mirror and their signatures verified; they are unpacked "
        "here and configured in a machine of polyvisor's, so that neither root nor another "
        "emulator is needed. What was fetched is kept in the cache for the next build.\n"
        "The system has systemd, addresses by DHCP, a login at the console (root, without a "
        "password unless --root-password gives one), and the agent that exec and cp talk to. "
        "The root file system grows with the disk at each start. Every copy becomes a machine of "
        "its own: its id and ssh key are made at its first start.\n"
        "Images with a name are in $POLYVISOR_IMAGE_DIR, else $XDG_DATA_HOME/polyvisor/images, "
        "else /var/lib/polyvisor/images for root and ~/.local/share/polyvisor/images for others. "
        "list shows them, rm removes one, show tells about any, and which version of polyvisor "
        "made it. With --json build prints a line "
        "for each step.\n"
        "Ctrl-C ends a build and leaves nothing of it. One that fails says where its log is.\n",
    .options = options,
    .settings_size = sizeof(struct image_settings),
    .positional = POSITIONAL_ACTION,
    .actions = actions,
    .examples = {{"vmctl image build debian:trixie", "An image called debian-trixie-riscv64"},
                 {"vmctl image build debian:trixie --packages build-essential,git --size 8G "
                  "--name builder",
                  "One with a compiler"},
                 {"vmctl image build debian:trixie --ssh-key ~/.ssh/id_ed25519.pub -o disk.img",
                  "A file, with an ssh server that takes your key"},
                 {"vmctl run --image builder", "Boot it"},
                 {"vmctl --json image list", "The images with a name, for programs"}},
};
