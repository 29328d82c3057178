#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"
#include <string.h>

static const struct machine_model *const models[] = {&machine_model_riscv64};

bool machine_irqchip_find(const char *name, enum machine_irqchip *irqchip)
{
    static const char *const names[] = {
        [MACHINE_IRQCHIP_AUTO] = "auto",
        [MACHINE_IRQCHIP_PLIC] = "plic",
        [MACHINE_IRQCHIP_AIA] = "aia",
    };
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0 || (name[0] == '\0' && i == MACHINE_IRQCHIP_AUTO)) {
            *irqchip = (enum machine_irqchip)i;
            return true;
        }
    }
    return false;
}

const struct machine_model *machine_model_find(const char *arch)
{
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        if (strcmp(models[i]->arch, arch) == 0) {
            return models[i];
        }
    }
    return NULL;
}
