#include "devd/fs/intent.h"

void intent_begin(struct fs *fs, const struct fs_message *message,
                  const struct share_identity *source, const struct share_identity *target)
{
    static const struct share_identity none = {0};
    struct share_intent *intent = &fs->state->intents[message->slot];

    atomic_store(&intent->unique, 0);
    intent->opcode = message->header.opcode;
    intent->source = source ? *source : none;
    intent->target = target ? *target : none;
    atomic_store(&intent->unique, message->header.unique);
}

const struct share_intent *intent_of(const struct fs *fs, const struct fs_message *message)
{
    const struct share_intent *intent = &fs->state->intents[message->slot];

    return message->again && message->header.unique && intent->unique == message->header.unique &&
                   intent->opcode == message->header.opcode
               ? intent
               : NULL;
}
