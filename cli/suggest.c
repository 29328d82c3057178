#include "cli/suggest.h"

#include <string.h>

#define WORD_MAX 63

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: three rows are enough, the third for swapped neighbours. */
unsigned suggest_distance(const char *left, const char *right)
{
    size_t left_length = strlen(left), right_length = strlen(right);
    unsigned rows[3][WORD_MAX + 1];

    if (left_length > WORD_MAX || right_length > WORD_MAX) {
        return WORD_MAX + 1;
    }
    for (size_t j = 0; j <= right_length; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= left_length; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3], *second = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= right_length; j++) {
            unsigned cost = left[i - 1] != right[j - 1];

            row[j] = least(above[j - 1] + cost, least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1]) {
                row[j] = least(row[j], second[j - 2] + 1);
            }
        }
    }
    return rows[left_length % 3][right_length];
}

/* The distance, except that a word which was only cut short is the nearest: --mem for --memory. */
static unsigned score(const char *word, const char *candidate)
{
    size_t length = strlen(word);

    return length >= 3 && strncmp(word, candidate, length) == 0 ? 0
                                                                : suggest_distance(word, candidate);
}

const char *suggest_nearer(const char *word, const char *best, const char *candidate)
{
    size_t length = strlen(word);
    unsigned limit = length < 3 ? 1 : length < 8 ? 2 : 3;
    unsigned distance = score(word, candidate);

    if (distance > limit || (best != NULL && distance >= score(word, best))) {
        return best;
    }
    return candidate;
}
