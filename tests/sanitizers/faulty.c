/* A program that does wrong in a child whose standard error goes nowhere, and ends well itself: what the
 * sanitizers find in it must reach a test's output nevertheless (tests/integration/test_sanitizers.sh). */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int shared;

static void *write_shared(void *argument)
{
    shared = 2;
    return argument;
}

/* Two threads write without an order between them. */
static void race(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, write_shared, NULL) == 0) {
        shared = 1;
        pthread_join(thread, NULL);
    }
}

static void read_freed_memory(void)
{
    char *volatile bytes = malloc(8);

    if (bytes) {
        free(bytes);
        shared = bytes[0]; /* NOLINT: the fault that is to be found */
    }
}

static void overflow(void)
{
    volatile int large = 0x7fffffff;

    shared = large + 1;
}

static void leak(void)
{
    void *volatile lost = malloc(16);

    shared = lost != NULL;
    lost = NULL;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*commit)(void);
    } faults[] = {{"race", race}, {"freed", read_freed_memory}, {"overflow", overflow}, {"leak", leak}};
    pid_t child = fork();

    if (child != 0) {
        return child > 0 && waitpid(child, NULL, 0) == child ? 0 : 1;
    }
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDERR_FILENO) < 0) {
        return 1;
    }
    for (size_t i = 0; argc > 1 && i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (strcmp(argv[1], faults[i].name) == 0) {
            faults[i].commit();
        }
    }
    return 0;
}
