/* The riscv64 decoder: what it accepts, the shape of the blocks it builds. */
#include "libshared/isa/riscv64/helpers.h"
#include "test_riscv64.h"
#include "tests/unit/suite.h"

#define DIRTY BLOCK_MODE_FS_DIRTY
#define NOP   0x00000013u

static const struct ir_op *last_op(const struct machine *m)
{
    return &m->block.ops[m->block.op_count - 1];
}

static unsigned count_ops(const struct machine *m, unsigned opcode)
{
    unsigned count = 0;
    for (unsigned i = 0; i < m->block.op_count; i++) {
        count += m->block.ops[i].opcode == opcode;
    }
    return count;
}

/* Whether a lone word decodes to the illegal-instruction trap, reported with `bits`. */
static bool is_illegal(struct machine *m, uint32_t word, uint32_t mode)
{
    decode_words(m, 0, &word, 1, mode);
    const struct ir_op *op = &m->block.ops[1];
    if (op->opcode == IR_helper && op->aux == HELPER_illegal) {
        ck_assert_uint_eq(m->block.op_count, 3);
        ck_assert_uint_eq(m->block.insn_count, 1);
        ck_assert_uint_eq((uint64_t)op->imm, (word & 3) == 3 ? word : word & 0xffff);
        return true;
    }
    return false;
}

static uint64_t random_state = 1;
static uint32_t random_word(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 32);
}

/* Any bytes give a block that verifies, in any mode, from any start. */
START_TEST(random_bytes_always_decode)
{
    struct machine *m = machine_new();
    static uint8_t page[8192];
    for (unsigned round = 0; round < 20000; round++) {
        struct isa_code code = {.page = page,
                                .next_page = round % 3 ? page + 4096 : NULL,
                                .insn_limit = (uint16_t)(1 + random_word() % IR_INSNS_MAX),
                                .mode = random_word() % 3 | random_word() % 8 << 2};
        code.start = (uint16_t)(random_word() % 2048 * 2);
        if (round % 16 == 0) {
            code.start = 4094;
        }
        for (unsigned i = 0; i < 64; i++) {
            unsigned at = (code.start + i * 4) % 8188;
            uint32_t word = random_word();
            if (i % 4) { /* mostly instructions that a program has */
                static const uint8_t majors[] = {0x03, 0x13, 0x33, 0x1b, 0x3b, 0x53, 0x2f, 0x23,
                                                 0x07, 0x27, 0x43, 0x0f, 0x17, 0x37, 0x73};
                word = (word & ~0x7fu) | majors[random_word() % sizeof(majors)];
                word &= word & 0x80 ? ~0u : 0x0fffffff;
            }
            memcpy(page + at, &word, 4);
        }
        if (isa_riscv64.decode(&m->block, &code) == ISA_NEEDS_NEXT_PAGE) {
            ck_assert_uint_eq(code.start, 4094);
            ck_assert_ptr_null(code.next_page);
        } else {
            verify_block(&m->block);
            ck_assert_uint_le(m->block.insn_count, code.insn_limit);
            ck_assert_uint_eq(m->block.mode, code.mode);
        }
    }
    machine_free(m);
}
END_TEST

/* All of the table: each row verifies alone and names a real operation. */
START_TEST(each_table_row_builds_a_sound_block)
{
    struct machine *m = machine_new();
    for (unsigned major = 3; major < 128; major += 4) {
        for (unsigned i = 0; i < 200000; i++) {
            uint32_t word = (random_word() & ~0x7fu) | major;
            const struct riscv64_instruction *row = riscv64_find(word);
            if (row) {
                ck_assert_uint_eq(word & row->mask, row->match);
                decode_words(m, 0, &word, 1, DIRTY);
            }
        }
    }
    machine_free(m);
}
END_TEST

