/* vmctl disas: guest code, its intermediate representation and the host code that runs it. */
#include "cli/commands/machine_request.h"
#include "cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MAX 64

struct disas_settings {
    uint32_t cpu;
    uint32_t count;
};

static const struct option_spec options[] = {
    {.name = "cpu",
     .type = &option_number,
     .argument = "N",
     .default_value = "0",
     .summary = "the processor in whose address space ADDRESS is",
     .offset = offsetof(struct disas_settings, cpu)},
    {.name = "count",
     .type = &option_number,
     .argument = "N",
     .default_value = "1",
     .summary = "number of blocks, each where the one before ends; at most 64",
     .offset = offsetof(struct disas_settings, count)},
    {.name = NULL},
};

/* "pc", or a hexadecimal number: with or without 0x, as listings and logs print addresses. */
static int parse_address(const char *text, Polyvisor__CodeRequest *code, struct error *err)
{
    char *end;

    if (strcmp(text, "pc") == 0) {
        code->at_pc = true;
        return 0;
    }
    errno = 0;
    code->address = strtoull(text, &end, 16);
    if (isxdigit((unsigned char)text[0]) && *end == '\0' && errno == 0) {
        return 0;
    }
    error_set(err, ERROR_USAGE, 0, "'%.60s' is not an address", text);
    error_hint(err,
               "a hexadecimal number such as ffffffff80001000, or 'pc' for where the processor is");
    return -ERROR_USAGE;
}

/* ---- JSON ---- */

static json_t *lines_json(size_t count, Polyvisor__CodeLine *const *lines)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++) {
        char bytes[2 * 64 + 1] = "", address[24];

        for (size_t k = 0; k < lines[i]->code.len && k < 64; k++) {
            snprintf(bytes + 2 * k, 3, "%02x", lines[i]->code.data[k]);
        }
        snprintf(address, sizeof(address), "0x%" PRIx64, lines[i]->address);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "address", address, "bytes", bytes,
                                              "text", output_json_text(lines[i]->text)));
    }
    return list;
}

/* Addresses are text: JSON's numbers are no 64-bit integers everywhere. */
static json_t *block_json(const Polyvisor__CodeBlock *block)
{
    char address[24], physical[24];

    snprintf(address, sizeof(address), "0x%" PRIx64, block->address);
    snprintf(physical, sizeof(physical), "0x%" PRIx64, block->physical);
    return json_pack(
        "{s:s, s:s, s:I, s:b, s:b, s:I, s:o, s:o, s:o, s:I, s:I, s:o}", "address", address,
        "physical", physical, "mode", (json_int_t)block->mode, "cached", (int)block->cached, "cut",
        (int)block->cut, "host_bytes", (json_int_t)block->host_bytes, "guest",
        lines_json(block->n_guest, block->guest), "ir", output_json_text(block->ir), "host",
        lines_json(block->n_host, block->host), "region_blocks", (json_int_t)block->region_blocks,
        "region_bytes", (json_int_t)block->region_bytes, "region",
        lines_json(block->n_region, block->region));
}

static int print_json(const Polyvisor__CodeListing *listing, struct error *err)
{
    json_t *blocks = json_array();
    char pc[24];

    for (size_t i = 0; i < listing->n_blocks; i++) {
        json_array_append_new(blocks, block_json(listing->blocks[i]));
    }
    snprintf(pc, sizeof(pc), "0x%" PRIx64, listing->pc);
    return output_json(json_pack("{s:o, s:o, s:I, s:s, s:o}", "guest_arch",
                                 output_json_text(listing->guest_arch), "host_arch",
                                 output_json_text(listing->host_arch), "cpu",
                                 (json_int_t)listing->cpu, "pc", pc, "blocks", blocks),
                       err);
}

/* ---- text ---- */

