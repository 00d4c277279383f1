/* A process that forks while a model is loaded: parent and child both go on running it. */
#include "lapidary.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 200000 /* enough for several threads */

extern const lapidary_model lapidary_model_plus;

static float data[COUNT];

static int right(lapidary_context *context) {
    int64_t shape[] = {COUNT};
    lapidary_tensor x = {.data = data, .device = {1, 0}, .ndim = 1, .dtype = {2, 32, 1}, .shape = shape};
    if (lapidary_set_input(context, 0, &x) || lapidary_run(context)) return 0;
    const float *y = lapidary_output(context, 0)->data;
    for (int i = 0; i < COUNT; i++) {
        if (y[i] != data[i] + 1) return 0;
    }
    return 1;
}

static lapidary_context *make(lapidary_pool *pool) {
    lapidary_options options = {.struct_bytes = sizeof options, .threads = 4, .pool = pool};
    lapidary_context *context;
    return lapidary_context_create(&lapidary_model_plus, &options, &context) ? NULL : context;
}

static lapidary_context *single(void) {
    lapidary_options options = {.struct_bytes = sizeof options, .threads = 1};
    lapidary_context *context;
    return lapidary_context_create(&lapidary_model_plus, &options, &context) ? NULL : context;
}

static _Atomic int done;

static void *make_and_destroy(void *nothing) {
    while (!atomic_load(&done)) lapidary_context_destroy(single());
    return nothing;
}

/* The child's side: what it inherits, and what it makes itself. */
static int child(lapidary_context *own, lapidary_context *shared, lapidary_pool *pool) {
    alarm(60); /* a deadlock must not hang the test */
    if (!right(own)) return 1;
    if (!right(shared)) return 2;
    lapidary_context *made = make(NULL);
    if (!made || !right(made)) return 3;
    lapidary_context_destroy(made);
    made = make(pool);
    if (!made || !right(made)) return 4;
    lapidary_context_destroy(made);
    lapidary_context_destroy(own);
    lapidary_context_destroy(shared);
    lapidary_pool_destroy(&lapidary_model_plus, pool);
    return 0;
}

int main(void) {
    for (int i = 0; i < COUNT; i++) data[i] = (float)(i % 1000);
    lapidary_pool *pool;
    if (lapidary_pool_create(&lapidary_model_plus, 3, &pool)) return 1;
    lapidary_context *own = make(NULL), *shared = make(pool);
    if (!own || !shared || !right(own) || !right(shared)) return 2;
    for (int i = 0; i < 20; i++) {
        pid_t id = fork();
        if (id < 0) return 3;
        if (id == 0) _exit(child(own, shared, pool));
        if (!right(own) || !right(shared)) return 4;
        int status;
        if (waitpid(id, &status, 0) != id || !WIFEXITED(status) || WEXITSTATUS(status)) {
            printf("child: status %x\n", (unsigned)status);
            return 5;
        }
    }
    lapidary_context_destroy(own);
    lapidary_context_destroy(shared);
    lapidary_pool_destroy(&lapidary_model_plus, pool);

    /* While another thread holds the runtime's locks now and then, and none has made a pool. */
    pthread_t thread;
    if (pthread_create(&thread, NULL, make_and_destroy, NULL)) return 6;
    for (int i = 0; i < 200; i++) {
        pid_t id = fork();
        if (id < 0) return 7;
        if (id == 0) {
            alarm(60);
            lapidary_context *made = single();
            int fine = made && right(made);
            lapidary_context_destroy(made);
            _exit(!fine);
        }
        int status;
        if (waitpid(id, &status, 0) != id || !WIFEXITED(status) || WEXITSTATUS(status)) return 8;
    }
    atomic_store(&done, 1);
    pthread_join(thread, NULL);
    printf("ok\n");
    return 0;
}
