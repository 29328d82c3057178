/*
 * References for one format, from the host's own arithmetic; test_fp.c includes it twice.
 *
 * The includer defines FORMAT (f32, f64), and the types NUMBER and BITS. Rounding to nearest with
 * ties away, which no host has, is decided from the two directed results: the exact result is
 * compared with their midpoint in 113-bit arithmetic.
 */
#define CONCATENATE_(a, b, c) a##b##c
#define CONCATENATE(a, b, c)  CONCATENATE_(a, b, c)
#define REF(name)             CONCATENATE(FORMAT, _, name)
#define SOFT(name)            CONCATENATE(fp_, FORMAT, _##name)
#define HOST(name)            CONCATENATE(fp_host_, FORMAT, _##name)

static NUMBER REF(number)(BITS a)
{
    NUMBER value;
    memcpy(&value, &a, sizeof(value));
    return value;
}

static BITS REF(bits)(NUMBER value)
{
    BITS a;
    memcpy(&a, &value, sizeof(a));
    return SOFT(is_nan)(a) ? (BITS)REF(nan) : a;
}

static bool REF(is_signalling)(BITS a)
{
    return SOFT(is_nan)(a) && !(a & REF(quiet));
}

/* One operation on the host, under its current rounding mode. */
static BITS REF(compute)(enum operation operation, BITS a, BITS b, BITS c)
{
    volatile NUMBER x = REF(number)(a), y = REF(number)(b), z = REF(number)(c), result = 0;
    switch (operation) {
    case ADD:
        result = x + y;
        break;
    case SUB:
        result = x - y;
        break;
    case MUL:
        result = x * y;
        break;
    case DIV:
        result = x / y;
        break;
    case SQRT:
        result = REF(host_sqrt)(x);
        break;
    case FMA:
        result = REF(host_fma)(x, y, z);
        break;
    }
    return REF(bits)(result);
}

static struct outcome REF(directed)(enum operation operation, int mode, BITS a, BITS b, BITS c)
{
    fesetround(mode);
    feclearexcept(FE_ALL_EXCEPT);
    BITS result = REF(compute)(operation, a, b, c);
    uint32_t flags = host_flags();
    fesetround(FE_TONEAREST);
    return (struct outcome){result, flags};
}

/* The magnitude as a quad number; infinity stands for the power of two after the largest. */
static quad REF(quad)(BITS a)
{
    BITS magnitude = a & ~REF(sign);
    quad value = magnitude == REF(infinite) ? REF(beyond) : (quad)REF(number)(magnitude);
    return a & REF(sign) ? -value : value;
}

/* Whether the exact result lies in the middle between two neighbours. */
static bool REF(is_tie)(enum operation operation, BITS a, BITS b, BITS c, BITS low, BITS high)
{
    quad middle = (REF(quad)(low) + REF(quad)(high)) / 2;
    quad x = REF(quad)(a), y = REF(quad)(b), z = REF(quad)(c);
    switch (operation) {
    case ADD:
        return x + y == middle;
    case SUB:
        return x - y == middle;
    case MUL:
        return x * y == middle;
    case DIV:
        return middle * y == x;
    case SQRT:
        return middle * middle == x;
    case FMA:
        break;
    }
    /* The product is exact; its difference from the middle may not be: Knuth's two-sum. */
    quad product = x * y;
    quad difference = product - middle;
    quad back = difference + middle;
    quad error = (product - back) + (back - difference - middle);
    return difference + z == 0 && error == 0;
}

static struct outcome REF(expect)(enum operation operation, unsigned round, BITS a, BITS b, BITS c)
{
    bool invalid_fma =
        operation == FMA && (((a & ~REF(sign)) == REF(infinite) && !(b & ~REF(sign))) ||
                             ((b & ~REF(sign)) == REF(infinite) && !(a & ~REF(sign))));
    if (invalid_fma) {
        return (struct outcome){REF(nan), FP_INVALID};
    }
    if (operation == SQRT && !SOFT(is_nan)(a) && (a & REF(sign)) && (a & ~REF(sign))) {
        return (struct outcome){REF(nan), FP_INVALID};
    }
    if (round != IR_ROUND_RMM) {
        return REF(directed)(operation, host_modes[round], a, b, c);
    }
    struct outcome nearest = REF(directed)(operation, FE_TONEAREST, a, b, c);
    BITS low = (BITS)REF(directed)(operation, FE_DOWNWARD, a, b, c).result;
    BITS high = (BITS)REF(directed)(operation, FE_UPWARD, a, b, c).result;
    if (low != high && (nearest.flags & FP_INEXACT) && REF(is_tie)(operation, a, b, c, low, high)) {
        nearest.result = (low & ~REF(sign)) > (high & ~REF(sign)) ? low : high;
    }
    return nearest;
}

