#include "vmmd/vcpu/cpu_threads.h"
#include "libshared/base/clock.h"
#include <stdio.h>
#include <string.h>

/* Wait while the gate is closed. False: end the thread. */
static bool pass_gate(struct cpu_threads *threads, struct cpu *cpu)
{
    pthread_mutex_lock(&threads->lock);
    if (!threads->open && !threads->stopping) {
        pthread_mutex_unlock(&threads->lock);
        engine_quiesce_begin(cpu); /* others' flushes and barriers need not wait for this CPU */
        pthread_mutex_lock(&threads->lock);
        threads->parked++;
        pthread_cond_broadcast(&threads->changed);
        while (!threads->open && !threads->stopping) {
            pthread_cond_wait(&threads->changed, &threads->lock);
        }
        threads->parked--;
        pthread_mutex_unlock(&threads->lock);
        engine_quiesce_end(cpu);
        pthread_mutex_lock(&threads->lock);
    }
    bool go_on = !threads->stopping;
    pthread_mutex_unlock(&threads->lock);
    return go_on;
}

static void *cpu_main(void *argument)
{
    const struct cpu_thread *thread = argument;
    struct machine *machine = thread->all->machine;
    struct cpu *cpu = engine_cpu(machine->engine, thread->index);
    char name[16];

    snprintf(name, sizeof(name), "cpu%u", thread->index);
    pthread_setname_np(pthread_self(), name);
    while (pass_gate(thread->all, cpu)) {
        if (machine->model->run_cpu(machine, thread->index) == ENGINE_EXIT_STOP) {
            break;
        }
    }
    engine_quiesce_begin(cpu); /* nobody waits for a thread that is gone */
    return NULL;
}

static void kick_all(struct cpu_threads *threads, uint32_t reasons)
{
    for (unsigned i = 0; i < threads->count; i++) {
        engine_kick(engine_cpu(threads->machine->engine, i), reasons);
    }
}

int cpu_threads_create(struct cpu_threads *threads, struct machine *machine, struct error *err)
{
    memset(threads, 0, sizeof(*threads));
    threads->machine = machine;
    pthread_mutex_init(&threads->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&threads->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < machine->config.cpu_count; i++) {
        struct cpu_thread *thread = &threads->threads[i];
        thread->all = threads;
        thread->index = i;
        int result = pthread_create(&thread->thread, NULL, cpu_main, thread);
        if (result != 0) {
            cpu_threads_stop(threads);
            return error_set(err, ERROR_INTERNAL, result, "cannot start the thread of CPU %u: %s",
                             i, strerror(result));
        }
        threads->count++;
    }
    return 0;
}

void cpu_threads_resume(struct cpu_threads *threads)
{
    pthread_mutex_lock(&threads->lock);
    threads->open = true;
    pthread_cond_broadcast(&threads->changed);
    pthread_mutex_unlock(&threads->lock);
}

/* A thread that was about to park anyway leaves the request standing; its next run then ends at
 * once, finds the gate open, and goes on. */
bool cpu_threads_pause(struct cpu_threads *threads, unsigned wait_ms)
{
    uint64_t end_ns = clock_monotonic_ns() + wait_ms * NS_PER_MS;
    const struct timespec end = clock_timespec(end_ns);
    pthread_mutex_lock(&threads->lock);
    threads->open = false;
    pthread_mutex_unlock(&threads->lock);
    kick_all(threads, CPU_ATTENTION_PAUSE);
    pthread_mutex_lock(&threads->lock);
    int result = 0;
    while (threads->parked < threads->count && result == 0) {
        result = pthread_cond_timedwait(&threads->changed, &threads->lock, &end);
    }
    bool parked = threads->parked == threads->count;
    pthread_mutex_unlock(&threads->lock);
    return parked;
}

void cpu_threads_stop(struct cpu_threads *threads)
{
    if (!threads->machine) {
        return;
    }
    pthread_mutex_lock(&threads->lock);
    threads->stopping = true;
    pthread_cond_broadcast(&threads->changed);
    pthread_mutex_unlock(&threads->lock);
    kick_all(threads, CPU_ATTENTION_STOP);
    for (unsigned i = 0; i < threads->count; i++) {
        pthread_join(threads->threads[i].thread, NULL);
    }
    pthread_cond_destroy(&threads->changed);
    pthread_mutex_destroy(&threads->lock);
    threads->machine = NULL;
    threads->count = 0;
}