START_TEST(reserved_words_are_illegal)
{
    static const uint32_t words[] = {
        0x00000000,
        0xffffffff,
        0x0000000b,
        0x0000002b,
        0x00000057,
        0x0000005b,
        0x0000006b,
        0x00000077,
        0x0000007b,
        0x0000001f,
        0x0000003f,
        0x0000007f,
        0x00007003,                    /* LOAD funct3 7 */
        0x00004023,                    /* STORE funct3 4 */
        0x00002063,                    /* BRANCH funct3 2 */
        0x00001067,                    /* JALR funct3 1 */
        0x0200101b,                    /* SLLIW with a count of 32 */
        0x04001013,                    /* SLLI funct6 1 */
        0x40001013,                    /* SLLI with bit 30 */
        0x80000033,                    /* OP funct7 0x40 */
        0x0200103b,                    /* OP-32 MULH */
        0x00000073 | 1 << 7,           /* ECALL with rd */
        0x00200073,                    /* URET */
        0x30200073 | 1 << 15,          /* MRET with rs1 */
        0x00004073,                    /* hypervisor loads */
        0x62000073,                    /* HFENCE.GVMA */
        0x0000000f | 2 << 12 | 1 << 7, /* CBO with rd */
        0x0030200f,                    /* CBO 3 */
        0x1010202f,                    /* LR.W with rs2 */
        0x0000102f,                    /* AMO of halfwords */
        0x2800202f,                    /* AMOCAS (not implemented) */
        0x04000053,                    /* OP-FP half precision */
        0x06000053,                    /* quad */
        0x02000053 | 5 << 12,          /* FADD.D with rounding mode 5 */
        0x02000053 | 6 << 12,          /* and 6 */
        0x42100053,                    /* FCVT.D.D */
        0xc2801053 & ~0x1000u,         /* FCVTMOD.W.D with rounding mode 0 */
        0xe0100053,                    /* FMV.X.W with rs2 1 */
        0x58100053,                    /* FSQRT with rs2 */
        0x00000007,                    /* vector load */
        0x00004007 | 1 << 12,
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ck_assert_msg(is_illegal(m, words[i], DIRTY), "%08x", words[i]);
    }
    machine_free(m);
}
END_TEST

START_TEST(reserved_halves_are_illegal)
{
    static const uint16_t halves[] = {
        0x0000,
        0x0004 /* ADDI4SPN 0 */,
        0x8000,
        0x9ffc /* quadrant 0 funct3 4 */,
        0x2001 /* C.ADDIW x0 */,
        0x6081 /* C.LUI 0 */,
        0x6101 /* C.ADDI16SP 0 */,
        0x9c41,
        0x9c61 /* MISC-ALU 6, 7 */,
        0x4002 /* C.LWSP x0 */,
        0x6002 /* C.LDSP x0 */,
        0x8002 /* C.JR x0 */,
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        ck_assert_msg(is_illegal(m, halves[i], DIRTY), "%04x", halves[i]);
    }
    machine_free(m);
}
END_TEST

/* Each expansion is an instruction, or reserved. The count is that of the encoding tables: all
 * halves of the three quadrants less the reserved ones (quadrant 0: 14328, 1: 16160, 2: 16255). */
START_TEST(halves_expand_to_instructions)
{
    unsigned legal = 0;
    for (unsigned half = 0; half < 0x10000; half++) {
        uint32_t word = riscv64_expand((uint16_t)half);
        if ((half & 3) == 3) {
            ck_assert_uint_eq(word, 0);
        } else if (word) {
            ck_assert_msg(riscv64_find(word) != NULL, "%04x -> %08x", half, word);
            legal++;
        }
    }
    ck_assert_uint_eq(legal, 46743);
}
END_TEST

