/* Mapped files that are cut short while they are in use: reading them gives zeros and a mark, never a signal
 * that kills the process. The policy stands in docs/abi.md ("A file that shrinks"). */
#ifndef LAP_GUARD_H
#define LAP_GUARD_H

#include <stddef.h>
#include <stdint.h>

typedef struct lap_guard lap_guard;

/* Guards a mapping of a file, which begins at a page, until lap_guard_remove, which must come before it is
 * unmapped. The name is copied. NULL: no memory, or no such signal here; the mapping is then as it was. */
lap_guard *lap_guard_add(const void *memory, size_t bytes, const char *name);
void lap_guard_remove(lap_guard *guard); /* or NULL */

/* The guard of the mapping in which these bytes lie, or NULL; valid as long as the mapping's owner keeps it. Its name
 * is copied into `name`, if that is not NULL, as far as it fits. */
lap_guard *lap_guard_find(const void *memory, size_t bytes, char *name, size_t name_bytes);

/* Keeps the table of guards as it is, from before a fork to behind it. */
void lap_guard_hold(void);
void lap_guard_let_go(void);

/* Not zero: some of the mapping could not be read, and reads as zeros now. It stays so. One atomic load. */
int32_t lap_guard_lost(const lap_guard *guard);

/* Has the shared library that holds `address` stay loaded. In a file of its own (pin.c), which what is loaded at run time
 * asks for when it is linked, and a static program need not have. */
void lap_pin_library(const void *address);

#endif
