/* The IR library: building within limits, refusing unsound blocks, printing. */
#include "libshared/ir/opcode.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct ir_global globals[] = {
    {"x0", 0, IR_TYPE_I64},  {"x1", 8, IR_TYPE_I64},   {"f0", 16, IR_TYPE_F64},
    {"f1", 24, IR_TYPE_F64}, {"v0", 32, IR_TYPE_V128}, {0},
};

static const struct ir_helper helpers[] = {
    {"plain", NULL, 0},
    {"mode", NULL, IR_HELPER_MODE},
    {0},
};

enum { X0, X1, F0, F1, V0 };

static struct ir_block block;
static struct ir_builder builder;

static void begin(void)
{
    ir_builder_begin(&builder, &block, 7, 0x100);
    ck_assert(ir_builder_insn(&builder, 0x100, 4));
}

static void emit(enum ir_opcode opcode, unsigned aux, ir_value d, ir_value a, ir_value b,
                 ir_value c)
{
    ir_emit(&builder, opcode, aux, d, a, b, c, 0, 0);
}

static void finish(void)
{
    ir_emit(&builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, 0x104, 0);
}

static const char *verify(void)
{
    unsigned where;
    return ir_verify(&block, globals, helpers, &where);
}

START_TEST(every_operation_is_in_the_table)
{
    for (unsigned i = 0; i < IR_OPCODE_COUNT; i++) {
        ck_assert_str_ne(ir_opcode_name(i), "?");
        ck_assert_uint_lt(ir_opcode_table[i].aux, IR_AUX_KIND_COUNT);
    }
    ck_assert_str_eq(ir_opcode_name(IR_OPCODE_COUNT), "?");
    ck_assert(ir_is_terminator(IR_branch));
    ck_assert(!ir_is_terminator(IR_add));
    ck_assert(!ir_is_terminator(9999));
}
END_TEST

/* An operand of each kind, so that every operation can be built soundly from the table. */
static ir_value sample(unsigned kind)
{
    switch (kind) {
    case IR_OPERAND_I:
        return X1;
    case IR_OPERAND_X:
        return IR_IMMEDIATE;
    case IR_OPERAND_F:
        return F0;
    case IR_OPERAND_V:
        return V0;
    default:
        return IR_NONE;
    }
}

START_TEST(every_operation_verifies_and_prints)
{
    for (unsigned opcode = 0; opcode < IR_OPCODE_COUNT; opcode++) {
        const struct ir_opcode_info *info = &ir_opcode_table[opcode];
        if (opcode == IR_insn) {
            continue;
        }
        begin();
        bool vector = opcode == IR_loadv || opcode == IR_storev;
        emit(opcode, info->aux == IR_AUX_MEM ? (vector ? 4 : 3) : 0, sample(info->d),
             sample(info->a), sample(info->b), sample(info->c));
        if (!ir_is_terminator(opcode)) {
            finish();
        }
        ck_assert_msg(verify() == NULL, "%s: %s", info->name, verify());
        char text[1024];
        size_t length = ir_print(&block, globals, helpers, text, sizeof(text));
        ck_assert_uint_eq(length, strlen(text));
        ck_assert_ptr_nonnull(strstr(text, info->name));
    }
}
END_TEST

START_TEST(wrong_operands_are_refused)
{
    static const struct {
        enum ir_opcode opcode;
        unsigned aux;
        ir_value d, a, b, c;
    } unsound[] = {
        {IR_add, 0, IR_NONE, X0, X1, IR_NONE},            /* no result */
        {IR_add, 0, X0, IR_NONE, X1, IR_NONE},            /* no operand */
        {IR_add, 0, X0, IR_IMMEDIATE, X1, IR_NONE},       /* immediate in the wrong place */
        {IR_add, 0, X0, F0, X1, IR_NONE},                 /* type */
        {IR_add, 0, F0, X0, X1, IR_NONE},                 /* type of the result */
        {IR_add, 0, X0, X0, X1, X1},                      /* one too many */
        {IR_add, 1, X0, X0, X1, IR_NONE},                 /* aux */
        {IR_add, 0, X0, 100, X1, IR_NONE},                /* no such global */
        {IR_add, 0, X0, IR_TEMP_BASE, X1, IR_NONE},       /* no such temporary */
        {IR_add, 0, X0, IR_TEMP_BASE + 200, X1, IR_NONE}, /* nor this */
        {IR_add32, 2, X0, X0, X1, IR_NONE},               /* extension */
        {IR_setcc, 10, X0, X0, X1, IR_NONE},              /* condition */
        {IR_load, 4, X0, X1, IR_NONE, IR_NONE},           /* 16 bytes into an integer */
        {IR_loadf, 0, F0, X1, IR_NONE, IR_NONE},          /* a byte into a float */
        {IR_load, 0x8000, X0, X1, IR_NONE, IR_NONE},      /* unknown bits */
        {IR_amo, 9u << IR_MEM_AMO_SHIFT, X0, X1, X1, IR_NONE},
        {IR_fadd, 5, F0, F0, F1, IR_NONE},     /* rounding mode */
        {IR_fadd, 0x400, F0, F0, F1, IR_NONE}, /* unknown bits */
        {IR_helper, 2, X0, X0, X1, IR_NONE},   /* no such helper */
        {IR_OPCODE_COUNT, 0, X0, X0, X1, IR_NONE},
    };
    for (size_t i = 0; i < sizeof(unsound) / sizeof(unsound[0]); i++) {
        begin();
        block.op_count++; /* by hand: the builder would trust its caller's opcode */
        block.ops[1] = (struct ir_op){.opcode = (uint16_t)unsound[i].opcode,
                                      .aux = (uint16_t)unsound[i].aux,
                                      .d = unsound[i].d,
                                      .a = unsound[i].a,
                                      .b = unsound[i].b,
                                      .c = unsound[i].c};
        finish();
        unsigned where;
        ck_assert_msg(ir_verify(&block, globals, helpers, &where) != NULL, "case %zu", i);
        ck_assert_uint_eq(where, 1);
    }
}
END_TEST

