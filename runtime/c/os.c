/* All that knows the operating system: POSIX, with a few Linux extras. */
#define _GNU_SOURCE

#include "os.h"

#include "guard.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "lapidary.h"

#if defined(__ELF__)
#pragma weak dladdr /* not there in a static program */
#define HAS_DLADDR (dladdr != NULL)
#else
#define HAS_DLADDR 1
#endif

struct lap_os_thread {
    pthread_t id;
    void (*body)(void *);
    void *argument;
};

struct lap_os_gate {
    pthread_mutex_t lock;
    pthread_cond_t condition;
};

/* A huge page of x86-64 and of AArch64 with pages of 4 KiB. */
#define HUGE_PAGE ((size_t)2 << 20)

void *lap_os_alloc(size_t bytes) {
    void *memory = NULL;
    /* The first touch of a page costs more than clearing it: large blocks ask for large pages. */
    int large = bytes >= 2 * HUGE_PAGE;
    if (posix_memalign(&memory, large ? HUGE_PAGE : 64, bytes ? bytes : 64) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (large) madvise(memory, bytes & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    return memory;
}

void lap_os_free(void *memory) { free(memory); }

/* One page in front says how large the mapping is. */
typedef struct guarded {
    size_t mapped;
} guarded;

static size_t page_bytes(void) {
    long page = sysconf(_SC_PAGESIZE);
    return page > 0 ? (size_t)page : 4096;
}

/* The page in front of guarded memory: its address is written right before the memory. */
static guarded *guarded_of(const void *memory) {
    guarded *front;
    memcpy((void *)&front, (const char *)memory - sizeof front, sizeof front);
    return front;
}

void *lap_os_guarded_alloc(size_t bytes, size_t align) {
    size_t page = page_bytes();
    if (bytes > SIZE_MAX / 2 || align == 0 || align > 64) return NULL;
    size_t room = (bytes + sizeof(guarded *) + align + page - 1) / page * page; /* aligned, behind the pointer */
    char *front = mmap(NULL, page + room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (front == MAP_FAILED) return NULL;
    char *end = front + page + room;
    if (mprotect(end, page, PROT_NONE) != 0) {
        munmap(front, page + room + page);
        return NULL;
    }
    *(guarded *)(void *)front = (guarded){page + room + page};
    char *memory = end - (bytes + align - 1) / align * align;
    memset(memory, LAP_OS_GUARD_BYTE, (size_t)(end - memory));
    memcpy(memory - sizeof front, (const void *)&front, sizeof front);
    return memory;
}

size_t lap_os_guarded_bytes(const void *memory) {
    const guarded *front = guarded_of(memory);
    return (size_t)((const char *)(const void *)front + front->mapped - page_bytes() - (const char *)memory);
}

void lap_os_guarded_free(void *memory) {
    if (!memory) return;
    guarded *front = guarded_of(memory);
    munmap((void *)front, front->mapped);
}

int64_t lap_os_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t lap_os_date(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void lap_os_yield(void) { sched_yield(); }

int32_t lap_os_processors(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int count = CPU_COUNT(&set);
        if (count > 0) return count;
    }
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 && count < 4096 ? (int32_t)count : 1;
}

static void *thread_main(void *argument) {
    lap_os_thread *thread = argument;
    thread->body(thread->argument);
    return NULL;
}

lap_os_thread *lap_os_thread_start(void (*body)(void *), void *argument) {
    lap_os_thread *thread = malloc(sizeof *thread);
    if (!thread) return NULL;
    thread->body = body;
    thread->argument = argument;
    /* The host's signals are for the host's threads, but a blocked fault kills, whatever handler there is. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    int masked = pthread_sigmask(SIG_SETMASK, &all, &before) == 0;
    int failed = pthread_create(&thread->id, NULL, thread_main, thread);
    if (masked) pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        free(thread);
        return NULL;
    }
    return thread;
}

void lap_os_thread_join(lap_os_thread *thread) {
    pthread_join(thread->id, NULL);
    free(thread);
}

void lap_os_thread_forget(lap_os_thread *thread) { free(thread); }

lap_os_gate *lap_os_gate_new(void) {
    lap_os_gate *gate = malloc(sizeof *gate);
    if (!gate) return NULL;
    if (pthread_mutex_init(&gate->lock, NULL) != 0) {
        free(gate);
        return NULL;
    }
    if (pthread_cond_init(&gate->condition, NULL) != 0) {
        pthread_mutex_destroy(&gate->lock);
        free(gate);
        return NULL;
    }
    return gate;
}

void lap_os_gate_delete(lap_os_gate *gate) {
    if (!gate) return;
    pthread_cond_destroy(&gate->condition);
    pthread_mutex_destroy(&gate->lock);
    free(gate);
}

/* Destroying a condition would wait for those who wait on it. */
void lap_os_gate_forget(lap_os_gate *gate) { free(gate); }

void lap_os_gate_lock(lap_os_gate *gate) { pthread_mutex_lock(&gate->lock); }
void lap_os_gate_unlock(lap_os_gate *gate) { pthread_mutex_unlock(&gate->lock); }
void lap_os_gate_wait(lap_os_gate *gate) { pthread_cond_wait(&gate->condition, &gate->lock); }
void lap_os_gate_wake_all(lap_os_gate *gate) { pthread_cond_broadcast(&gate->condition); }

static pthread_mutex_t global_lock = PTHREAD_MUTEX_INITIALIZER;
void lap_os_global_lock(void) { pthread_mutex_lock(&global_lock); }
void lap_os_global_unlock(void) { pthread_mutex_unlock(&global_lock); }

static _Atomic uint32_t forks;
static pthread_once_t watched = PTHREAD_ONCE_INIT;
static int unwatched;

/* Guards are made under the global lock, so that one comes first. */
static void before_fork(void) {
    lap_os_global_lock();
    lap_guard_hold();
}

static void after_fork(void) {
    lap_guard_let_go();
    lap_os_global_unlock();
}

static void in_child(void) {
    atomic_fetch_add(&forks, 1);
    after_fork();
}

/* The C library takes the handlers out again when this code is unloaded. */
static void watch_forks(void) { unwatched = pthread_atfork(before_fork, after_fork, in_child); }

int lap_os_watch_forks(void) {
    pthread_once(&watched, watch_forks);
    return unwatched;
}

uint32_t lap_os_forks(void) { return atomic_load_explicit(&forks, memory_order_relaxed); }

const void *lap_os_map(const char *path, size_t *bytes) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    struct stat status;
    void *memory = MAP_FAILED;
    if (fstat(file, &status) == 0 && status.st_size > 0) {
        *bytes = (size_t)status.st_size;
        memory = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, file, 0);
    }
    close(file);
    return memory == MAP_FAILED ? NULL : memory;
}

void lap_os_unmap(const void *memory, size_t bytes) { munmap((void *)(uintptr_t)memory, bytes); }

int lap_os_beside(const void *address, const char *file, char *path, size_t path_bytes) {
    Dl_info info;
    const char *holder = NULL;
    if (HAS_DLADDR && dladdr(address, &info)) holder = info.dli_fname;
#ifdef __linux__
    char program[4096];
    if (!holder) { /* static, or the C library does not tell */
        ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
        if (length > 0) {
            program[length] = 0;
            holder = program;
        }
    }
#endif
    if (!holder) return 1;
    const char *slash = strrchr(holder, '/');
    int folder = slash ? (int)(slash - holder) + 1 : 0;
    int length = snprintf(path, path_bytes, "%.*s%s", folder, holder, file);
    return length < 0 || (size_t)length >= path_bytes;
}

int lap_os_grant_amx(void) {
#if defined(__linux__) && defined(__x86_64__)
    /* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return 0;
#endif
}

uint64_t lap_os_arm_features(void) {
    uint64_t features = 0;
#if defined(__linux__) && defined(__aarch64__)
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    if (first & (1ul << 20)) features |= LAPIDARY_CPU_ARM_DOTPROD; /* HWCAP_ASIMDDP */
    if (first & (1ul << 10)) features |= LAPIDARY_CPU_ARM_FP16; /* HWCAP_ASIMDHP */
    if (second & (1ul << 13)) features |= LAPIDARY_CPU_ARM_I8MM; /* HWCAP2_I8MM */
    if (second & (1ul << 14)) features |= LAPIDARY_CPU_ARM_BF16; /* HWCAP2_BF16 */
#elif defined(__aarch64__) && defined(__APPLE__)
    features = LAPIDARY_CPU_ARM_DOTPROD | LAPIDARY_CPU_ARM_FP16;
#endif
    return features;
}
