/* The riscv64 disassembler: one line of each operand pattern, and robustness. */
#include "test_riscv64.h"
#include "tests/unit/suite.h"

static const struct {
    uint32_t word;
    unsigned length;
    const char *text;
} cases[] = {
    {0x00c58533, 4, "add a0, a1, a2"},
    {0xfff58513, 4, "addi a0, a1, -1"},
    {0x03f59513, 4, "slli a0, a1, 63"},
    {0x80000537, 4, "lui a0, 0x80000"},
    {0x00012097, 4, "auipc ra, 0x12"},
    {0xff9ff0ef, 4, "jal ra, 0xff8"},
    {0x34408067, 4, "jalr zero, 836(ra)"},
    {0xfe059ce3, 4, "bne a1, zero, 0xff8"},
    {0xffb5b503, 4, "ld a0, -5(a1)"},
    {0xfec5bfa3, 4, "sd a2, -1(a1)"},
    {0x0085b507, 4, "fld fa0, 8(a1)"},
    {0x00a5a427, 4, "fsw fa0, 8(a1)"},
    {0x06c5b52f, 4, "amoadd.d.aqrl a0, a2, (a1)"},
    {0x1005a52f, 4, "lr.w a0, (a1)"},
    {0x1ac5a52f, 4, "sc.w.rl a0, a2, (a1)"},
    {0x0330000f, 4, "fence rw, rw"},
    {0x0ff0000f, 4, "fence iorw, iorw"},
    {0x0100000f, 4, "pause"},
    {0x0045a00f, 4, "cbo.zero (a1)"},
    {0x30029573, 4, "csrrw a0, mstatus, t0"},
    {0x10017073, 4, "csrrci zero, sstatus, 2"},
    {0x7c002573, 4, "csrrs a0, 0x7c0, zero"},
    {0x12b50073, 4, "sfence.vma a0, a1"},
    {0x68d67543, 4, "fmadd.s fa0, fa2, fa3, fa3"},
    {0x02c59553, 4, "fadd.d fa0, fa1, fa2, rtz"},
    {0x02c5f553, 4, "fadd.d fa0, fa1, fa2"},
    {0x5a05f553, 4, "fsqrt.d fa0, fa1"},
    {0xa2c5a553, 4, "feq.d a0, fa1, fa2"},
    {0xc2259553, 4, "fcvt.l.d a0, fa1, rtz"},
    {0xe2058553, 4, "fmv.x.d a0, fa1"},
    {0xd2257553, 4, "fcvt.d.l fa0, a0"},
    {0xf2180553, 4, "fli.d fa0, 16"},
    {ECALL, 4, "ecall"},
    {0x0001, 2, "addi zero, zero, 0"},
    {0x8082, 2, "jalr zero, 0(ra)"},
    {0x6105, 2, "addi sp, sp, 32"},
    {0xbfe5, 2, "jal zero, 0xff8"},
    {0x0000, 0, ""},
    {0xffffffff, 0, ""},
};

START_TEST(one_line_each)
{
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        uint8_t bytes[4];
        memcpy(bytes, &cases[i].word, 4);
        ck_assert_uint_eq(isa_riscv64.disassemble(bytes, 4, 0x1000, text, sizeof(text)),
                          cases[i].length);
        ck_assert_str_eq(text, cases[i].text);
    }
}
END_TEST

START_TEST(short_input_and_output)
{
    uint8_t bytes[4];
    char text[64];
    memcpy(bytes, &cases[0].word, 4);
    for (unsigned available = 0; available < 4; available++) {
        ck_assert_uint_eq(isa_riscv64.disassemble(bytes, available, 0, text, sizeof(text)), 0);
        ck_assert_str_eq(text, "");
    }
    for (size_t size = 0; size < 16; size++) {
        memset(text, 'x', sizeof(text));
        ck_assert_uint_eq(isa_riscv64.disassemble(bytes, 4, 0, text, size), 4);
        ck_assert(size == 0 || strlen(text) == (size < 15 ? size - 1 : 14));
        ck_assert_int_eq(text[size], 'x');
    }
}
END_TEST

/* Whatever decodes has text, and the reverse. */
START_TEST(agrees_with_the_decoder)
{
    struct machine *m = machine_new();
    uint64_t state = 7;
    for (unsigned i = 0; i < 20000; i++) {
        char text[128];
        uint8_t bytes[4];
        state = state * UINT64_C(6364136223846793005) + 1;
        uint32_t word = (uint32_t)(state >> 32) | 3;
        memcpy(bytes, &word, 4);
        bool known = isa_riscv64.disassemble(bytes, 4, 0, text, sizeof(text)) != 0;
        ck_assert(known == (riscv64_find(word) != NULL));
        ck_assert(known == (text[0] != '\0'));
        ck_assert_uint_lt(strlen(text), 48);
    }
    machine_free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 disassemble");
    TCase *disassemble = tcase_create("disassemble");
    tcase_add_test(disassemble, one_line_each);
    tcase_add_test(disassemble, short_input_and_output);
    tcase_add_test(disassemble, agrees_with_the_decoder);
    suite_add_tcase(suite, disassemble);
    return suite_run(suite);
}