static struct outcome REF(soft)(enum operation operation, unsigned round, BITS a, BITS b, BITS c)
{
    struct outcome outcome = {0};
    round |= TININESS;
    switch (operation) {
    case ADD:
        outcome.result = SOFT(add)(a, b, round, &outcome.flags);
        break;
    case SUB:
        outcome.result = SOFT(sub)(a, b, round, &outcome.flags);
        break;
    case MUL:
        outcome.result = SOFT(mul)(a, b, round, &outcome.flags);
        break;
    case DIV:
        outcome.result = SOFT(div)(a, b, round, &outcome.flags);
        break;
    case SQRT:
        outcome.result = SOFT(sqrt)(a, round, &outcome.flags);
        break;
    case FMA:
        outcome.result = SOFT(fma)(a, b, c, round, &outcome.flags);
        break;
    }
    return outcome;
}

static struct outcome REF(fast)(enum operation operation, BITS a, BITS b, BITS c)
{
    struct outcome outcome = {0};
    fp_host_begin();
    switch (operation) {
    case ADD:
        outcome.result = HOST(add)(a, b, &outcome.flags);
        break;
    case SUB:
        outcome.result = HOST(sub)(a, b, &outcome.flags);
        break;
    case MUL:
        outcome.result = HOST(mul)(a, b, &outcome.flags);
        break;
    case DIV:
        outcome.result = HOST(div)(a, b, &outcome.flags);
        break;
    case SQRT:
        outcome.result = HOST(sqrt)(a, &outcome.flags);
        break;
    case FMA:
        outcome.result = HOST(fma)(a, b, c, &outcome.flags);
        break;
    }
    outcome.flags |= fp_collect_host_flags();
    return outcome;
}

static void REF(check)(enum operation operation, unsigned round, BITS a, BITS b, BITS c)
{
    struct outcome expected = REF(expect)(operation, round, a, b, c);
    struct outcome got = REF(soft)(operation, round, a, b, c);
    if (got.result != expected.result || got.flags != expected.flags) {
        report("soft", operation, round, a, b, c, expected, got);
    }
}

/* The host's unit against the software, which the other checks have tied to the host's C. */
static void REF(check_fast)(enum operation operation, BITS a, BITS b, BITS c)
{
    struct outcome expected = {0};
    fp_host_begin();
    switch (operation) {
    case ADD:
        expected.result = SOFT(add)(a, b, IR_ROUND_RNE, &expected.flags);
        break;
    case SUB:
        expected.result = SOFT(sub)(a, b, IR_ROUND_RNE, &expected.flags);
        break;
    case MUL:
        expected.result = SOFT(mul)(a, b, IR_ROUND_RNE, &expected.flags);
        break;
    case DIV:
        expected.result = SOFT(div)(a, b, IR_ROUND_RNE, &expected.flags);
        break;
    case SQRT:
        expected.result = SOFT(sqrt)(a, IR_ROUND_RNE, &expected.flags);
        break;
    case FMA:
        expected.result = SOFT(fma)(a, b, c, IR_ROUND_RNE, &expected.flags);
        break;
    }
    struct outcome got = REF(fast)(operation, a, b, c);
    if (got.result != expected.result || got.flags != expected.flags) {
        report("host", operation, IR_ROUND_RNE, a, b, c, expected, got);
    }
}

