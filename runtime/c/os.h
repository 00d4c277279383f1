/* The operating system, as the runtime sees it. Only os.c and guard.c know more: a port is a port of
 * these files. */
#ifndef LAP_OS_H
#define LAP_OS_H

#include <stddef.h>
#include <stdint.h>

typedef struct lap_os_thread lap_os_thread;
typedef struct lap_os_gate lap_os_gate; /* a lock with a condition */

/* Memory, 64-byte aligned, not cleared; NULL when there is none. */
void *lap_os_alloc(size_t bytes);
void lap_os_free(void *memory);
/* Memory for tests: the first page behind it cannot be touched. It begins at a multiple of `align` (at most 64), all of
 * it and the up to align - 1 bytes behind it hold LAP_OS_GUARD_BYTE. NULL when there is none. */
void *lap_os_guarded_alloc(size_t bytes, size_t align);
/* Bytes from `memory` to the page that cannot be touched. */
size_t lap_os_guarded_bytes(const void *memory);
void lap_os_guarded_free(void *memory);
#define LAP_OS_GUARD_BYTE 0xa5

/* Nanoseconds of a clock that never goes back. */
int64_t lap_os_now(void);
/* Nanoseconds of the calendar's clock. */
uint64_t lap_os_date(void);
void lap_os_yield(void);
/* Processors this process may use, at least 1. */
int32_t lap_os_processors(void);

lap_os_thread *lap_os_thread_start(void (*body)(void *), void *argument);
void lap_os_thread_join(lap_os_thread *thread);
/* In a child process: the thread stayed with the parent. */
void lap_os_thread_forget(lap_os_thread *thread);

lap_os_gate *lap_os_gate_new(void);
void lap_os_gate_delete(lap_os_gate *gate);
void lap_os_gate_forget(lap_os_gate *gate); /* of threads that stayed with the parent: as they left it */
void lap_os_gate_lock(lap_os_gate *gate);
void lap_os_gate_unlock(lap_os_gate *gate);
void lap_os_gate_wait(lap_os_gate *gate); /* locked; may wake for no reason */
void lap_os_gate_wake_all(lap_os_gate *gate); /* locked */

/* One lock of the whole process, for the table of mapped weights. */
void lap_os_global_lock(void);
void lap_os_global_unlock(void);

/* Has the locks of the runtime held across forks from now on, so that a child finds them free, and forks counted. Not
 * zero: no memory. */
int lap_os_watch_forks(void);
/* How many forks, since they are watched, lie between this process and the one that watched first. */
uint32_t lap_os_forks(void);

/* Maps a file for reading; NULL if it cannot. */
const void *lap_os_map(const char *path, size_t *bytes);
void lap_os_unmap(const void *memory, size_t bytes);
/* Writes the path of a file beside the library (or program) that holds `address`; 0 on success. */
int lap_os_beside(const void *address, const char *file, char *path, size_t path_bytes);

/* Not zero: this process may use AMX tiles (asks the system for them). */
int lap_os_grant_amx(void);
/* The Arm features the system reports (LAPIDARY_CPU_ARM_*); 0 elsewhere. */
uint64_t lap_os_arm_features(void);

/* A hint to the processor that this loop waits. */
static inline void lap_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
