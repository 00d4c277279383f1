/* A pool of persistent workers that cost nothing between runs.
 *
 * A run enters the pool (one run at a time; another run then works serially), opens sections on it and
 * leaves. Inside a run a worker that finds no section spins for a short while, then parks; outside of a
 * run it parks at once. The caller works too, and no section waits for a worker that has not woken.
 *
 * `state` is the whole protocol: epoch in the upper half, an OPEN bit, and the number of workers inside.
 * A worker enters by adding one while OPEN stands; the caller closes by clearing OPEN, then waits until
 * the number is 0, and only then may the section's memory go. A worker enters each epoch once.
 *
 * A fork leaves the workers with the parent: in the child nobody enters the pool, so every run works serially. */
#include "pool.h"

#include <stdlib.h>

#include "os.h"

#define OPEN (1ull << 31)
#define INSIDE (OPEN - 1)
#define EPOCH(state) ((uint32_t)((state) >> 32))
#define SPINS 1500 /* pauses: some 50 microseconds */

typedef struct member {
    _Alignas(64) lap_worker worker;
    lapidary_pool *pool;
    lap_os_thread *thread;
} member;

struct lapidary_pool {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic int32_t parked;
    _Atomic int32_t active; /* a run is inside */
    _Atomic int32_t busy; /* entered */
    _Atomic int32_t shutdown;
    lap_section *section; /* written while closed and empty */
    lap_os_gate *gate;
    uint32_t forks; /* lap_os_forks where its threads are */
    int32_t n_members; /* without the caller */
    int32_t spins;
    member *members;
};

/* ---- sections -------------------------------------------------------------------------------- */

void lap_section_init(lap_section *section) {
    atomic_init(&section->next, 0);
    atomic_init(&section->fault_begin, INT64_MAX);
    atomic_init(&section->stop, 0);
    atomic_init(&section->lock, 0);
    section->fault = (lap_fault){0};
}

int lap_section_ended(const lap_section *section) {
    if (section->cancel && atomic_load_explicit(section->cancel, memory_order_relaxed)) return 1;
    return section->deadline && lap_os_now() >= section->deadline;
}

void lap_section_chunk(lap_section *section, int64_t begin, int64_t end, lap_worker *worker) {
    worker->fault = (lap_fault){0};
    worker->cancel = section->cancel;
    worker->rt = section->rt;
    worker->level = section->level;
    section->kernel(section->buffers, section->dims, begin, end, worker);
    if (worker->fault.kind == LAP_FAULT_NONE) return;
    while (atomic_exchange_explicit(&section->lock, 1, memory_order_acquire)) lap_pause();
    if (begin < atomic_load_explicit(&section->fault_begin, memory_order_relaxed)) {
        section->fault = worker->fault;
        atomic_store_explicit(&section->fault_begin, begin, memory_order_relaxed);
    }
    atomic_store_explicit(&section->stop, 1, memory_order_relaxed);
    atomic_store_explicit(&section->lock, 0, memory_order_release);
}

/* Chunks are handed out in order, so when one faults all chunks before it run to their end too, and the
 * fault that is kept is that of the lowest task, whatever the number of threads. */
void lap_section_work(lap_section *section, lap_worker *worker) {
    for (;;) {
        if (atomic_load_explicit(&section->stop, memory_order_relaxed)) return;
        int64_t begin = atomic_fetch_add_explicit(&section->next, section->chunk, memory_order_relaxed);
        if (begin >= section->n_tasks) return;
        int64_t end = section->n_tasks - begin > section->chunk ? begin + section->chunk : section->n_tasks;
        lap_section_chunk(section, begin, end, worker);
        if (lap_section_ended(section)) atomic_store_explicit(&section->stop, 1, memory_order_relaxed);
    }
}

int lap_worker_scratch(lap_worker *worker, int64_t bytes) {
    if (worker->scratch_bytes >= bytes) return 1;
    uint8_t *memory = lap_os_alloc((size_t)bytes);
    if (!memory) return 0;
    lap_os_free(worker->scratch);
    worker->scratch = memory;
    worker->scratch_bytes = bytes;
    return 1;
}

/* ---- workers --------------------------------------------------------------------------------- */

static int can_enter(uint64_t state, uint32_t last) { return (state & OPEN) && EPOCH(state) != last; }

static void worker_main(void *argument) {
    member *self = argument;
    lapidary_pool *pool = self->pool;
    uint32_t last = 0;
    int32_t spins = 0;
    for (;;) {
        uint64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
        if (can_enter(state, last)) {
            if (atomic_compare_exchange_weak_explicit(
                    &pool->state, &state, state + 1, memory_order_acq_rel, memory_order_relaxed)) {
                last = EPOCH(state);
                lap_section_work(pool->section, &self->worker);
                atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
                spins = 0;
            }
            continue;
        }
        if (atomic_load_explicit(&pool->shutdown, memory_order_acquire)) return;
        if (spins < pool->spins && atomic_load_explicit(&pool->active, memory_order_relaxed)) {
            spins++;
            lap_pause();
            continue;
        }
        /* The caller opens and then reads `parked`; we write `parked` and then read the state. Both are
         * sequentially consistent, so one of us sees the other. */
        lap_os_gate_lock(pool->gate);
        atomic_fetch_add(&pool->parked, 1);
        while (!can_enter(atomic_load(&pool->state), last) && !atomic_load(&pool->shutdown)) {
            lap_os_gate_wait(pool->gate);
        }
        atomic_fetch_sub(&pool->parked, 1);
        lap_os_gate_unlock(pool->gate);
        spins = 0;
    }
}

