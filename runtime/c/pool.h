/* The thread pool and parallel sections. */
#ifndef LAP_POOL_H
#define LAP_POOL_H

#include "lap_internal.h"

/* One parallel_for: what all its workers share. It lives on the caller's stack. */
typedef struct lap_section {
    const lap_rt *rt;
    lap_kernel kernel;
    void *const *buffers;
    const int64_t *dims;
    int32_t level;
    int64_t n_tasks;
    int64_t chunk;
    int64_t deadline; /* 0: none */
    const _Atomic int32_t *cancel;
    _Atomic int64_t next; /* the first task not handed out */
    _Atomic int64_t fault_begin; /* where the chunk of `fault` begins; INT64_MAX: no fault */
    _Atomic int32_t stop;
    _Atomic int32_t lock; /* of fault */
    lap_fault fault;
} lap_section;

/* Prepares a section; the fields from `next` on. */
void lap_section_init(lap_section *section);
/* Runs one chunk on one worker. The fault of the lowest chunk wins. */
void lap_section_chunk(lap_section *section, int64_t begin, int64_t end, lap_worker *worker);
/* Takes chunks until there are none. */
void lap_section_work(lap_section *section, lap_worker *worker);
/* Not zero: cancelled or late. */
int lap_section_ended(const lap_section *section);

/* Makes a worker's scratch at least `bytes`; 0 when there is no memory. */
int lap_worker_scratch(lap_worker *worker, int64_t bytes);

int32_t lap_pool_create(int32_t threads, lapidary_pool **pool);
void lap_pool_destroy(lapidary_pool *pool);
/* Workers with the caller. */
int32_t lap_pool_width(const lapidary_pool *pool);
/* Takes the pool for a run; 0 if another run has it. */
int lap_pool_enter(lapidary_pool *pool);
/* Gives it back; its workers go to sleep. */
void lap_pool_leave(lapidary_pool *pool);
/* Between enter and leave: bytes of scratch its workers lack; and gives it to them (0: no memory). */
int64_t lap_pool_scratch_missing(const lapidary_pool *pool, int64_t bytes);
int64_t lap_pool_scratch_total(const lapidary_pool *pool);
int lap_pool_scratch(lapidary_pool *pool, int64_t bytes);
/* Runs a section on the pool and the caller. */
void lap_pool_run(lapidary_pool *pool, lap_section *section, lap_worker *caller);

#endif
