/* Guards against files that are cut short, among the handlers of a host. Prints `ok`. Argument: a folder. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guard.h"
#include "os.h"

#define PAGES 4
#define MANY 600

#define MUST(what)                                                    \
    do {                                                              \
        if (!(what)) {                                                \
            printf("line %d: %s\n", __LINE__, #what);                 \
            exit(1);                                                  \
        }                                                             \
    } while (0)

static sigjmp_buf back;
static volatile sig_atomic_t foreign_calls;
static char path[4096];
static size_t page;

static void foreign(int number, siginfo_t *info, void *machine) {
    (void)number, (void)info, (void)machine;
    foreign_calls++;
    siglongjmp(back, 1);
}

/* A mapping of a file full of ones, and the file. */
static volatile const char *mapping(int *file) {
    static char ones[1 << 16];
    memset(ones, 1, sizeof ones);
    *file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    MUST(*file >= 0 && write(*file, ones, PAGES * page) == (ssize_t)(PAGES * page));
    void *memory = mmap(NULL, PAGES * page, PROT_READ, MAP_SHARED, *file, 0);
    MUST(memory != MAP_FAILED);
    return memory;
}

static void drop(volatile const char *memory, int file) {
    munmap((void *)(uintptr_t)memory, PAGES * page);
    close(file);
}

static int handler_is_foreign(void) {
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now);
    return now.sa_sigaction == foreign;
}

static void on_thread(void *argument) {
    volatile const char *memory = argument;
    MUST(memory[2 * page] == 0);
}

int main(int count, char **arguments) {
    MUST(count == 2);
    page = (size_t)sysconf(_SC_PAGESIZE);
    MUST(PAGES * page <= 1 << 16);
    snprintf(path, sizeof path, "%s/mapped", arguments[1]);
    int file, other_file;

    /* The default is restored for a fault elsewhere: it kills. */
    pid_t child = fork();
    if (child == 0) {
        volatile const char *memory = mapping(&file), *other = mapping(&other_file);
        (void)ftruncate(other_file, 0);
        lap_guard_add((const void *)(uintptr_t)memory, PAGES * page, "m");
        _exit(other[0]);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);

    struct sigaction action = {0};
    action.sa_sigaction = foreign;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, NULL);

    /* A guarded file reads on as zeros from where it ends, and is marked. */
    volatile const char *memory = mapping(&file);
    const void *plain = (const void *)(uintptr_t)memory;
    lap_guard *guard = lap_guard_add(plain, PAGES * page, "name");
    MUST(guard && !handler_is_foreign());
    char name[8] = "";
    MUST(lap_guard_find((const char *)plain + page, 10, name, sizeof name) == guard && strcmp(name, "name") == 0);
    MUST(lap_guard_find(plain, 1, name, 3) == guard && strcmp(name, "na") == 0);
    MUST(!lap_guard_find(&file, 1, NULL, 0) && !lap_guard_find(plain, PAGES * page + 1, NULL, 0));
    MUST(memory[PAGES * page - 1] == 1 && !lap_guard_lost(guard));
    MUST(ftruncate(file, (off_t)page) == 0);
    MUST(!lap_guard_lost(guard) && memory[page] == 0 && lap_guard_lost(guard));
    MUST(memory[0] == 1 && memory[PAGES * page - 1] == 0);
    MUST(ftruncate(file, 0) == 0 && memory[0] == 0 && foreign_calls == 0);

    /* A fault elsewhere is the host's. */
    volatile const char *other = mapping(&other_file);
    MUST(ftruncate(other_file, 0) == 0);
    if (sigsetjmp(back, 1) == 0) {
        (void)other[0];
        MUST(!"no fault");
    }
    MUST(foreign_calls == 1);
    drop(other, other_file);

    /* When the last guard goes, the host's handler is back. */
    lap_guard_remove(guard);
    MUST(handler_is_foreign());
    drop(memory, file);

    /* More ranges than a block of the table, one mapping under each; a thread of the pool's kind reads. */
    static lap_guard *guards[MANY];
    memory = mapping(&file);
    plain = (const void *)(uintptr_t)memory;
    for (int i = 0; i < MANY; i++) {
        guards[i] = lap_guard_add((const char *)plain + (size_t)(i % PAGES) * page, page, "part");
        MUST(guards[i]);
    }
    MUST(ftruncate(file, 0) == 0);
    lap_os_thread *thread = lap_os_thread_start(on_thread, (void *)(uintptr_t)plain);
    MUST(thread);
    lap_os_thread_join(thread);
    int lost = 0;
    for (int i = 0; i < MANY; i++) lost += lap_guard_lost(guards[i]);
    MUST(lost == MANY / PAGES);

    /* A handler that came later and calls ours: ours stays behind it, and passes on. */
    struct sigaction later = {0};
    later.sa_sigaction = foreign;
    later.sa_flags = SA_SIGINFO | SA_RESTART;
    MUST(sigaction(SIGBUS, &later, NULL) == 0);
    for (int i = 0; i < MANY; i++) lap_guard_remove(guards[i]);
    MUST(handler_is_foreign());
    drop(memory, file);
    puts("ok");
    return 0;
}