/* ---- the caller ------------------------------------------------------------------------------ */

static void wake(lapidary_pool *pool) {
    if (atomic_load(&pool->parked) == 0) return;
    lap_os_gate_lock(pool->gate);
    lap_os_gate_wake_all(pool->gate);
    lap_os_gate_unlock(pool->gate);
}

void lap_pool_run(lapidary_pool *pool, lap_section *section, lap_worker *caller) {
    pool->section = section;
    uint64_t epoch = EPOCH(atomic_load_explicit(&pool->state, memory_order_relaxed)) + 1u;
    epoch &= 0xffffffffu;
    if (epoch == 0) epoch = 1; /* 0 is what a new worker has seen */
    atomic_store(&pool->state, epoch << 32 | OPEN);
    wake(pool);
    lap_section_work(section, caller);
    atomic_fetch_and_explicit(&pool->state, ~OPEN, memory_order_acq_rel);
    int32_t spins = 0;
    while (atomic_load_explicit(&pool->state, memory_order_acquire) & INSIDE) {
        if (spins++ < pool->spins) lap_pause();
        else lap_os_yield();
    }
}

int lap_pool_enter(lapidary_pool *pool) {
    if (pool->forks != lap_os_forks()) return 0;
    if (atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire)) return 0;
    atomic_store_explicit(&pool->active, 1, memory_order_relaxed);
    return 1;
}

void lap_pool_leave(lapidary_pool *pool) {
    atomic_store_explicit(&pool->active, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, 0, memory_order_release);
}

int32_t lap_pool_width(const lapidary_pool *pool) { return pool->n_members + 1; }

int64_t lap_pool_scratch_missing(const lapidary_pool *pool, int64_t bytes) {
    int64_t missing = 0;
    for (int32_t i = 0; i < pool->n_members; i++) {
        int64_t held = pool->members[i].worker.scratch_bytes;
        if (held < bytes && __builtin_add_overflow(missing, bytes - held, &missing)) return INT64_MAX;
    }
    return missing;
}

int64_t lap_pool_scratch_total(const lapidary_pool *pool) {
    int64_t total = 0;
    for (int32_t i = 0; i < pool->n_members; i++) total += pool->members[i].worker.scratch_bytes;
    return total;
}

int lap_pool_scratch(lapidary_pool *pool, int64_t bytes) {
    for (int32_t i = 0; i < pool->n_members; i++) {
        if (!lap_worker_scratch(&pool->members[i].worker, bytes)) return 0;
    }
    return 1;
}

/* ---- making and unmaking --------------------------------------------------------------------- */

int32_t lap_pool_create(int32_t threads, lapidary_pool **out) {
    if (!out || threads < 0 || threads > 4096) return LAPIDARY_ERROR_ARGUMENT;
    *out = NULL;
    int32_t processors = lap_os_processors();
    if (threads == 0) threads = processors;
    lapidary_pool *pool = lap_os_alloc(sizeof *pool);
    if (!pool) return LAPIDARY_ERROR_MEMORY;
    *pool = (lapidary_pool){.spins = threads > processors ? 0 : SPINS, .forks = lap_os_forks()};
    pool->gate = lap_os_gate_new();
    pool->members = lap_os_alloc((size_t)threads * sizeof *pool->members);
    if (!pool->gate || !pool->members) {
        lap_pool_destroy(pool);
        return LAPIDARY_ERROR_MEMORY;
    }
    for (int32_t i = 0; i + 1 < threads; i++) {
        member *each = &pool->members[i];
        *each = (member){.pool = pool};
        each->worker.index = i + 1;
        each->thread = lap_os_thread_start(worker_main, each);
        if (!each->thread) {
            lap_pool_destroy(pool);
            return LAPIDARY_ERROR_THREADS;
        }
        pool->n_members++;
    }
    *out = pool;
    return LAPIDARY_OK;
}

void lap_pool_destroy(lapidary_pool *pool) {
    if (!pool) return;
    int ours = pool->forks == lap_os_forks();
    if (ours && pool->gate) {
        lap_os_gate_lock(pool->gate);
        atomic_store(&pool->shutdown, 1);
        lap_os_gate_wake_all(pool->gate);
        lap_os_gate_unlock(pool->gate);
    }
    for (int32_t i = 0; i < pool->n_members; i++) {
        if (ours) lap_os_thread_join(pool->members[i].thread);
        else lap_os_thread_forget(pool->members[i].thread);
        lap_os_free(pool->members[i].worker.scratch);
    }
    if (ours) lap_os_gate_delete(pool->gate);
    else lap_os_gate_forget(pool->gate);
    lap_os_free(pool->members);
    lap_os_free(pool);
}
