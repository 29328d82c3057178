#include "words.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BUCKETS 64u

struct word {
    struct word *next;
    size_t count, length;
    char text[];
};

struct words {
    struct word *buckets[BUCKETS];
    size_t distinct;
};

/* FNV-1a, over lower case. */
static uint32_t hash(const char *text, size_t length)
{
    uint32_t value = 2166136261u;

    for (size_t i = 0; i < length; i++) {
        value = (value ^ (uint32_t)tolower((unsigned char)text[i])) * 16777619u;
    }
    return value;
}

static struct word *find(const struct words *words, const char *text, size_t length)
{
    struct word *word = words->buckets[hash(text, length) % BUCKETS];

    while (word != NULL && (word->length != length || strncasecmp(word->text, text, length) != 0)) {
        word = word->next;
    }
    return word;
}

static int add_one(struct words *words, const char *text, size_t length)
{
    struct word *word = find(words, text, length);

    if (word == NULL) {
        struct word **bucket = &words->buckets[hash(text, length) % BUCKETS];
        word = calloc(1, sizeof(*word) + length + 1);
        if (word == NULL) {
            return -1;
        }
        memcpy(word->text, text, length);
        word->length = length;
        word->next = *bucket;
        *bucket = word;
        words->distinct++;
    }
    word->count++;
    return 0;
}

struct words *words_new(void)
{
    return calloc(1, sizeof(struct words));
}

void words_free(struct words *words)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct word *word = words->buckets[i], *next; word != NULL; word = next) {
            next = word->next;
            free(word);
        }
    }
    free(words);
}

int words_add(struct words *words, const char *text)
{
    while (*text != '\0') {
        size_t length = 0;

        while (isalpha((unsigned char)text[length])) {
            length++;
        }
        if (length != 0 && add_one(words, text, length) != 0) {
            return -1;
        }
        text += length != 0 ? length : 1;
    }
    return 0;
}

size_t words_count(const struct words *words, const char *word)
{
    const struct word *found = find(words, word, strlen(word));

    return found != NULL ? found->count : 0;
}

size_t words_distinct(const struct words *words)
{
    return words->distinct;
}
