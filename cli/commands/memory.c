/* vmctl memory: how much memory a machine has, and that it is fixed. */
#include "cli/client.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/values.h"

static int print_memory(const struct invocation *invocation, uint64_t bytes, struct error *err)
{
    struct output_table table;
    char text[32];

    if (invocation->globals->json) {
        return output_json(json_pack("{s:o, s:I, s:I, s:b}", "name",
                                     output_json_text(invocation->positionals[0]), "memory_bytes",
                                     (json_int_t)bytes, "maximum_bytes", (json_int_t)bytes,
                                     "resizable", 0),
                           err);
    }
    value_format_size(bytes, text, sizeof(text));
    output_table_open(&table, 2);
    output_table_add(&table, "Machine:");
    output_table_add(&table, text);
    output_table_add(&table, "At most:");
    output_table_add(&table, text);
    output_table_add(&table, "Resizable:");
    output_table_add(&table, "no; the guest can give some back: 'vmctl balloon'");
    return output_table_print(&table, stdout, err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    uint64_t wanted = 0;

    if (invocation->positional_count > 1 &&
        value_parse_size(invocation->positionals[1], &wanted) != 0) {
        error_set(err, ERROR_USAGE, 0, "'%.40s' is no size", invocation->positionals[1]);
        error_hint(err, "bytes, or a number with K, M, G or T: 512M");
        return -ERROR_USAGE;
    }
    int status =
        client_ask_machine(invocation, invocation->positionals[0], &response, &machine, err);
    if (status != 0) {
        return status;
    }
    uint64_t bytes = machine->config->memory_bytes;
    client_free(response);
    if (invocation->positional_count > 1 && wanted != bytes) {
        return machine_memory_is_fixed(err);
    }
    return print_memory(invocation, bytes, err);
}

const struct command command_memory = {
    .name = "memory",
    .summary = "show how much memory a machine has",
    .usage = "NAME [SIZE]",
    .description =
        "A machine has the memory that it was created with (--memory), which is all it can have. "
        "SIZE "
        "wants another amount and is answered with the error 'unsupported': to grow while it runs "
        "a guest needs virtio-mem, whose driver stock Debian kernels for riscv64 do not have "
        "(CONFIG_VIRTIO_MEM is not set), so machines do not have the device. '--memory "
        "SIZE,max=SIZE' is answered in the same way.\n"
        "What to do instead: create the machine with as much as it will ever need. Memory that the "
        "guest has not used takes none of the host's, what it frees goes back, and 'vmctl balloon' "
        "takes from the guest and gives back while it runs.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 2,
    .examples = {{"vmctl memory build1", "Show how much memory build1 has"},
                 {"vmctl balloon build1 256M", "Leave its guest 256 MiB of it"}},
    .run = run,
};
