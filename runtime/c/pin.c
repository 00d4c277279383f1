/* Keeps code loaded. Alone in its file: a static program that names dlopen makes the linker of glibc warn. */
#define _GNU_SOURCE

#include "guard.h"

#include <dlfcn.h>
#include <stddef.h>

void lap_pin_library(const void *address) {
#ifdef RTLD_NODELETE
    Dl_info here;
    if (!dladdr(address, &here) || !here.dli_fname) return;
    void *library = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    if (library) dlclose(library);
#else
    (void)address;
#endif
}
