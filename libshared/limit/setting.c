#include "libshared/limit/setting.h"

#include "libshared/base/values.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BURST_PART     10u   /* of a second, unless said otherwise */
#define BURST_PART_MAX 100u  /* the shortest: timers come no more often */
#define BURST_SECONDS  3600u /* the longest */
#define BURST_SUFFIX   "-burst"
#define WORD_MAX       64

static const char *const names[][LIMIT_KINDS][LIMIT_DIRECTIONS] = {
    [LIMIT_DISK] = {{"bps-read", "bps-write", "bps"}, {"iops-read", "iops-write", "iops"}},
    [LIMIT_NET] = {{"bps-rx", "bps-tx", "bps"}, {"pps-rx", "pps-tx", "pps"}},
};

static const char *const hints[] = {
    [LIMIT_DISK] = "bps=20M, bps-read=, bps-write=: bytes a second; iops=500, iops-read=, "
                   "iops-write=: requests; with -burst (bps-burst=40M): at once; off: no limit",
    [LIMIT_NET] = "bps=2M, bps-rx=, bps-tx=: bytes a second; pps=5K, pps-rx=, pps-tx=: frames; "
                  "with -burst (bps-burst=4M): at once; off: no limit",
};

const char *limit_name(enum limit_device device, enum limit_kind kind,
                       enum limit_direction direction)
{
    return names[device][kind][direction];
}

static int refuse(enum limit_device device, enum error_code code, struct error *err,
                  const char *what, const char *word)
{
    error_set(err, code, 0, "limits: %s '%.60s'", what, word);
    error_hint(err, "%s", hints[device]);
    return -(int)code;
}

/* ---- values ---- */

static const struct unit {
    const char *suffix;
    uint64_t bytes, operations; /* 0: no unit of these */
} units[] = {
    {"", 1, 1},
    {"K", UINT64_C(1) << 10, 1000},
    {"k", UINT64_C(1) << 10, 1000},
    {"M", UINT64_C(1) << 20, 1000000},
    {"G", UINT64_C(1) << 30, 1000000000},
    {"T", UINT64_C(1) << 40, 0},
    {"KiB", UINT64_C(1) << 10, 0},
    {"MiB", UINT64_C(1) << 20, 0},
    {"GiB", UINT64_C(1) << 30, 0},
    {"TiB", UINT64_C(1) << 40, 0},
    {"kB", UINT64_C(1000), 0},
    {"KB", UINT64_C(1000), 0},
    {"MB", UINT64_C(1000000), 0},
    {"GB", UINT64_C(1000000000), 0},
    {"TB", UINT64_C(1000000000000), 0},
};

static uint64_t unit_size(const struct unit *unit, enum limit_kind kind)
{
    return kind == LIMIT_BYTES ? unit->bytes : unit->operations;
}

/* The whole text, or false. */
static bool value_read(const char *text, enum limit_kind kind, uint64_t *value)
{
    uint64_t number;

    if (strcmp(text, "off") == 0) {
        *value = 0;
        return true;
    }
    if (value_parse_digits(text, &number, &text) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        uint64_t size = unit_size(&units[i], kind);
        if (size && strcmp(text, units[i].suffix) == 0) {
            return !__builtin_mul_overflow(number, size, value);
        }
    }
    return false;
}

/* The shortest text of exactly that value. */
static void value_format(uint64_t value, enum limit_kind kind, char *text, size_t capacity)
{
    static const char *const preferred[] = {"T", "G", "M", "K"};

    for (size_t i = 0; i < sizeof(preferred) / sizeof(preferred[0]); i++) {
        for (size_t at = 0; at < sizeof(units) / sizeof(units[0]); at++) {
            uint64_t size = unit_size(&units[at], kind);
            if (size && !strcmp(units[at].suffix, preferred[i]) && value >= size &&
                value % size == 0) {
                snprintf(text, capacity, "%" PRIu64 "%s", value / size, preferred[i]);
                return;
            }
        }
    }
    snprintf(text, capacity, "%" PRIu64, value);
}

