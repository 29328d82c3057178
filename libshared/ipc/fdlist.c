#include "libshared/ipc/fdlist.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FDLIST_NAME_MAX (sizeof(((struct fdlist_entry *)0)->name) - 1)

static struct fdlist_entry *fdlist_find(struct fdlist *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->entries[i].name, name)) {
            return &list->entries[i];
        }
    }
    return NULL;
}

int fdlist_add(struct fdlist *list, int fd, const char *name, ...)
{
    va_list arguments;

    if (list->count >= FDLIST_MAX) {
        return -ENOSPC;
    }
    struct fdlist_entry *entry = &list->entries[list->count];
    va_start(arguments, name);
    int length = vsnprintf(entry->name, sizeof(entry->name), name, arguments);
    va_end(arguments);
    if (length <= 0 || (size_t)length > FDLIST_NAME_MAX) {
        return -ENAMETOOLONG;
    }
    entry->fd = fd;
    list->count++;
    return 0;
}

char *fdlist_environment(const struct fdlist *list)
{
    size_t room = sizeof(FDLIST_ENVIRONMENT) + 1 + list->count * (FDLIST_NAME_MAX + 1 + 11 + 1);
    char *text = malloc(room);

    if (!text) {
        return NULL;
    }
    size_t used = (size_t)snprintf(text, room, FDLIST_ENVIRONMENT "=");
    for (size_t i = 0; i < list->count; i++) {
        used += (size_t)snprintf(text + used, room - used, "%s%s=%d", i ? " " : "",
                                 list->entries[i].name, list->entries[i].fd);
    }
    return text;
}

/* One "name=number" word of `length` bytes. */
static int fdlist_parse_word(struct fdlist *list, const char *word, size_t length)
{
    const char *equals = memchr(word, '=', length);
    long number = 0;

    if (!equals || equals == word || (size_t)(equals - word) > FDLIST_NAME_MAX ||
        equals + 1 == word + length || list->count >= FDLIST_MAX) {
        return -EINVAL;
    }
    for (const char *digit = equals + 1; digit < word + length; digit++) {
        if (*digit < '0' || *digit > '9') {
            return -EINVAL;
        }
        number = number * 10 + (*digit - '0');
        if (number > INT_MAX) {
            return -EINVAL;
        }
    }

    struct fdlist_entry *entry = &list->entries[list->count];
    memset(entry->name, 0, sizeof(entry->name));
    memcpy(entry->name, word, (size_t)(equals - word));
    if (fdlist_find(list, entry->name) || fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0) {
        return -EINVAL;
    }
    entry->fd = (int)number;
    list->count++;
    return 0;
}

int fdlist_inherit(struct fdlist *list)
{
    const char *word = getenv(FDLIST_ENVIRONMENT);
    int result = 0;

    list->count = 0;
    while (word && *word && !result) {
        size_t length = strcspn(word, " ");
        if (length) {
            result = fdlist_parse_word(list, word, length);
        }
        word += length;
        word += strspn(word, " ");
    }
    unsetenv(FDLIST_ENVIRONMENT);
    return result;
}

int fdlist_take(struct fdlist *list, const char *name, ...)
{
    char wanted[FDLIST_NAME_MAX + 1];
    va_list arguments;

    va_start(arguments, name);
    int length = vsnprintf(wanted, sizeof(wanted), name, arguments);
    va_end(arguments);
    if (length <= 0 || (size_t)length > FDLIST_NAME_MAX) {
        return -ENOENT;
    }
    struct fdlist_entry *entry = fdlist_find(list, wanted);
    if (!entry) {
        return -ENOENT;
    }
    int fd = entry->fd;
    *entry = list->entries[--list->count];
    return fd;
}

void fdlist_tell(struct fdlist *list, const char *name)
{
    int fd = fdlist_take(list, "%s", name);

    if (fd >= 0) {
        while (write(fd, "", 1) < 0 && errno == EINTR) {
        }
        close(fd);
    }
}

void fdlist_close(struct fdlist *list)
{
    while (list->count > 0) {
        close(list->entries[--list->count].fd);
    }
}
