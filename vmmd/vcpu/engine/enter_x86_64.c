#if defined(__x86_64__)

#include "vmmd/vcpu/engine/enter.h"

/* preserve_none: cpu is in r12, `entry`, the eighth argument, in rcx. */
#define TEXT_OF(value) #value
#define TEXT(value)    TEXT_OF(value)
__asm__(".pushsection .text, \"ax\", @progbits\n"
        ".p2align 4\n"
        ".globl enter_code\n"
        ".hidden enter_code\n"
        ".type enter_code, @function\n"
        "enter_code:\n"
        ".cfi_startproc\n"
        "    pushq %rbp\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset %rbp, 0\n"
        "    leaq " TEXT(CPU_MIDDLE) "(%r12), %rbp\n"
                                     "    callq *%rcx\n"
                                     "    popq %rbp\n"
                                     ".cfi_adjust_cfa_offset -8\n"
                                     ".cfi_restore %rbp\n"
                                     "    retq\n"
                                     ".cfi_endproc\n"
                                     ".size enter_code, . - enter_code\n"
                                     ".popsection\n");

#endif
