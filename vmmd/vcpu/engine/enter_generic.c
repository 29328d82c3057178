/* Hosts whose compiled code needs no more than the arguments. */
#if !defined(__x86_64__)

#include "vmmd/vcpu/engine/enter.h"
#include <string.h>

CODE_CALL void enter_code(struct cpu *cpu, const void *step, char *tlb, uint64_t tlb_mask,
                          uint64_t unused_a, uint64_t unused_b, struct code_target *target,
                          void *entry)
{
    code_function *function;
    memcpy(&function, &entry, sizeof(function));
    function(cpu, step, tlb, tlb_mask, unused_a, unused_b, target);
}

#endif
