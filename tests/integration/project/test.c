/* Ends with the number of checks that failed. */
#include "words.h"

#include <stdio.h>

static int failures;

static void check(const char *what, size_t expected, size_t got)
{
    if (expected != got) {
        fprintf(stderr, "%s: expected %zu, got %zu\n", what, expected, got);
        failures++;
    }
}

int main(void)
{
    struct words *words = words_new();

    if (words == NULL || words_add(words, "The guest of the host is the guest. A host, a GUEST!")) {
        return 99;
    }
    check("the", 3, words_count(words, "the"));
    check("guest", 3, words_count(words, "guest"));
    check("host", 2, words_count(words, "host"));
    check("nobody", 0, words_count(words, "nobody"));
    check("distinct", 6, words_distinct(words));
    words_free(words);
    printf("%d failed\n", failures);
    return failures;
}
