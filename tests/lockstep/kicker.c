#include "tests/lockstep/kicker.h"
#include "tests/lockstep/random.h"
#include "vmmd/vcpu/engine/region.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct kicker {
    pthread_t thread;
    unsigned shortest_us, longest_us;
    struct random random;
    pthread_mutex_t lock;  /* held while it does anything to the engine */
    struct engine *engine; /* the lock */
    _Atomic bool end;
};

static void *kick(void *argument)
{
    struct kicker *kicker = argument;
    unsigned range = kicker->longest_us - kicker->shortest_us + 1;
    while (!atomic_load(&kicker->end)) {
        usleep(kicker->shortest_us + random_below(&kicker->random, range));
        pthread_mutex_lock(&kicker->lock);
        if (kicker->engine) {
            engine_profile_tick(kicker->engine);
            engine_kick(engine_cpu(kicker->engine, 0), CPU_ATTENTION_PAUSE);
        }
        pthread_mutex_unlock(&kicker->lock);
    }
    return NULL;
}

struct kicker *kicker_start(unsigned shortest_us, unsigned longest_us, uint64_t seed)
{
    struct kicker *kicker = calloc(1, sizeof(*kicker));
    if (!kicker) {
        return NULL;
    }
    kicker->shortest_us = shortest_us;
    kicker->longest_us = longest_us;
    kicker->random.state = seed;
    pthread_mutex_init(&kicker->lock, NULL);
    if (pthread_create(&kicker->thread, NULL, kick, kicker) != 0) {
        perror("a thread");
        free(kicker);
        return NULL;
    }
    return kicker;
}

void kicker_stop(struct kicker *kicker)
{
    if (kicker) {
        atomic_store(&kicker->end, true);
        pthread_join(kicker->thread, NULL);
        pthread_mutex_destroy(&kicker->lock);
        free(kicker);
    }
}

void kicker_set(struct kicker *kicker, struct engine *engine)
{
    pthread_mutex_lock(&kicker->lock);
    kicker->engine = engine;
    pthread_mutex_unlock(&kicker->lock);
}
