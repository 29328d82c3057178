#include "libshared/ipc/error_message.h"

void error_to_message(struct error *err, Polyvisor__Error *message)
{
    polyvisor__error__init(message);
    message->code = (char *)error_code_text(err->code);
    message->cause = err->cause;
    message->component = err->component;
    message->message = err->message;
    message->hint = err->hint;
}

void error_from_message(struct error *err, const Polyvisor__Error *message)
{
    if (!message) {
        error_clear(err);
        return;
    }
    enum error_code code = error_code_parse(message->code);
    error_set(err, code == ERROR_OK ? ERROR_INTERNAL : code, message->cause, "%s",
              message->message);
    if (message->hint[0]) {
        error_hint(err, "%s", message->hint);
    }
    if (message->component[0]) {
        error_component(err, message->component);
    }
}