START_TEST(one_operation_where_one_is_enough)
{
    static const struct {
        uint32_t word;
        unsigned opcode;
    } cases[] = {
        {0x00c58533, IR_add},    /* add a0,a1,a2 */
        {0x00158513, IR_add},    /* addi a0,a1,1 */
        {0x00500513, IR_mov},    /* li a0,5 */
        {0x00058513, IR_mov},    /* mv a0,a1 */
        {0x00b00533, IR_mov},    /* add a0,zero,a1 */
        {0x12345537, IR_mov},    /* lui */
        {0x00000517, IR_pcrel},  /* auipc */
        {0x00c5853b, IR_add32},  /* addw */
        {0x0005851b, IR_sext32}, /* sext.w */
        {0x0805853b, IR_zext32}, /* zext.w */
        {0x40b0053b, IR_sub32},  /* negw */
        {0x0085b503, IR_load},   /* ld */
        {0x00b53423, IR_store},  /* sd */
        {0x0015b513, IR_setcc},  /* seqz */
        {0x00b03533, IR_setcc},  /* snez */
        {0x0205c533, IR_divs},   /* div a0,a1,zero */
        {0x20c5a533, IR_shladd}, /* sh1add */
        {0x48c59513, IR_and},    /* bclri */
        {0x00a5b02f, IR_amo},    /* amoadd.d */
        {0x02c5f553, IR_fadd},   /* fadd.d dynamic */
        {0x22b58553, IR_fmov},   /* fmv.d fa0,fa1 */
        {0x0085b507, IR_loadf},  /* fld */
        {0x0ff0000f, IR_fence},  /* fence */
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        decode_words(m, 0, &cases[i].word, 1, DIRTY);
        ck_assert_msg(m->block.ops[1].opcode == cases[i].opcode, "%08x: %s", cases[i].word,
                      ir_opcode_name(m->block.ops[1].opcode));
        ck_assert_uint_eq(m->block.ops[2].opcode, IR_insn);
    }
    machine_free(m);
}
END_TEST

/* Results for x0 vanish, but not accesses and flags. */
START_TEST(register_zero_is_never_written)
{
    static const uint32_t pure[] = {0x00c58033, 0x00158013, 0x12345037, 0x00000017,
                                    0x02c58033, 0x48c5d033, 0xe2051053 /* fclass.d */};
    static const uint32_t kept[] = {0x0085b003, 0x00a5b02f, 0xa2b50053, 0x100b302f, 0x18a5b02f};
    struct machine *m = machine_new();
    for (unsigned i = 0; i < 6; i++) {
        decode_words(m, 0, &pure[i], 1, DIRTY);
        ck_assert_uint_eq(m->block.ops[1].opcode, IR_insn);
    }
    for (unsigned i = 0; i < 5; i++) {
        decode_words(m, 0, &kept[i], 1, DIRTY);
        ck_assert_uint_ne(m->block.ops[1].opcode, IR_insn);
        ck_assert(ir_is_temp(m->block.ops[1].d));
    }
    for (unsigned i = 0; i < 2000000; i++) {
        uint32_t word = (random_word() & ~0xf80u) | 3;
        if (riscv64_find(word)) {
            decode_words(m, 0, &word, 1, DIRTY);
            for (unsigned op = 0; op < m->block.op_count; op++) {
                ck_assert_uint_ne(m->block.ops[op].d, 0);
            }
        }
    }
    machine_free(m);
}
END_TEST

START_TEST(blocks_end_where_they_must)
{
    uint32_t nops[80];
    uint32_t crossing = 0x00c58533;
    struct machine *m = machine_new();
    for (unsigned i = 0; i < 80; i++) {
        nops[i] = NOP;
    }
    /* at the instruction limit */
    decode_words(m, 0, nops, 80, 0);
    ck_assert_uint_eq(m->block.insn_count, IR_INSNS_MAX);
    ck_assert_uint_eq(last_op(m)->opcode, IR_jump);
    ck_assert_int_eq(last_op(m)->imm, IR_INSNS_MAX * 4);
    /* at the page's end */
    decode_words(m, 4096 - 12, nops, 3, 0);
    ck_assert_uint_eq(m->block.insn_count, 3);
    ck_assert_uint_eq(m->block.length, 12);
    ck_assert_int_eq(last_op(m)->imm, 4096);
    ck_assert(!m->block.straddles);
    /* before an instruction that crosses it */
    uint8_t page[8192] = {0};
    struct isa_code code = {.page = page, .start = 4090, .insn_limit = IR_INSNS_MAX};
    memcpy(page + 4090, nops, 4);
    memcpy(page + 4094, &crossing, 4);
    code.next_page = page + 4096;
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    verify_block(&m->block);
    ck_assert_uint_eq(m->block.insn_count, 1);
    ck_assert_int_eq(last_op(m)->imm, 4094);
    /* which is then alone */
    code.start = 4094;
    code.next_page = NULL;
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_NEEDS_NEXT_PAGE);
    code.next_page = page + 4096;
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    verify_block(&m->block);
    ck_assert(m->block.straddles);
    ck_assert_uint_eq(m->block.insn_count, 1);
    ck_assert_uint_eq(m->block.ops[1].opcode, IR_add);
    ck_assert_int_eq(last_op(m)->imm, 4098);
    /* a 16-bit instruction in the last place needs no next page */
    page[4094] = 0x01;
    page[4095] = 0x00;
    code.next_page = NULL;
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    ck_assert(!m->block.straddles);
    ck_assert_int_eq(last_op(m)->imm, 4096);
    machine_free(m);
}
END_TEST