/* ---- words ---- */

static int limit_set(enum limit_device device, enum limit_kind kind, struct limit *limit,
                     bool burst, const char *word, enum error_code code, struct error *err)
{
    uint64_t value, most = burst ? LIMIT_BURST_MAX : LIMIT_RATE_MAX;

    if (!value_read(strchr(word, '=') + 1, kind, &value) || value > most) {
        return refuse(device, code, err, "not a number that can be a limit:", word);
    }
    if (burst) {
        limit->burst = value;
    } else {
        *limit = (struct limit){.rate = value};
    }
    return 0;
}

int limits_parse_word(enum limit_device device, const char *word, enum error_code code,
                      struct limits *limits, struct error *err)
{
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : 0;

    for (unsigned kind = 0; equals && kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            const char *name = names[device][kind][direction];
            size_t named = strlen(name);
            if (length < named || strncmp(word, name, named) != 0) {
                continue;
            }
            bool burst = length == named + strlen(BURST_SUFFIX) &&
                         strncmp(word + named, BURST_SUFFIX, strlen(BURST_SUFFIX)) == 0;
            if (length == named || burst) {
                return limit_set(device, kind, &limits->of[kind][direction], burst, word, code,
                                 err);
            }
        }
    }
    return -ENOENT;
}

int limits_check(enum limit_device device, const struct limits *limits, enum error_code code,
                 struct error *err)
{
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            const struct limit *limit = &limits->of[kind][direction];
            const char *name = names[device][kind][direction];
            if (limit->burst && !limit->rate) {
                return refuse(device, code, err, "a burst needs its rate, too:", name);
            }
            if (limit->burst && (limit->burst < limit->rate / BURST_PART_MAX ||
                                 limit->burst / BURST_SECONDS > limit->rate)) {
                return refuse(
                    device, code, err,
                    "a burst is what passes in 10 ms at least, in an hour at most:", name);
            }
        }
    }
    return 0;
}

int limits_parse(enum limit_device device, const char *text, enum error_code code,
                 struct limits *limits, struct error *err)
{
    struct limits changed = *limits;
    int status = 0;

    if (strcmp(text, "off") == 0) {
        memset(limits, 0, sizeof(*limits));
        return 0;
    }
    while (status == 0 && *text) {
        size_t length = strcspn(text, ",");
        char word[WORD_MAX];
        if (length >= sizeof(word)) {
            return refuse(device, code, err, "unknown word", text);
        }
        snprintf(word, sizeof(word), "%.*s", (int)length, text);
        status = limits_parse_word(device, word, code, &changed, err);
        if (status == -ENOENT) {
            status = refuse(device, code, err, "unknown word", word);
        }
        text += length + (text[length] == ',');
    }
    status = status ? status : limits_check(device, &changed, code, err);
    if (status == 0) {
        *limits = changed;
    }
    return status;
}

void limits_format(enum limit_device device, const struct limits *limits, char *text,
                   size_t capacity)
{
    size_t used = 0;

    text[0] = '\0';
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            const struct limit *limit = &limits->of[kind][direction];
            const char *name = names[device][kind][direction];
            char value[32];
            for (int burst = 0; burst < 2; burst++) {
                uint64_t number = burst ? limit->burst : limit->rate;
                if (!number || used >= capacity) {
                    continue;
                }
                value_format(number, kind, value, sizeof(value));
                used += (size_t)snprintf(text + used, capacity - used, "%s%s%s=%s", used ? "," : "",
                                         name, burst ? BURST_SUFFIX : "", value);
            }
        }
    }
}

bool limits_any(const struct limits *limits)
{
    bool any = false;

    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            any |= limits->of[kind][direction].rate != 0;
        }
    }
    return any;
}

uint64_t limit_burst(const struct limit *limit)
{
    uint64_t usual = limit->rate / BURST_PART;

    return limit->burst ? limit->burst : usual ? usual : 1;
}
