/* Stress of the pool for ThreadSanitizer: many sections of few tasks, faults, cancels, parking between runs. */
#include <stdio.h>
#include <stdlib.h>

#include "os.h"
#include "pool.h"

static void add(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    int64_t *sums = buffers[0];
    for (int64_t task = begin; task < end; task++) {
        sums[task] += dims[0] + task;
        if (dims[1] >= 0 && task >= dims[1] && !worker->fault.kind) {
            worker->fault = (lap_fault){.kind = LAP_FAULT_INDEX, .value = task, .limit = dims[1]};
        }
    }
    if (worker->scratch_bytes) worker->scratch[0]++;
}

static void rounds(lapidary_pool *pool, int runs, int sections) {
    int64_t sums[256] = {0}, expected[256] = {0};
    void *buffers[] = {sums};
    _Atomic int32_t cancel = 0;
    lap_worker caller = {0};
    for (int run = 0; run < runs; run++) {
        while (!lap_pool_enter(pool)) lap_os_yield();
        for (int s = 0; s < sections; s++) {
            int64_t n = 1 + (run * 31 + s * 7) % 256, dims[] = {s, -1};
            lap_section section = {.kernel = add, .buffers = buffers, .dims = dims, .n_tasks = n,
                                   .chunk = 1 + s % 3, .cancel = &cancel};
            lap_section_init(&section);
            lap_pool_scratch(pool, 64 * (1 + run % 4));
            lap_pool_run(pool, &section, &caller);
            for (int64_t i = 0; i < n; i++) expected[i] += s + i;
            for (int64_t i = 0; i < n; i++) {
                if (sums[i] != expected[i]) {
                    printf("task %lld ran a wrong number of times\n", (long long)i);
                    exit(1);
                }
            }
        }
        int64_t dims[] = {0, 100}, scrap[256] = {0};
        void *scraps[] = {scrap};
        lap_section section = {.kernel = add, .buffers = scraps, .dims = dims, .n_tasks = 256, .chunk = 1, .cancel = &cancel};
        lap_section_init(&section);
        lap_pool_run(pool, &section, &caller);
        if (section.fault.value != 100) {
            printf("the fault is of task %lld\n", (long long)section.fault.value);
            exit(1);
        }
        lap_pool_leave(pool);
    }
    free(caller.scratch);
}

static void other(void *pool) { rounds(pool, 60, 10); }

int main(void) {
    lapidary_pool *pool;
    for (int threads = 1; threads <= 5; threads += 2) {
        if (lap_pool_create(threads, &pool)) return 1;
        lap_os_thread *thread = lap_os_thread_start(other, pool);
        rounds(pool, 60, 10);
        lap_os_thread_join(thread);
        lap_pool_destroy(pool);
    }
    puts("ok");
    return 0;
}