START_TEST(temporaries_are_assigned_once_before_use)
{
    begin();
    ir_value temp = ir_temp(&builder, IR_TYPE_I64);
    emit(IR_add, 0, X0, temp, X1, IR_NONE);
    finish();
    ck_assert_ptr_nonnull(verify());

    begin();
    temp = ir_temp(&builder, IR_TYPE_I64);
    emit(IR_mov, 0, temp, IR_NONE, X1, IR_NONE);
    emit(IR_add, 0, X0, temp, temp, IR_NONE);
    finish();
    ck_assert_ptr_null(verify());

    begin();
    temp = ir_temp(&builder, IR_TYPE_I64);
    emit(IR_mov, 0, temp, IR_NONE, X1, IR_NONE);
    emit(IR_mov, 0, temp, IR_NONE, X1, IR_NONE);
    finish();
    ck_assert_ptr_nonnull(verify());
}
END_TEST

START_TEST(shape_is_checked)
{
    begin();
    ck_assert_ptr_nonnull(verify()); /* no terminator */
    finish();
    ck_assert_ptr_null(verify());
    finish();
    ck_assert_ptr_nonnull(verify()); /* two of them */

    begin();
    finish();
    block.insn_count = 2;
    ck_assert_ptr_nonnull(verify());
    block.insn_count = 0;
    ck_assert_ptr_nonnull(verify());

    begin();
    finish();
    block.length = 8;
    ck_assert_ptr_nonnull(verify());

    begin();
    finish();
    block.op_count = 60000;
    ck_assert_ptr_nonnull(verify());
    block.op_count = 2;
    block.temp_count = 60000;
    ck_assert_ptr_nonnull(verify());

    begin();
    finish();
    block.start = 0x102;
    ck_assert_ptr_nonnull(verify());

    begin();
    ck_assert(ir_builder_insn(&builder, 0x106, 4)); /* a gap */
    finish();
    ck_assert_ptr_nonnull(verify());

    begin();
    ir_emit(&builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, INT64_C(1) << 40, 0);
    ck_assert_ptr_nonnull(verify());
}
END_TEST

START_TEST(mode_changes_end_in_an_exit)
{
    begin();
    emit(IR_helper, 1, IR_NONE, X0, IR_NONE, IR_NONE);
    finish();
    ck_assert_ptr_nonnull(verify());
    begin();
    emit(IR_helper, 1, IR_NONE, X0, IR_NONE, IR_NONE);
    emit(IR_exit_pc, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE);
    ck_assert_ptr_null(verify());
}
END_TEST

START_TEST(only_a_lone_instruction_straddles)
{
    ir_builder_begin(&builder, &block, 0, 0xffe);
    ir_builder_insn(&builder, 0xffe, 4);
    finish();
    ck_assert(block.straddles);
    ck_assert_ptr_null(verify());

    ir_builder_begin(&builder, &block, 0, 0xffa);
    ir_builder_insn(&builder, 0xffa, 4);
    ir_builder_insn(&builder, 0xffe, 4);
    finish();
    ck_assert_ptr_nonnull(verify());
}
END_TEST

