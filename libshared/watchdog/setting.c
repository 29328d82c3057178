#include "libshared/watchdog/setting.h"

#include <string.h>

int watchdog_setting_parse(const char *text, enum error_code code, enum watchdog_action *action,
                           struct error *err)
{
    static const char *const actions[] = {
        [WATCHDOG_RESET] = "reset",   [WATCHDOG_POWEROFF] = "poweroff", [WATCHDOG_PAUSE] = "pause",
        [WATCHDOG_REPORT] = "report", [WATCHDOG_NONE] = "none",
    };
    const char *word = strncmp(text, "sunxi,", 6) == 0 ? text + 6 : text;

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strncmp(word, "action=", 7) == 0 && strcmp(word + 7, actions[i]) == 0) {
            *action = (enum watchdog_action)i;
            return 0;
        }
    }
    error_set(err, code, 0, "--watchdog: '%.60s' makes no sense", text);
    error_hint(err, "--watchdog [sunxi,]action=reset|poweroff|pause|report|none");
    return -(int)code;
}
