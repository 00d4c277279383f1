/* Guards of mapped files: a handler of SIGBUS over a table of address ranges.
 *
 * A page of a mapping that lies behind the end of its file raises SIGBUS when it is read. The handler puts pages of
 * zeros from there to the end of the mapping and marks every guard that they touch; the read goes on, and whoever
 * used the mapping looks at the mark afterwards. Signals at other addresses, and those of other causes, go to the
 * handler that was there before.
 *
 * Invariant: the handler reads atomics alone and takes no lock. A range changes between two increments of its
 * version, so that a handler on another thread never joins the begin of one range with the end of the next; a
 * block of the table is never freed. */
#define _GNU_SOURCE

#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__ELF__)
/* Not linked into a static program, whose code stays anyway. */
#pragma weak lap_pin_library
#define CAN_PIN (lap_pin_library != NULL)
#else
#define CAN_PIN 1
#endif

#define BLOCK 256

struct lap_guard {
    _Atomic uint32_t version; /* odd: being changed */
    _Atomic int32_t lost;
    _Atomic uintptr_t begin;
    _Atomic uintptr_t end; /* of the last page; 0: free */
    char *name; /* under the lock */
};

typedef struct block {
    lap_guard guards[BLOCK];
    struct block *_Atomic next;
} block;

static block first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock: */
static size_t used;
static int installed; /* our handler is the system's, or behind another that came later */
/* Set before our handler is, and not changed while it is. */
static struct sigaction previous;
static uintptr_t page_bytes;

/* ---- the handler ------------------------------------------------------------------------------- */

/* A consistent look at a range; 0: free, or being changed (then no one reads through it). */
static int look(const lap_guard *guard, uintptr_t *begin, uintptr_t *end) {
    uint32_t version = atomic_load(&guard->version);
    *begin = atomic_load(&guard->begin);
    *end = atomic_load(&guard->end);
    return *end && !(version & 1) && atomic_load(&guard->version) == version;
}

/* Zeros from the page of `address` to the end of its range. Not zero: the read may go on. */
static int cover(uintptr_t address) {
    uintptr_t from = 0, to = 0, begin, end;
    for (block *at = &first; at && !to; at = atomic_load(&at->next)) {
        for (int i = 0; i < BLOCK; i++) {
            if (!look(&at->guards[i], &begin, &end) || address < begin || address >= end) continue;
            from = address & ~(page_bytes - 1);
            to = end;
            break;
        }
    }
    if (!to) return 0;
    /* First the marks: another thread may read the zeros at once. */
    for (block *at = &first; at; at = atomic_load(&at->next)) {
        for (int i = 0; i < BLOCK; i++) {
            if (look(&at->guards[i], &begin, &end) && begin < to && end > from) atomic_store(&at->guards[i].lost, 1);
        }
    }
    int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    return mmap((void *)from, to - from, PROT_READ, flags, -1, 0) != MAP_FAILED;
}

static void pass_on(int number, siginfo_t *info, void *machine) {
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        if (previous.sa_flags & SA_SIGINFO) previous.sa_sigaction(number, info, machine);
        else previous.sa_handler(number);
        return;
    }
    int sent = info->si_code <= 0; /* by a process, not by a fault */
    if (sent && previous.sa_handler == SIG_IGN) return;
    struct sigaction usual = {0};
    usual.sa_handler = SIG_DFL;
    sigaction(SIGBUS, &usual, NULL);
    /* A fault comes again by itself. */
    if (sent) raise(SIGBUS);
}

static void handle(int number, siginfo_t *info, void *machine) {
    int error = errno;
    if (info->si_code != BUS_ADRERR || !cover((uintptr_t)info->si_addr)) pass_on(number, info, machine);
    errno = error;
}

static int is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == handle;
}