START_TEST(instruction_limit_is_kept)
{
    struct machine *m = machine_new();
    uint32_t words[4] = {NOP, NOP, NOP, NOP};
    struct isa_code code = {.page = (const uint8_t *)words, .insn_limit = 1};
    uint8_t page[4096] = {0};
    memcpy(page, words, sizeof(words));
    code.page = page;
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    ck_assert_uint_eq(m->block.insn_count, 1);
    ck_assert_int_eq(last_op(m)->imm, 4);
    machine_free(m);
}
END_TEST

/* Many temporaries: the block ends early instead of overflowing. */
START_TEST(temporaries_run_out_gracefully)
{
    uint32_t words[64];
    struct machine *m = machine_new();
    for (unsigned i = 0; i < 64; i++) {
        words[i] = 0x28c59533; /* bset a0,a1,a2: two temporaries */
    }
    decode_words(m, 0, words, 64, 0);
    ck_assert_uint_eq(m->block.insn_count, IR_TEMPS_MAX / 2);
    ck_assert_int_eq(last_op(m)->imm, IR_TEMPS_MAX / 2 * 4);
    for (unsigned i = 0; i < 64; i++) {
        words[i] = 0x0045a00f; /* cbo.zero (a1) */
    }
    decode_words(m, 0, words, 64, 0);
    ck_assert_int_eq(last_op(m)->opcode, IR_jump);
    machine_free(m);
}
END_TEST

/* Return-address stack hints (volume I, table of JALR). */
START_TEST(calls_and_returns_are_told_apart)
{
    static const struct {
        unsigned rd, rs1, opcode;
    } cases[] = {
        {0, 10, IR_jump_ind}, {0, 1, IR_ret},        {0, 5, IR_ret},      {1, 10, IR_call_ind},
        {5, 10, IR_call_ind}, {1, 1, IR_call_ind},   {5, 5, IR_call_ind}, {1, 5, IR_jump_ind},
        {5, 1, IR_jump_ind},  {10, 10, IR_jump_ind}, {10, 1, IR_ret},
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t word = cases[i].rs1 << 15 | cases[i].rd << 7 | 0x67;
        decode_words(m, 0x10, &word, 1, 0);
        ck_assert_uint_eq(last_op(m)->opcode, cases[i].opcode);
        if (cases[i].opcode == IR_call_ind) {
            ck_assert_int_eq(last_op(m)->imm2, 0x14);
        }
    }
    uint32_t jal_ra = 0x008000ef, jal_zero = 0x0080006f, jal_a0 = 0x0080056f;
    decode_words(m, 0x10, &jal_ra, 1, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_call);
    ck_assert_int_eq(last_op(m)->imm, 0x18);
    ck_assert_int_eq(last_op(m)->imm2, 0x14);
    decode_words(m, 0x10, &jal_zero, 1, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_jump);
    ck_assert_uint_eq(m->block.op_count, 2);
    decode_words(m, 0x10, &jal_a0, 1, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_jump);
    ck_assert_uint_eq(count_ops(m, IR_pcrel), 1);
    machine_free(m);
}
END_TEST

/* auipc ra; jalr ra, lo(ra) is a direct call. */
START_TEST(far_calls_become_direct)
{
    uint32_t far_call[] = {0x00012097, 0x344080e7};
    uint32_t apart[] = {0x00012097, NOP, 0x344080e7};
    uint32_t other[] = {0x00012317, 0x344080e7};
    struct machine *m = machine_new();
    decode_words(m, 0x20, far_call, 2, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_call);
    ck_assert_int_eq(last_op(m)->imm, 0x20 + 0x12000 + 0x344);
    ck_assert_int_eq(last_op(m)->imm2, 0x28);
    decode_words(m, 0x20, apart, 3, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_call_ind);
    decode_words(m, 0x20, other, 2, 0);
    ck_assert_uint_eq(last_op(m)->opcode, IR_call_ind);
    machine_free(m);
}
END_TEST