static void print_lines(const char *arch, const char *what, size_t count,
                        Polyvisor__CodeLine *const *lines, unsigned bytes_width)
{
    printf("  ");
    output_printable(stdout, arch);
    printf(" code%s\n", what);
    for (size_t i = 0; i < count; i++) {
        const Polyvisor__CodeLine *line = lines[i];
        unsigned width = 0;

        printf("    %16" PRIx64 "  ", line->address);
        for (size_t k = 0; k < line->code.len && k < 16; k++) {
            width += (unsigned)printf("%02x", line->code.data[k]);
        }
        printf("%*s  ", width < bytes_width ? (int)(bytes_width - width) : 0, "");
        output_printable(stdout, line->text[0] != '\0' ? line->text : "(no instruction)");
        putchar('\n');
    }
}

static void print_ir(const char *ir)
{
    printf("  IR\n");
    while (*ir != '\0') {
        size_t length = strcspn(ir, "\n");
        char line[256];

        snprintf(line, sizeof(line), "%.*s", (int)length, ir);
        printf("    ");
        output_printable(stdout, line);
        putchar('\n');
        ir += length + (ir[length] == '\n');
    }
}

static void print_block(const Polyvisor__CodeListing *listing, const Polyvisor__CodeBlock *block)
{
    printf("block at 0x%" PRIx64 ", physical 0x%" PRIx64 ", mode 0x%" PRIx32 "%s%s\n",
           block->address, block->physical, block->mode,
           block->cached ? "" : ", not in use by the engine",
           block->cut ? ", cut: too large for one answer" : "");
    print_lines(listing->guest_arch, "", block->n_guest, block->guest, 8);
    print_ir(block->ir);
    if (block->n_host > 0) {
        print_lines(listing->host_arch, "", block->n_host, block->host, 20);
    } else if (block->cached) {
        printf("  interpreted\n");
    }
    if (block->region_bytes > 0) {
        char what[64];
        snprintf(what, sizeof(what), " of the region that begins here, %" PRIu32 " blocks",
                 block->region_blocks);
        print_lines(listing->host_arch, what, block->n_region, block->region, 20);
    }
}

static int print_text(const Polyvisor__CodeListing *listing, struct error *err)
{
    for (size_t i = 0; i < listing->n_blocks; i++) {
        if (i > 0) {
            putchar('\n');
        }
        print_block(listing, listing->blocks[i]);
    }
    return output_flush(err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct disas_settings *settings = invocation->settings;
    Polyvisor__CodeRequest code = POLYVISOR__CODE_REQUEST__INIT;
    Polyvisor__CodeOfRequest of = POLYVISOR__CODE_OF_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    int status = parse_address(invocation->positionals[1], &code, err);

    if (status != 0) {
        return status;
    }
    if (settings->count < 1 || settings->count > BLOCKS_MAX) {
        return error_set(err, ERROR_USAGE, 0, "--count is 1 to %d", BLOCKS_MAX);
    }
    code.cpu = settings->cpu;
    code.count = settings->count;
    of.name = machine_argument(invocation);
    of.code = &code;
    request.body_case = POLYVISOR__REQUEST__BODY_CODE;
    request.code = &of;
    status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (response->code == NULL) {
        status = error_set(err, ERROR_PROTOCOL, 0, "vmmd answered without code");
    } else {
        status = invocation->globals->json ? print_json(response->code, err)
                                           : print_text(response->code, err);
    }
    client_free(response);
    return status;
}

const struct command command_disas = {
    .name = "disas",
    .summary = "show guest code and what the engine makes of it",
    .usage = "[OPTION...] NAME ADDRESS",
    .description =
        "Prints the block of guest code that begins at a virtual address of the guest "
        "(hexadecimal, with or without 0x): its instructions, the intermediate representation they "
        "become and, when the block is compiled, the host code that runs now, also that of the "
        "optimised region that begins with it. The address is "
        "looked up in the address space that the processor is in at this moment; 'pc' stands for "
        "where it is. The guest pauses for the look, and nothing of its state changes.\n",
    .options = options,
    .settings_size = sizeof(struct disas_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 2,
    .positionals_max = 2,
    .examples = {{"vmctl disas build1 pc", "The block that the first processor is in"},
                 {"vmctl disas --cpu 1 --count 3 build1 ffffffff80001000",
                  "Three blocks of the guest's kernel"}},
    .run = run,
};
