/* vmctl: the command line of polyvisor. */
#include "cli/vmctl.h"

#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <unistd.h>

/* Descriptors 0 to 2 must be open, or a socket would become standard output. */
static int open_standard_streams(void)
{
    int fd = 0;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    return fd < 0 ? -1 : close(fd);
}

int main(int argc, char **argv)
{
    if (open_standard_streams() < 0) {
        return 70;
    }
    /* A reader that went away shows as EPIPE where it is written to. */
    signal(SIGPIPE, SIG_IGN);
    setlocale(LC_CTYPE, "");
    return vmctl_main(argc, argv);
}
