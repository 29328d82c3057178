#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"
#include <string.h>

static const struct machine_model *const models[] = {&machine_model_riscv64};

const struct machine_model *machine_model_find(const char *arch)
{
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        if (strcmp(models[i]->arch, arch) == 0) {
            return models[i];
        }
    }
    return NULL;
}
