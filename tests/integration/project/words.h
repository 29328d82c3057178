/* Words of a text: what differs between upper and lower case counts once. */
#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>

struct words;

struct words *words_new(void);
void words_free(struct words *words);
/* Count the words of a text. 0, or -1 without memory. */
int words_add(struct words *words, const char *text);
/* How often a word was there. */
size_t words_count(const struct words *words, const char *word);
/* How many different ones there are. */
size_t words_distinct(const struct words *words);

#endif
