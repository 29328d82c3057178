#include "cli/escape.h"

static enum escape_action action_of(char key)
{
    static const struct {
        char key;
        enum escape_action action;
    } keys[] = {
        {'x', ESCAPE_QUIT}, {'X', ESCAPE_QUIT}, {ESCAPE_KEY, ESCAPE_QUIT}, {'k', ESCAPE_KILL},
        {'K', ESCAPE_KILL}, {'?', ESCAPE_HELP}, {'h', ESCAPE_HELP},        {'H', ESCAPE_HELP},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].key == key) {
            return keys[i].action;
        }
    }
    return ESCAPE_NONE;
}

enum escape_action escape_filter(struct escape *escape, char *keys, size_t count, size_t *used,
                                 size_t *kept)
{
    size_t kept_count = 0, i = 0;
    enum escape_action action = ESCAPE_NONE;

    for (; i < count && action == ESCAPE_NONE; i++) {
        if (!escape->begun && keys[i] != ESCAPE_KEY) {
            keys[kept_count++] = keys[i];
        } else if (!escape->begun) {
            escape->begun = !escape->detach_at_once;
            action = escape->detach_at_once ? ESCAPE_DETACH : ESCAPE_NONE;
        } else {
            escape->begun = false;
            if (keys[i] == 'l' || keys[i] == 'L') { /* Ctrl-] itself, for the guest */
                keys[kept_count++] = ESCAPE_KEY;
            } else {
                action = action_of(keys[i]);
            }
        }
    }
    *used = i;
    *kept = kept_count;
    return action;
}