START_TEST(overflow_rewinds_to_the_last_instruction)
{
    ir_builder_begin(&builder, &block, 0, 0);
    unsigned insns = 0;
    while (ir_builder_insn(&builder, (uint16_t)(insns * 4), 4)) {
        for (unsigned i = 0; i < 20; i++) {
            emit(IR_mov, 0, X0, IR_NONE, X1, IR_NONE);
        }
        if (builder.overflow) {
            ir_builder_rewind(&builder);
            break;
        }
        insns++;
    }
    ck_assert(!builder.overflow);
    ck_assert_uint_eq(block.insn_count, insns);
    ck_assert_uint_eq(block.length, insns * 4);
    ck_assert_uint_ge(insns, (IR_OPS_MAX - 2) / 21);
    finish();
    ck_assert(!builder.overflow);
    ck_assert_ptr_null(verify());
}
END_TEST

START_TEST(blocks_are_full_at_the_instruction_limit)
{
    ir_builder_begin(&builder, &block, 0, 0);
    unsigned insns = 0;
    while (ir_builder_insn(&builder, (uint16_t)(insns * 4), 4)) {
        insns++;
    }
    ck_assert_uint_eq(insns, IR_INSNS_MAX);
    finish();
    ck_assert_ptr_null(verify());
}
END_TEST

START_TEST(temporaries_run_out_without_harm)
{
    begin();
    for (unsigned i = 0; i < IR_TEMPS_MAX; i++) {
        ck_assert(ir_is_temp(ir_temp(&builder, IR_TYPE_I64)));
        ck_assert(!builder.overflow);
    }
    ir_value more = ir_temp(&builder, IR_TYPE_I64);
    ck_assert(ir_is_temp(more));
    ck_assert(builder.overflow);
    ir_builder_rewind(&builder);
    ck_assert_uint_eq(block.temp_count, 0);
    ck_assert_uint_eq(block.op_count, 0);
    ck_assert_uint_eq(block.insn_count, 0);
}
END_TEST

START_TEST(printing)
{
    begin();
    ir_value temp = ir_temp(&builder, IR_TYPE_I64);
    ir_emit(&builder, IR_load, 2 | IR_MEM_SIGN, temp, X1, IR_NONE, IR_NONE, 16, 0);
    ir_emit(&builder, IR_add, 0, X0, temp, IR_IMMEDIATE, IR_NONE, -3, 0);
    ir_emit(&builder, IR_branch, IR_LTU, IR_NONE, X0, X1, IR_NONE, 0, 0x80);
    const char *expected = "block mode 0x7 start 0x100 length 4 insns 1\n"
                           "  insn 0x100 +4\n"
                           "    load.32s t0, x1 +16\n"
                           "    add x0, t0, -3\n"
                           "    branch.ltu x0, x1 -> +128\n";
    char text[512];
    size_t length = ir_print(&block, globals, helpers, text, sizeof(text));
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(length, strlen(expected));
    char small[16];
    ck_assert_uint_eq(ir_print(&block, globals, helpers, small, sizeof(small)), length);
    ck_assert_uint_eq(strlen(small), sizeof(small) - 1);
    ck_assert_uint_eq(ir_print(&block, globals, helpers, NULL, 0), length);
}
END_TEST

/* Random bytes as a block: any answer will do, but no crash (run under the sanitizers). */
START_TEST(hostile_blocks_do_no_harm)
{
    srand(1);
    for (unsigned round = 0; round < 3000; round++) {
        uint8_t *bytes = (uint8_t *)&block;
        for (size_t i = 0; i < 256; i++) {
            bytes[i] = (uint8_t)rand();
        }
        block.straddles = rand() & 1;
        if (round & 1) {
            block.op_count %= 8;
            block.start %= 4096;
            block.temp_count %= 8;
            block.insn_count = 1;
        }
        unsigned where;
        char text[256];
        ir_verify(&block, globals, helpers, &where);
        ck_assert_uint_le(where, IR_OPS_MAX);
        ir_print(&block, globals, helpers, text, sizeof(text));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ir");
    TCase *tests = tcase_create("ir");
    tcase_add_test(tests, every_operation_is_in_the_table);
    tcase_add_test(tests, every_operation_verifies_and_prints);
    tcase_add_test(tests, wrong_operands_are_refused);
    tcase_add_test(tests, temporaries_are_assigned_once_before_use);
    tcase_add_test(tests, shape_is_checked);
    tcase_add_test(tests, mode_changes_end_in_an_exit);
    tcase_add_test(tests, only_a_lone_instruction_straddles);
    tcase_add_test(tests, overflow_rewinds_to_the_last_instruction);
    tcase_add_test(tests, blocks_are_full_at_the_instruction_limit);
    tcase_add_test(tests, temporaries_run_out_without_harm);
    tcase_add_test(tests, printing);
    tcase_add_test(tests, hostile_blocks_do_no_harm);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
