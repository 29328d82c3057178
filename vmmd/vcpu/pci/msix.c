/* PCI Local Bus Specification 3.0, section 6.8.2. */
#include "vmmd/vcpu/pci/msix.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#define ENTRY_WORDS (sizeof(struct msix_entry) / sizeof(uint32_t))

static void table_clear(struct msix *msix)
{
    memset(msix->table, 0, sizeof(msix->table));
    for (unsigned i = 0; i < MSIX_VECTORS_MAX; i++) {
        msix->table[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
    }
    msix->pending = 0;
}

int msix_init(struct msix *msix, struct pci_function *function, unsigned vector_count, unsigned bar,
              const struct pci_msi_target *target)
{
    memset(msix, 0, sizeof(*msix));
    if (vector_count < 1 || vector_count > MSIX_VECTORS_MAX || bar >= PCI_BAR_COUNT) {
        return -EINVAL;
    }
    int capability = pci_function_add_capability(function, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    if (capability < 0) {
        return capability;
    }
    msix->capability = (unsigned)capability;
    msix->function = function;
    msix->target = target;
    msix->vector_count = vector_count;
    pci_function_set(function, msix->capability + PCI_MSIX_FLAGS, 2, vector_count - 1);
    pci_function_set(function, msix->capability + PCI_MSIX_TABLE, 4, bar);
    pci_function_set(function, msix->capability + PCI_MSIX_PBA, 4, MSIX_PBA_OFFSET | bar);
    pci_function_make_writable(function, msix->capability + PCI_MSIX_FLAGS, 2,
                               PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    pthread_mutex_init(&msix->lock, NULL);
    table_clear(msix);
    return 0;
}

void msix_destroy(struct msix *msix)
{
    if (msix->function) {
        pthread_mutex_destroy(&msix->lock);
        msix->function = NULL;
    }
}

/* Under the lock: send what is pending and no longer masked. */
static void deliver_pending(struct msix *msix)
{
    if (!msix->enabled || msix->function_masked || !msix->may_write) {
        return;
    }
    for (unsigned i = 0; i < msix->vector_count; i++) {
        const struct msix_entry *entry = &msix->table[i];
        if ((msix->pending >> i & 1) && !(entry->control & PCI_MSIX_ENTRY_CTRL_MASKBIT)) {
            msix->pending &= ~(UINT32_C(1) << i);
            uint64_t address = (uint64_t)entry->address_high << 32 | entry->address_low;
            msix->target->notify(msix->target->controller, address, entry->data);
        }
    }
}

static uint32_t word_read(const struct msix *msix, uint64_t offset)
{
    if (offset < msix->vector_count * sizeof(struct msix_entry)) {
        uint32_t words[ENTRY_WORDS];
        memcpy(words, &msix->table[offset / sizeof(struct msix_entry)], sizeof(words));
        return words[offset / sizeof(uint32_t) % ENTRY_WORDS];
    }
    return offset == MSIX_PBA_OFFSET ? msix->pending : 0;
}

static void word_write(struct msix *msix, uint64_t offset, uint32_t value)
{
    if (offset >= msix->vector_count * sizeof(struct msix_entry)) {
        return;
    }
    struct msix_entry *entry = &msix->table[offset / sizeof(struct msix_entry)];
    switch (offset / sizeof(uint32_t) % ENTRY_WORDS) {
    case 0:
        entry->address_low = value & ~UINT32_C(3);
        break;
    case 1:
        entry->address_high = value;
        break;
    case 2:
        entry->data = value;
        break;
    default:
        entry->control = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
        break;
    }
}

static bool access_valid(uint64_t offset, unsigned size)
{
    return (size == 4 || size == 8) && offset % size == 0 && offset < MSIX_BAR_SIZE;
}

uint64_t msix_table_read(struct msix *msix, uint64_t offset, unsigned size)
{
    if (!access_valid(offset, size)) {
        return 0;
    }
    pthread_mutex_lock(&msix->lock);
    uint64_t value = word_read(msix, offset);
    if (size == 8) {
        value |= (uint64_t)word_read(msix, offset + 4) << 32;
    }
    pthread_mutex_unlock(&msix->lock);
    return value;
}

void msix_table_write(struct msix *msix, uint64_t offset, unsigned size, uint64_t value)
{
    if (!access_valid(offset, size)) {
        return;
    }
    pthread_mutex_lock(&msix->lock);
    word_write(msix, offset, (uint32_t)value);
    if (size == 8) {
        word_write(msix, offset + 4, (uint32_t)(value >> 32));
    }
    deliver_pending(msix);
    pthread_mutex_unlock(&msix->lock);
}

void msix_control_changed(struct msix *msix)
{
    uint32_t flags = pci_function_get(msix->function, msix->capability + PCI_MSIX_FLAGS, 2);
    uint32_t command = pci_function_get(msix->function, PCI_COMMAND, 2);
    pthread_mutex_lock(&msix->lock);
    msix->may_write = (command & PCI_COMMAND_MASTER) != 0;
    msix->enabled = (flags & PCI_MSIX_FLAGS_ENABLE) != 0;
    msix->function_masked = (flags & PCI_MSIX_FLAGS_MASKALL) != 0;
    deliver_pending(msix);
    pthread_mutex_unlock(&msix->lock);
}

void msix_reset(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    table_clear(msix);
    pthread_mutex_unlock(&msix->lock);
    msix_control_changed(msix);
}

bool msix_notify(struct msix *msix, unsigned vector)
{
    bool sent = false;
    pthread_mutex_lock(&msix->lock);
    if (msix->enabled && vector < msix->vector_count) {
        msix->pending |= UINT32_C(1) << vector;
        deliver_pending(msix);
        sent = !(msix->pending >> vector & 1);
    }
    pthread_mutex_unlock(&msix->lock);
    return sent;
}

bool msix_enabled(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    bool enabled = msix->enabled;
    pthread_mutex_unlock(&msix->lock);
    return enabled;
}
