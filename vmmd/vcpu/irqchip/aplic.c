#include "vmmd/vcpu/irqchip/aplic.h"
#include <pthread.h>
#include <stdlib.h>

/* Registers (4.5); the arrays have 32 words of one bit a source. */
#define DOMAINCFG    0x0000u
#define SOURCECFG    0x0000u /* of source i at 4 i, so behind domaincfg; to 0x0ffc */
#define SETIP        0x1c00u
#define SETIPNUM     0x1cdcu
#define IN_CLRIP     0x1d00u
#define CLRIPNUM     0x1ddcu
#define SETIE        0x1e00u
#define SETIENUM     0x1edcu
#define CLRIE        0x1f00u
#define CLRIENUM     0x1fdcu
#define SETIPNUM_LE  0x2000u
#define GENMSI       0x3000u
#define TARGET       0x3000u /* of source i at 4 i, so behind genmsi; to 0x3ffc */
#define SOURCES_SIZE 0x1000u
#define BITS_SIZE    0x80u

#define SOURCECFG_D     0x400u
#define DOMAINCFG_FIXED 0x80000004u /* the signature byte, and DM: messages */
#define DOMAINCFG_IE    0x100u

#define TARGET_HART_SHIFT 18
#define TARGET_IDENTITY   0x7ffu
#define TARGET_WRITABLE   (0xffffffffu << TARGET_HART_SHIFT | TARGET_IDENTITY)

enum source_mode { INACTIVE = 0, DETACHED = 1, EDGE1 = 4, EDGE0 = 5, LEVEL1 = 6, LEVEL0 = 7 };

struct source {
    uint8_t mode; /* enum source_mode */
    bool wire;    /* what the device drives */
    bool pending, enabled;
    uint32_t target;
};

struct aplic {
    unsigned source_count;
    struct aplic_output output;
    pthread_mutex_t lock; /* guards what follows */
    bool enabled;         /* domaincfg.IE */
    uint32_t genmsi;
    struct source sources[APLIC_SOURCES_MAX + 1];
};

/* The active source of that number, or NULL. */
static struct source *source_active(struct aplic *aplic, uint64_t number)
{
    if (number == 0 || number > aplic->source_count) {
        return NULL;
    }
    return aplic->sources[number].mode == INACTIVE ? NULL : &aplic->sources[number];
}

static bool is_level(const struct source *source)
{
    return source->mode == LEVEL1 || source->mode == LEVEL0;
}

/* 4.5.2: the rectified input value. */
static bool input(const struct source *source)
{
    bool inverted = source->mode == EDGE0 || source->mode == LEVEL0;
    return source->mode >= EDGE1 && source->wire != inverted;
}

static void send(struct aplic *aplic, uint32_t target)
{
    aplic->output.send(aplic->output.context, target >> TARGET_HART_SHIFT,
                       target & TARGET_IDENTITY);
}

/* 4.9: what is pending and enabled is forwarded, and by that no longer pending. */
static void forward(struct aplic *aplic, struct source *source)
{
    if (aplic->enabled && source->pending && source->enabled) {
        source->pending = false;
        send(aplic, source->target);
    }
}

static void forward_all(struct aplic *aplic)
{
    for (unsigned i = 1; i <= aplic->source_count; i++) {
        forward(aplic, &aplic->sources[i]);
    }
}

/* The input may have changed from `before` (4.7). */
static void input_changed(struct aplic *aplic, struct source *source, bool before)
{
    bool now = input(source);
    if (now && !before) {
        source->pending = true;
        forward(aplic, source);
    } else if (!now && is_level(source)) {
        source->pending = false;
    }
}

void aplic_set_source(void *controller, unsigned number, bool level)
{
    struct aplic *aplic = controller;
    if (number == 0 || number > aplic->source_count) {
        return;
    }
    struct source *source = &aplic->sources[number];
    pthread_mutex_lock(&aplic->lock);
    bool before = input(source);
    source->wire = level;
    input_changed(aplic, source, before);
    pthread_mutex_unlock(&aplic->lock);
}

/* --- registers: one source ------------------------------------------------------------------- */

/* Modes 2 and 3 are reserved: the mode then stays. To delegate to a child domain, where there is
 * none, makes the source inactive. One that becomes active is as if its input had been low before.
 */
static void write_mode(struct aplic *aplic, unsigned number, uint32_t value)
{
    struct source *source = &aplic->sources[number];
    uint32_t mode = value & SOURCECFG_D ? INACTIVE : value & 7;
    if (mode == 2 || mode == 3 || mode == source->mode) {
        return;
    }
    bool before = input(source);
    if (mode == INACTIVE) {
        *source = (struct source){.wire = source->wire};
        return;
    }
    source->mode = (uint8_t)mode;
    input_changed(aplic, source, before);
}

static void set_pending(struct aplic *aplic, struct source *source)
{
    /* 4.7: one of a level only while that is there. */
    if (!is_level(source) || input(source)) {
        source->pending = true;
        forward(aplic, source);
    }
}

static void clear_pending(struct aplic *aplic, struct source *source)
{
    (void)aplic;
    source->pending = false;
}

static void set_enabled(struct aplic *aplic, struct source *source)
{
    source->enabled = true;
    forward(aplic, source);
}

static void clear_enabled(struct aplic *aplic, struct source *source)
{
    (void)aplic;
    source->enabled = false;
}

static bool is_pending(const struct source *source)
{
    return source->pending;
}

static bool is_enabled(const struct source *source)
{
    return source->enabled;
}

/* --- registers: bits of 32 sources, and one by its number ------------------------------------ */