/* --- comparisons, minimum and maximum, classes ---------------------------------------------- */
static void REF(check_compare)(BITS a, BITS b)
{
    NUMBER x = REF(number)(a), y = REF(number)(b);
    bool any_nan = SOFT(is_nan)(a) || SOFT(is_nan)(b);
    uint32_t quiet = REF(is_signalling)(a) || REF(is_signalling)(b) ? FP_INVALID : 0;
    uint32_t loud = any_nan ? FP_INVALID : 0;
    uint32_t flags[5] = {0};
    EXPECT(SOFT(eq)(a, b, &flags[0]), !any_nan && x == y);
    EXPECT(SOFT(lt)(a, b, &flags[1]), !any_nan && x < y);
    EXPECT(SOFT(le)(a, b, &flags[2]), !any_nan && x <= y);
    EXPECT(SOFT(lt_quiet)(a, b, &flags[3]), !any_nan && x < y);
    EXPECT(SOFT(le_quiet)(a, b, &flags[4]), !any_nan && x <= y);
    EXPECT(flags[0], quiet);
    EXPECT(flags[1], loud);
    EXPECT(flags[2], loud);
    EXPECT(flags[3], quiet);
    EXPECT(flags[4], quiet);

    fp_host_begin();
    uint32_t extra = 0;
    EXPECT(HOST(eq)(a, b, &extra), !any_nan && x == y);
    extra |= fp_collect_host_flags();
    EXPECT(extra, quiet);
    extra = 0;
    fp_host_begin();
    EXPECT(HOST(lt)(a, b, &extra), !any_nan && x < y);
    extra |= fp_collect_host_flags();
    EXPECT(extra, loud);
    extra = 0;
    fp_host_begin();
    EXPECT(HOST(le)(a, b, &extra), !any_nan && x <= y);
    extra |= fp_collect_host_flags();
    EXPECT(extra, loud);
}

static void REF(check_minmax)(BITS a, BITS b)
{
    bool any_nan = SOFT(is_nan)(a) || SOFT(is_nan)(b);
    uint32_t quiet = REF(is_signalling)(a) || REF(is_signalling)(b) ? FP_INVALID : 0;
    BITS smaller, larger;
    if (SOFT(is_nan)(a) || SOFT(is_nan)(b)) {
        smaller = SOFT(is_nan)(b) ? a : b;
        smaller = SOFT(is_nan)(smaller) ? (BITS)REF(nan) : smaller;
        larger = smaller;
    } else if (REF(number)(a) == REF(number)(b)) { /* equal, or zeros */
        smaller = a | b;
        larger = a & b;
    } else {
        bool first = REF(number)(a) < REF(number)(b);
        smaller = first ? a : b;
        larger = first ? b : a;
    }
    uint32_t flags[4] = {0};
    EXPECT(SOFT(min)(a, b, &flags[0]), smaller);
    EXPECT(SOFT(max)(a, b, &flags[1]), larger);
    EXPECT(SOFT(minimum)(a, b, &flags[2]), any_nan ? (BITS)REF(nan) : smaller);
    EXPECT(SOFT(maximum)(a, b, &flags[3]), any_nan ? (BITS)REF(nan) : larger);
    for (unsigned i = 0; i < 4; i++) {
        EXPECT(flags[i], quiet);
    }
}

static uint32_t REF(expected_class)(BITS a)
{
    bool negative = a & REF(sign);
    switch (fpclassify(REF(number)(a))) {
    case FP_NAN:
        return REF(is_signalling)(a) ? 1u << 8 : 1u << 9;
    case FP_INFINITE:
        return negative ? 1u << 0 : 1u << 7;
    case FP_ZERO:
        return negative ? 1u << 3 : 1u << 4;
    case FP_SUBNORMAL:
        return negative ? 1u << 2 : 1u << 5;
    default:
        return negative ? 1u << 1 : 1u << 6;
    }
}

/* --- integers ------------------------------------------------------------------------------- */
/* Rounded to integral by the host (ties away by the C library's round). */
static NUMBER REF(integral)(NUMBER x, unsigned mode)
{
    if (mode == IR_ROUND_RMM) {
        return REF(host_round)(x);
    }
    fesetround(host_modes[mode]);
    volatile NUMBER operand = x;
    volatile NUMBER result = REF(host_rint)(operand);
    fesetround(FE_TONEAREST);
    return result;
}

static void REF(check_round)(BITS a, unsigned round)
{
    uint32_t flags[2] = {0};
    BITS result = SOFT(round)(a, round, false, &flags[0]);
    BITS exact = SOFT(round)(a, round, true, &flags[1]);
    BITS expected = REF(bits)(REF(integral)(REF(number)(a), round));
    uint32_t invalid = REF(is_signalling)(a) ? FP_INVALID : 0;
    EXPECT(result, expected);
    EXPECT(exact, expected);
    EXPECT(flags[0], invalid);
    bool changed = !SOFT(is_nan)(a) && expected != a;
    EXPECT(flags[1], changed ? FP_INEXACT : invalid);
}

static struct outcome REF(expected_integer)(BITS a, unsigned round, quad lowest, quad highest)
{
    if (SOFT(is_nan)(a)) {
        return (struct outcome){(uint64_t)(unsigned __int128)highest, FP_INVALID};
    }
    NUMBER x = REF(number)(a);
    NUMBER integral = REF(integral)(x, round);
    quad value = (quad)integral;
    uint32_t flags = integral != x ? FP_INEXACT : 0;
    if (value < lowest || value > highest) {
        value = value < lowest ? lowest : highest;
        flags = FP_INVALID;
    }
    return (struct outcome){(uint64_t)(__int128)value, flags};
}

