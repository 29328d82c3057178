/* "Did you mean": the known word nearest to a mistyped one. */
#ifndef POLYVISOR_CLI_SUGGEST_H
#define POLYVISOR_CLI_SUGGEST_H

#include <stddef.h>

/* Edits (insert, drop, replace, swap of neighbours) that turn one word into the other. Words longer
 * than 63 bytes count as unrelated (64). */
unsigned suggest_distance(const char *left, const char *right);

/* The nearer of `best` (NULL = none yet) and `candidate` to `word`, or `best` when the candidate is
 * too far away to be meant. Fold this over the known words. */
const char *suggest_nearer(const char *word, const char *best, const char *candidate);

#endif