static const struct bit_registers {
    unsigned array, number;                    /* offsets */
    bool (*read)(const struct source *source); /* NULL: reads as zero */
    void (*apply)(struct aplic *aplic, struct source *source);
} BIT_REGISTERS[] = {
    {SETIP, SETIPNUM, is_pending, set_pending},
    {IN_CLRIP, CLRIPNUM, input, clear_pending},
    {SETIE, SETIENUM, is_enabled, set_enabled},
    {CLRIE, CLRIENUM, NULL, clear_enabled},
};
#define BIT_REGISTER_COUNT (sizeof(BIT_REGISTERS) / sizeof(BIT_REGISTERS[0]))

static uint32_t read_bits(struct aplic *aplic, const struct bit_registers *registers, unsigned word)
{
    uint32_t bits = 0;
    for (unsigned bit = 0; registers->read && bit < 32; bit++) {
        const struct source *source = source_active(aplic, word * 32 + bit);
        if (source && registers->read(source)) {
            bits |= 1u << bit;
        }
    }
    return bits;
}

static void write_bits(struct aplic *aplic, const struct bit_registers *registers, unsigned word,
                       uint32_t value)
{
    for (; value != 0; value &= value - 1) {
        struct source *source = source_active(aplic, word * 32 + (unsigned)__builtin_ctz(value));
        if (source) {
            registers->apply(aplic, source);
        }
    }
}

static void write_number(struct aplic *aplic, const struct bit_registers *registers,
                         uint32_t number)
{
    struct source *source = source_active(aplic, number);
    if (source) {
        registers->apply(aplic, source);
    }
}

/* --- the window ------------------------------------------------------------------------------ */

static uint32_t read_locked(struct aplic *aplic, unsigned offset)
{
    if (offset == DOMAINCFG) {
        return DOMAINCFG_FIXED | (aplic->enabled ? DOMAINCFG_IE : 0);
    }
    if (offset == GENMSI) {
        return aplic->genmsi; /* never busy */
    }
    if (offset < SOURCECFG + SOURCES_SIZE) {
        struct source *source = source_active(aplic, offset / 4);
        return source ? source->mode : 0;
    }
    if (offset >= TARGET) {
        struct source *source = source_active(aplic, (offset - TARGET) / 4);
        return source ? source->target : 0;
    }
    for (unsigned i = 0; i < BIT_REGISTER_COUNT; i++) {
        if (offset - BIT_REGISTERS[i].array < BITS_SIZE) {
            return read_bits(aplic, &BIT_REGISTERS[i], (offset - BIT_REGISTERS[i].array) / 4);
        }
    }
    return 0;
}

static void write_set(struct aplic *aplic, unsigned offset, uint32_t value)
{
    if (offset == SETIPNUM_LE) {
        offset = SETIPNUM;
    }
    for (unsigned i = 0; i < BIT_REGISTER_COUNT; i++) {
        const struct bit_registers *registers = &BIT_REGISTERS[i];
        if (offset == registers->number) {
            write_number(aplic, registers, value);
        } else if (offset - registers->array < BITS_SIZE) {
            write_bits(aplic, registers, (offset - registers->array) / 4, value);
        }
    }
}

static void write_locked(struct aplic *aplic, unsigned offset, uint32_t value)
{
    if (offset == DOMAINCFG) {
        aplic->enabled = (value & DOMAINCFG_IE) != 0;
        forward_all(aplic);
    } else if (offset == GENMSI) {
        aplic->genmsi = value & TARGET_WRITABLE;
        send(aplic, aplic->genmsi); /* 4.5.15: whether the domain is enabled or not */
    } else if (offset < SOURCECFG + SOURCES_SIZE) {
        if (offset / 4 <= aplic->source_count) {
            write_mode(aplic, offset / 4, value);
        }
    } else if (offset >= TARGET) {
        struct source *source = source_active(aplic, (offset - TARGET) / 4);
        if (source) {
            source->target = value & TARGET_WRITABLE;
        }
    } else {
        write_set(aplic, offset, value);
    }
}

static bool aplic_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct aplic *aplic = device;
    if (size != 4 || offset % 4 != 0 || offset >= APLIC_SIZE) {
        return false;
    }
    pthread_mutex_lock(&aplic->lock);
    *value = read_locked(aplic, (unsigned)offset);
    pthread_mutex_unlock(&aplic->lock);
    return true;
}

static bool aplic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct aplic *aplic = device;
    if (size != 4 || offset % 4 != 0 || offset >= APLIC_SIZE) {
        return false;
    }
    pthread_mutex_lock(&aplic->lock);
    write_locked(aplic, (unsigned)offset, (uint32_t)value);
    pthread_mutex_unlock(&aplic->lock);
    return true;
}

const struct bus_ops aplic_bus_ops = {.read = aplic_read, .write = aplic_write};

/* --- life ------------------------------------------------------------------------------------ */

struct aplic *aplic_create(unsigned sources, const struct aplic_output *output)
{
    if (sources == 0 || sources > APLIC_SOURCES_MAX) {
        return NULL;
    }
    struct aplic *aplic = calloc(1, sizeof(*aplic));
    if (!aplic) {
        return NULL;
    }
    if (pthread_mutex_init(&aplic->lock, NULL) != 0) {
        free(aplic);
        return NULL;
    }
    aplic->source_count = sources;
    aplic->output = *output;
    return aplic;
}

void aplic_destroy(struct aplic *aplic)
{
    if (aplic) {
        pthread_mutex_destroy(&aplic->lock);
        free(aplic);
    }
}

void aplic_reset(struct aplic *aplic)
{
    pthread_mutex_lock(&aplic->lock);
    aplic->enabled = false;
    aplic->genmsi = 0;
    for (unsigned i = 1; i <= aplic->source_count; i++) {
        aplic->sources[i] = (struct source){.wire = aplic->sources[i].wire};
    }
    pthread_mutex_unlock(&aplic->lock);
}
