/*
 * Settings that people write as words with commas between them: "path=/a,readonly". A comma that
 * belongs to a word is written twice.
 */
#ifndef POLYVISOR_BASE_WORDS_H
#define POLYVISOR_BASE_WORDS_H

/* Copy the word up to the next single comma into `word`, each double comma as one. What follows the
 * comma, or NULL at the end. `word` has room for strlen(text) + 1 bytes. */
const char *words_next(const char *text, char *word);

/* Write part of a word with its commas doubled. `to` has room for 2 * strlen(from) + 1 bytes;
 * returns `to`. */
char *words_quote(char *to, const char *from);

#endif