static int install(void) {
    long page = sysconf(_SC_PAGESIZE);
    if (page <= 0 || sigaction(SIGBUS, NULL, &previous) != 0) return 0;
    page_bytes = (uintptr_t)page;
    struct sigaction ours = {0};
    ours.sa_sigaction = handle;
    /* A handler behind ours finds the mask that it asked for. */
    ours.sa_mask = previous.sa_mask;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (previous.sa_flags & SA_NODEFER);
    return sigaction(SIGBUS, &ours, &previous) == 0;
}

/* Not zero: the handler is there no more. */
static int uninstall(void) {
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) != 0) return 0;
    if (is_ours(&now)) return sigaction(SIGBUS, &previous, NULL) == 0;
    return now.sa_handler == SIG_DFL;
}

/* A later handler may call ours: the library with our code is never unloaded. Not under the lock: the dynamic linker
 * has one of its own, which it holds while it runs destructors, and these may remove guards. */
static void stay(void) {
    static atomic_int stays;
    if (CAN_PIN && !atomic_exchange(&stays, 1)) lap_pin_library((const void *)(uintptr_t)handle);
}

/* ---- the table --------------------------------------------------------------------------------- */

static lap_guard *vacant(void) {
    for (block *at = &first;; at = atomic_load(&at->next)) {
        for (int i = 0; i < BLOCK; i++) {
            if (!atomic_load(&at->guards[i].end)) return &at->guards[i];
        }
        if (!atomic_load(&at->next)) {
            block *next = calloc(1, sizeof *next);
            if (!next) return NULL;
            atomic_store(&at->next, next);
        }
    }
}

static void set(lap_guard *guard, uintptr_t begin, uintptr_t end) {
    atomic_fetch_add(&guard->version, 1);
    atomic_store(&guard->begin, begin);
    atomic_store(&guard->end, end);
    atomic_store(&guard->lost, 0);
    atomic_fetch_add(&guard->version, 1);
}

lap_guard *lap_guard_add(const void *memory, size_t bytes, const char *name) {
    char *copy = malloc(strlen(name) + 1);
    if (!copy) return NULL;
    strcpy(copy, name);
    pthread_mutex_lock(&lock);
    lap_guard *guard = memory && bytes ? vacant() : NULL;
    /* The default may have been put back by a host, or by a handler behind ours. */
    struct sigaction now;
    if (guard && (!installed || (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_handler == SIG_DFL))) {
        installed = install();
        if (!installed) guard = NULL;
    }
    if (guard) {
        uintptr_t begin = (uintptr_t)memory;
        guard->name = copy;
        set(guard, begin, (begin + bytes + page_bytes - 1) & ~(page_bytes - 1));
        used++;
    }
    pthread_mutex_unlock(&lock);
    if (!guard) free(copy);
    return guard;
}

void lap_guard_remove(lap_guard *guard) {
    if (!guard) return;
    pthread_mutex_lock(&lock);
    set(guard, 0, 0);
    free(guard->name);
    guard->name = NULL;
    if (--used == 0 && uninstall()) installed = 0;
    int behind = used == 0 && installed;
    pthread_mutex_unlock(&lock);
    if (behind) stay();
}

void lap_guard_hold(void) { pthread_mutex_lock(&lock); }
void lap_guard_let_go(void) { pthread_mutex_unlock(&lock); }

lap_guard *lap_guard_find(const void *memory, size_t bytes, char *name, size_t name_bytes) {
    uintptr_t from = (uintptr_t)memory;
    lap_guard *found = NULL;
    pthread_mutex_lock(&lock);
    for (block *at = &first; at && !found; at = atomic_load(&at->next)) {
        for (int i = 0; i < BLOCK && !found; i++) {
            lap_guard *guard = &at->guards[i];
            uintptr_t begin = atomic_load(&guard->begin), end = atomic_load(&guard->end);
            if (from >= begin && from < end && bytes <= end - from) found = guard;
        }
    }
    if (found && name) snprintf(name, name_bytes, "%s", found->name);
    pthread_mutex_unlock(&lock);
    return found;
}

int32_t lap_guard_lost(const lap_guard *guard) { return atomic_load_explicit(&guard->lost, memory_order_acquire); }
