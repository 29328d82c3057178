/* Type 0 configuration space: PCI Local Bus Specification 3.0, chapter 6. */
#include "vmmd/vcpu/pci/pci_function.h"
#include "vmmd/vcpu/pci/pci_host.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#define FIRST_CAPABILITY 0x40u
#define COMMAND_WRITABLE                                                                           \
    (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |             \
     PCI_COMMAND_INTX_DISABLE)

/* --- description ----------------------------------------------------------------------------- */

void pci_function_set(struct pci_function *function, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++) {
        function->config[offset + i] = (uint8_t)(value >> (8 * i));
        function->initial[offset + i] = function->config[offset + i];
    }
}

uint32_t pci_function_get(const struct pci_function *function, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++) {
        value |= (uint32_t)function->config[offset + i] << (8 * i);
    }
    return value;
}

void pci_function_make_writable(struct pci_function *function, unsigned offset, unsigned size,
                                uint32_t mask)
{
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++) {
        function->writable[offset + i] = (uint8_t)(mask >> (8 * i));
    }
}

void pci_function_init(struct pci_function *function, const struct pci_identity *identity,
                       unsigned interrupt_pin, const struct pci_function_ops *ops, void *device)
{
    memset(function, 0, sizeof(*function));
    function->ops = ops;
    function->device = device;
    function->capability_end = FIRST_CAPABILITY;
    pci_function_set(function, PCI_VENDOR_ID, 2, identity->vendor);
    pci_function_set(function, PCI_DEVICE_ID, 2, identity->device);
    pci_function_set(function, PCI_CLASS_REVISION, 4,
                     identity->class_code << 8 | identity->revision);
    pci_function_set(function, PCI_SUBSYSTEM_VENDOR_ID, 2, identity->subsystem_vendor);
    pci_function_set(function, PCI_SUBSYSTEM_ID, 2, identity->subsystem);
    pci_function_set(function, PCI_INTERRUPT_PIN, 1, interrupt_pin);
    pci_function_make_writable(function, PCI_COMMAND, 2, COMMAND_WRITABLE);
    pci_function_make_writable(function, PCI_CACHE_LINE_SIZE, 1, 0xff);
    pci_function_make_writable(function, PCI_INTERRUPT_LINE, 1, 0xff);
}

int pci_function_add_bar(struct pci_function *function, unsigned index, uint64_t size,
                         const char *name, const struct bus_ops *ops)
{
    if (index >= PCI_BAR_COUNT || index % 2 != 0 || size < 16 || (size & (size - 1)) != 0 ||
        function->bars[index].size != 0) {
        return -EINVAL;
    }
    unsigned offset = PCI_BASE_ADDRESS_0 + 4 * index;
    uint64_t address_bits = ~(size - 1);
    pci_function_set(function, offset, 4,
                     PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
    pci_function_make_writable(function, offset, 4, (uint32_t)address_bits);
    pci_function_make_writable(function, offset + 4, 4, (uint32_t)(address_bits >> 32));
    function->bars[index] = (struct pci_bar){.size = size, .name = name, .ops = ops};
    return 0;
}

int pci_function_add_capability(struct pci_function *function, uint8_t id, unsigned length)
{
    unsigned offset = (function->capability_end + 3) & ~3u;
    if (length < 2 || length > PCI_CONFIG_SIZE || offset + length > PCI_CONFIG_SIZE) {
        return -ENOSPC;
    }
    pci_function_set(function, offset, 1, id);
    if (function->last_capability != 0) {
        pci_function_set(function, function->last_capability + PCI_CAP_LIST_NEXT, 1, offset);
    } else {
        pci_function_set(function, PCI_CAPABILITY_LIST, 1, offset);
        pci_function_set(function, PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
    }
    function->last_capability = offset;
    function->capability_end = offset + length;
    return (int)offset;
}

/* --- access ---------------------------------------------------------------------------------- */

uint32_t pci_function_config_read(struct pci_function *function, unsigned offset, unsigned size)
{
    uint32_t value = pci_function_get(function, offset, size);
    if (offset <= PCI_STATUS && offset + size > PCI_STATUS && pci_host_intx_status(function)) {
        value |= (uint32_t)PCI_STATUS_INTERRUPT << (8 * (PCI_STATUS - offset));
    }
    return value;
}

bool pci_function_config_write(struct pci_function *function, unsigned offset, unsigned size,
                               uint32_t value)
{
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++) {
        uint8_t mask = function->writable[offset + i];
        uint8_t *byte = &function->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | ((value >> (8 * i)) & mask));
    }
    if (function->ops && function->ops->config_written) {
        function->ops->config_written(function->device, offset, size);
    }
    return offset < PCI_BASE_ADDRESS_0 + 4 * PCI_BAR_COUNT;
}

uint64_t pci_function_bar_address(const struct pci_function *function, unsigned index)
{
    if (!(function->config[PCI_COMMAND] & PCI_COMMAND_MEMORY)) {
        return UINT64_MAX;
    }
    unsigned offset = PCI_BASE_ADDRESS_0 + 4 * index;
    uint64_t low = pci_function_get(function, offset, 4) & PCI_BASE_ADDRESS_MEM_MASK;
    return low | (uint64_t)pci_function_get(function, offset + 4, 4) << 32;
}

void pci_function_restore(struct pci_function *function)
{
    memcpy(function->config, function->initial, sizeof(function->config));
}

void pci_function_set_intx(struct pci_function *function, bool level)
{
    pci_host_set_intx(function, level);
}