static void REF(check_to_integer)(BITS a, unsigned round)
{
    static const struct {
        uint64_t (*convert)(BITS a, unsigned round, uint32_t *flags);
        uint64_t (*truncate)(BITS a, uint32_t *flags);
        quad lowest, highest;
        bool word;
    } kinds[] = {
        {SOFT(to_s32), HOST(to_s32_truncate), (quad)INT32_MIN, (quad)INT32_MAX, true},
        {SOFT(to_u32), NULL, 0, (quad)UINT32_MAX, true},
        {SOFT(to_s64), HOST(to_s64_truncate), (quad)INT64_MIN, (quad)INT64_MAX, false},
        {SOFT(to_u64), NULL, 0, (quad)UINT64_MAX, false},
    };
    for (unsigned i = 0; i < 4; i++) {
        struct outcome expected =
            REF(expected_integer)(a, round, kinds[i].lowest, kinds[i].highest);
        if (kinds[i].word) {
            expected.result = (uint64_t)(int64_t)(int32_t)expected.result;
        }
        uint32_t flags = 0;
        uint64_t result = kinds[i].convert(a, round, &flags);
        if (result != expected.result || flags != expected.flags) {
            report("to integer", i, round, a, 0, 0, expected, (struct outcome){result, flags});
        }
        if (round != IR_ROUND_RTZ || !kinds[i].truncate) {
            continue;
        }
        flags = 0;
        fp_host_begin();
        result = kinds[i].truncate(a, &flags);
        flags |= fp_collect_host_flags();
        if (result != expected.result || flags != expected.flags) {
            report("host to integer", i, round, a, 0, 0, expected, (struct outcome){result, flags});
        }
    }
}

static struct outcome REF(expected_from)(quad value, unsigned round)
{
    struct outcome outcome[3];
    static const int modes[3] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD};
    bool negative = value < 0;
    unsigned __int128 magnitude = (unsigned __int128)(negative ? -value : value);
    for (unsigned i = 0; i < 3; i++) {
        fesetround(round == IR_ROUND_RMM ? modes[i] : host_modes[round]);
        /* Only signed conversions are one instruction; a sticky halving is exact enough. */
        bool halve = !negative && magnitude >> 63;
        uint64_t half = (uint64_t)(magnitude >> 1 | (magnitude & 1));
        volatile int64_t integer = (int64_t)(halve      ? half
                                             : negative ? 0 - (uint64_t)magnitude
                                                        : (uint64_t)magnitude);
        volatile NUMBER result = (NUMBER)integer;
        if (halve) {
            result *= 2;
        }
        fesetround(FE_TONEAREST);
        outcome[i].result = REF(bits)(result);
        outcome[i].flags = (quad)result != value ? FP_INEXACT : 0;
    }
    if (round == IR_ROUND_RMM && outcome[1].result != outcome[2].result &&
        (REF(quad)((BITS)outcome[1].result) + REF(quad)((BITS)outcome[2].result)) / 2 == value) {
        outcome[0].result = outcome[negative ? 1 : 2].result;
    }
    return outcome[0];
}

static void REF(check_from_integer)(uint64_t a, unsigned round)
{
    struct outcome expected[4] = {
        REF(expected_from)((quad)(int32_t)a, round),
        REF(expected_from)((quad)(uint32_t)a, round),
        REF(expected_from)((quad)(int64_t)a, round),
        REF(expected_from)((quad)a, round),
    };
    struct outcome got[4] = {0};
    got[0].result = SOFT(from_s32)(a, round, &got[0].flags);
    got[1].result = SOFT(from_u32)(a, round, &got[1].flags);
    got[2].result = SOFT(from_s64)(a, round, &got[2].flags);
    got[3].result = SOFT(from_u64)(a, round, &got[3].flags);
    for (unsigned i = 0; i < 4; i++) {
        if (got[i].result != expected[i].result || got[i].flags != expected[i].flags) {
            report("from integer", i, round, a, 0, 0, expected[i], got[i]);
        }
    }
    if (round == IR_ROUND_RNE) {
        uint32_t flags = 0;
        fp_host_begin();
        EXPECT(HOST(from_s32)(a, &flags), expected[0].result);
        EXPECT(flags | fp_collect_host_flags(), expected[0].flags);
        EXPECT(HOST(from_s64)(a, &flags), expected[2].result);
        EXPECT(flags | fp_collect_host_flags(), expected[2].flags);
    }
}

