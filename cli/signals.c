#include "cli/signals.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int handled[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT};

int signals_open(struct signals *signals, struct error *err)
{
    sigemptyset(&signals->taken);
    for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++) {
        struct sigaction action;

        /* One that our parent ignores (nohup, a background job of a plain shell) stays ignored. */
        if (sigaction(handled[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN) {
            continue;
        }
        sigaddset(&signals->taken, handled[i]);
    }
    signals->fd = signalfd(-1, &signals->taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals->fd < 0) {
        return error_set(err, ERROR_IO, errno, "no signalfd: %s", strerror(errno));
    }
    sigprocmask(SIG_BLOCK, &signals->taken, &signals->before);
    return 0;
}

void signals_add(struct signals *signals, int signal)
{
    sigaddset(&signals->taken, signal);
    signalfd(signals->fd, &signals->taken, SFD_CLOEXEC | SFD_NONBLOCK);
    sigprocmask(SIG_BLOCK, &signals->taken, NULL);
}

void signals_close(struct signals *signals)
{
    if (signals->fd >= 0) {
        while (signals_take(signals) != 0) {
        }
        close(signals->fd);
        signals->fd = -1;
        sigprocmask(SIG_SETMASK, &signals->before, NULL);
    }
}

int signals_take(const struct signals *signals)
{
    struct signalfd_siginfo information;

    if (read(signals->fd, &information, sizeof(information)) != (ssize_t)sizeof(information)) {
        return 0;
    }
    return (int)information.ssi_signo;
}

bool signals_end(int signal)
{
    return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT;
}

void signals_suspend(void)
{
    raise(SIGSTOP);
}