START_TEST(float_needs_its_unit)
{
    static const uint32_t words[] = {0x02c5f553 /* fadd.d */, 0x0085b507 /* fld */,
                                     0x00a53427 /* fsd */, 0xe2050553 /* fmv.x.d */};
    struct machine *m = machine_new();
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(is_illegal(m, words[i], BLOCK_MODE_FS_OFF));
        ck_assert(!is_illegal(m, words[i], BLOCK_MODE_FS_CLEAN));
        ck_assert(!is_illegal(m, words[i], BLOCK_MODE_FS_DIRTY));
    }
    ck_assert(is_illegal(m, 0x2188 /* c.fld */, BLOCK_MODE_FS_OFF));
    machine_free(m);
}
END_TEST

/* The first write under a clean unit marks it and leaves the block after the instruction. */
START_TEST(first_float_write_marks_the_unit_dirty)
{
    uint32_t words[] = {0x00a53427 /* fsd: no write */, 0x0085b507 /* fld */, NOP};
    struct machine *m = machine_new();
    decode_words(m, 0, words, 3, BLOCK_MODE_FS_CLEAN);
    ck_assert_uint_eq(m->block.insn_count, 2);
    ck_assert_uint_eq(last_op(m)->opcode, IR_exit);
    ck_assert_int_eq(last_op(m)->imm, 8);
    ck_assert_uint_eq(m->block.ops[3].opcode, IR_helper);
    ck_assert_uint_eq(m->block.ops[3].aux, HELPER_float_dirty);
    ck_assert_uint_eq(m->block.ops[4].opcode, IR_loadf);
    decode_words(m, 0, words, 3, BLOCK_MODE_FS_DIRTY);
    ck_assert_uint_eq(m->block.ops[3].opcode, IR_loadf);
    machine_free(m);
}
END_TEST

START_TEST(rounding_mode_comes_from_instruction_or_mode)
{
    struct machine *m = machine_new();
    for (unsigned round = 0; round < 8; round++) {
        uint32_t fixed = 0x02c58553 | round << 12, dynamic = 0x02c5f553;
        uint32_t mode = BLOCK_MODE_FS_DIRTY | round << BLOCK_MODE_FRM_SHIFT;
        if (round < 5) {
            decode_words(m, 0, &fixed, 1, DIRTY);
            ck_assert_uint_eq(m->block.ops[1].aux & IR_FP_ROUND, round);
            decode_words(m, 0, &dynamic, 1, mode);
            ck_assert_uint_eq(m->block.ops[1].aux & IR_FP_ROUND, round);
        } else {
            ck_assert(is_illegal(m, dynamic, mode));
            ck_assert(round == 7 || is_illegal(m, fixed, DIRTY));
        }
    }
    /* what does not round does not care */
    ck_assert(!is_illegal(m, 0x2ac58553 /* fmin.d */, DIRTY | 5 << BLOCK_MODE_FRM_SHIFT));
    machine_free(m);
}
END_TEST

START_TEST(load_reserved_looks_for_its_partner)
{
    const uint32_t lr = 0x100527af, sc = 0x18d5272f, add = 0x00178793, load = 0x00053783;
    const uint32_t back = 0xfe0716e3, skip = 0x00071863, jump = 0x0080006f;
    const struct {
        uint32_t words[6];
        bool constrained;
    } cases[] = {
        {{lr, add, sc, back}, true},       {{lr, skip, sc, back}, true},
        {{lr, load, sc, back}, false},     {{lr, back, sc}, false},
        {{lr, jump, sc}, false},           {{lr, ECALL, sc}, false},
        {{lr, 0x0ff0000f, sc}, true},      {{lr, lr, sc}, false},
        {{lr, add, add, add, add}, false},
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        decode_words(m, 0, cases[i].words, 6, 0);
        ck_assert_msg(!!(m->block.ops[1].aux & IR_MEM_CONSTRAINED) == cases[i].constrained,
                      "case %u", i);
    }
    /* the page's end is the end of knowledge */
    decode_words(m, 4096 - 8, cases[0].words, 2, 0);
    ck_assert(!(m->block.ops[1].aux & IR_MEM_CONSTRAINED));
    machine_free(m);
}
END_TEST