/* --- operand makers ------------------------------------------------------------------------- */
/* Random operands: raw bits, few significant bits, exponents near the bias or the borders. */
static BITS REF(random)(struct random *random)
{
    uint64_t choice = random_next(random);
    BITS a = (BITS)random_next(random);
    BITS fraction_mask = (BITS)REF(quiet) * 2 - 1;
    switch (choice & 7) {
    case 0:
        return REF(corners)[random_next(random) % REF(corner_count)];
    case 1: /* significand of leading and trailing ones or zeros only */
        a = (a & ~fraction_mask) |
            (fraction_mask & ((BITS)-1 << (choice >> 8 & 63) % (8 * sizeof(BITS))));
        return a;
    case 2: /* few bits */
        return a & ~(fraction_mask & (BITS)random_next(random) & (BITS)random_next(random));
    case 3: /* near one */
    case 4:
        a = (a & (fraction_mask | REF(sign))) |
            (REF(one) + (((BITS)(choice >> 8 & 31) - 16) * (fraction_mask + 1)));
        return a;
    case 5: /* near the smallest */
        return (a & (fraction_mask | REF(sign))) | ((BITS)(choice >> 8 & 3) * (fraction_mask + 1));
    default:
        return a;
    }
}

static void REF(corner_pass)(void)
{
    for (unsigned i = 0; i < REF(corner_count); i++) {
        BITS a = REF(corners)[i];
        EXPECT(SOFT(class)(a), REF(expected_class)(a));
        for (unsigned round = 0; round <= IR_ROUND_RMM; round++) {
            REF(check_round)(a, round);
            REF(check_to_integer)(a, round);
            REF(check)(SQRT, round, a, 0, 0);
        }
        REF(check_fast)(SQRT, a, 0, 0);
        for (unsigned j = 0; j < REF(corner_count); j++) {
            BITS b = REF(corners)[j];
            REF(check_compare)(a, b);
            REF(check_minmax)(a, b);
            for (unsigned operation = ADD; operation <= DIV; operation++) {
                for (unsigned round = 0; round <= IR_ROUND_RMM; round++) {
                    REF(check)(operation, round, a, b, 0);
                }
                REF(check_fast)(operation, a, b, 0);
            }
        }
    }
}

static void REF(corner_fma_pass)(void)
{
    for (unsigned i = 0; i < REF(corner_count); i++) {
        for (unsigned j = i % 2; j < REF(corner_count); j += 2) {
            for (unsigned k = 0; k < REF(corner_count); k++) {
                BITS a = REF(corners)[i], b = REF(corners)[j], c = REF(corners)[k];
                REF(check)(FMA, (i + j / 2 + k) % 5, a, b, c);
                REF(check_fast)(FMA, a, b, c);
            }
        }
    }
}

static void REF(random_pass)(unsigned count)
{
    struct random random = {UINT64_C(0x9e3779b97f4a7c15) + sizeof(BITS)};
    for (unsigned i = 0; i < count; i++) {
        BITS a = REF(random)(&random), b = REF(random)(&random), c = REF(random)(&random);
        for (unsigned operation = ADD; operation <= FMA; operation++) {
            unsigned round = (unsigned)(random_next(&random) % 5);
            REF(check)(operation, round, a, b, c);
            REF(check_fast)(operation, a, b, c);
        }
        /* An addend that nearly cancels the product, or lies half a place beside it. */
        uint32_t ignored = 0;
        BITS product = SOFT(mul)(a, b, i % 5, &ignored) ^ REF(sign);
        REF(check)(FMA, (i + 2) % 5, a, b, product);
        REF(check_fast)(FMA, a, b, product);
        REF(check_compare)(a, b);
        REF(check_minmax)(a, b);
        EXPECT(SOFT(class)(a), REF(expected_class)(a));
        REF(check_round)(a, i % 5);
        REF(check_to_integer)(a, i % 5);
        uint64_t integer = random_next(&random);
        REF(check_from_integer)(integer >> (a & 63), i % 5);
        REF(check_from_integer)((uint64_t)((int64_t)integer >> (b & 63)), i % 5);
    }
}

#undef CONCATENATE_
#undef CONCATENATE
#undef REF
#undef SOFT
#undef HOST
#undef FORMAT
#undef BITS
#undef NUMBER
