#include "libshared/base/words.h"

#include <stddef.h>

const char *words_next(const char *text, char *word)
{
    while (*text != '\0') {
        if (*text == ',') {
            if (text[1] != ',') {
                *word = '\0';
                return text + 1;
            }
            text++;
        }
        *word++ = *text++;
    }
    *word = '\0';
    return NULL;
}

char *words_quote(char *to, const char *from)
{
    char *at = to;

    for (; *from; from++) {
        if (*from == ',') {
            *at++ = ',';
        }
        *at++ = *from;
    }
    *at = '\0';
    return to;
}