START_TEST(csr_instructions_end_blocks_only_when_needed)
{
    static const struct {
        unsigned operation, csr, rs1, terminator; /* terminator 0: the block goes on */
    } cases[] = {
        {CSRRS, 0x100, 0, 0},       {CSRRCI, 0x100, 2, 0},       {CSRRSI, 0x100, 2, IR_jump},
        {CSRRS, 0x100, 5, IR_exit}, {CSRRWI, 0x100, 2, IR_exit}, {CSRRW, 0x140, 5, 0},
        {CSRRW, 0x180, 5, IR_exit}, {CSRRS, 0xc01, 0, 0},        {CSRRW, 0x002, 5, IR_exit},
        {CSRRC, 0x104, 5, IR_jump}, {CSRRW, 0x14d, 5, IR_jump},  {CSRRS, 0x001, 0, 0},
        {CSRRW, 0x3a0, 5, IR_exit},
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t words[] = {csr_word(cases[i].operation, cases[i].csr, 10, cases[i].rs1), NOP};
        decode_words(m, 0, words, 2, 0);
        if (cases[i].terminator) {
            ck_assert_msg(m->block.insn_count == 1, "case %u", i);
            ck_assert_uint_eq(last_op(m)->opcode, cases[i].terminator);
            ck_assert_int_eq(last_op(m)->imm, 4);
        } else {
            ck_assert_msg(m->block.insn_count > 1, "case %u", i);
        }
    }
    machine_free(m);
}
END_TEST

START_TEST(fences_keep_their_sets)
{
    struct machine *m = machine_new();
    uint32_t pause = 0x0100000f, tso = 0x8330000f, rw = 0x0230000f, wide = 0x0ff0000f;
    decode_words(m, 0, &pause, 1, 0);
    ck_assert_uint_eq(count_ops(m, IR_fence), 0);
    ck_assert_uint_eq(count_ops(m, IR_helper), 1); /* the host may let others run */
    decode_words(m, 0, &tso, 1, 0);
    ck_assert_uint_eq(count_ops(m, IR_fence), 2);
    decode_words(m, 0, &rw, 1, 0);
    ck_assert_int_eq(m->block.ops[1].imm, 0x23);
    decode_words(m, 0, &wide, 1, 0);
    ck_assert_int_eq(m->block.ops[1].imm, 0xff);
    machine_free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 decode");
    TCase *decode = tcase_create("decode");
    tcase_set_timeout(decode, 120);
    tcase_add_test(decode, random_bytes_always_decode);
    tcase_add_test(decode, each_table_row_builds_a_sound_block);
    tcase_add_test(decode, reserved_words_are_illegal);
    tcase_add_test(decode, reserved_halves_are_illegal);
    tcase_add_test(decode, halves_expand_to_instructions);
    tcase_add_test(decode, one_operation_where_one_is_enough);
    tcase_add_test(decode, register_zero_is_never_written);
    tcase_add_test(decode, blocks_end_where_they_must);
    tcase_add_test(decode, instruction_limit_is_kept);
    tcase_add_test(decode, temporaries_run_out_gracefully);
    tcase_add_test(decode, calls_and_returns_are_told_apart);
    tcase_add_test(decode, far_calls_become_direct);
    tcase_add_test(decode, float_needs_its_unit);
    tcase_add_test(decode, first_float_write_marks_the_unit_dirty);
    tcase_add_test(decode, rounding_mode_comes_from_instruction_or_mode);
    tcase_add_test(decode, load_reserved_looks_for_its_partner);
    tcase_add_test(decode, csr_instructions_end_blocks_only_when_needed);
    tcase_add_test(decode, fences_keep_their_sets);
    suite_add_tcase(suite, decode);
    return suite_run(suite);
}
