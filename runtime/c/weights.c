/* Weights beside the library: a file mapped once for all contexts of a process, never copied.
 *
 * The file is a lap_weights_header and the blob. Its size and the hash in its header must be those of the
 * model's table; hashing the whole blob is an option, since it reads it all. The mapping is guarded (guard.h),
 * and a run looks afterwards whether the file shrank. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "guard.h"
#include "os.h"

struct lap_weights {
    struct lap_weights *next;
    char *path;
    const void *memory;
    size_t bytes;
    lap_guard *_Atomic guard; /* NULL while all users do without */
    int64_t users;
};

static lap_weights *all; /* under the global lock */

static uint64_t rotate(uint64_t word, int by) { return word << by | word >> (64 - by); }

/* Four lanes of multiply and rotate over 64-bit little-endian words; the tail is padded with zeros. */
uint64_t lap_hash64(const void *data, size_t bytes) {
    const uint64_t p = 0x9e3779b185ebca87ull, q = 0xc2b2ae3d27d4eb4full;
    const uint8_t *at = data;
    uint64_t lane[4] = {p, q, p ^ q, p + q};
    size_t left = bytes;
    while (left) {
        uint64_t words[4] = {0};
        size_t take = left < 32 ? left : 32;
        memcpy(words, at, take);
        for (int i = 0; i < 4; i++) lane[i] = rotate(lane[i] ^ words[i] * p, 31) * q;
        at += take;
        left -= take;
    }
    uint64_t hash = (uint64_t)bytes * p;
    for (int i = 0; i < 4; i++) {
        hash = rotate(hash ^ lane[i], 27) * p + q;
    }
    hash ^= hash >> 32;
    hash *= q;
    return hash ^ hash >> 29;
}

static const char *check(const lap_model_table *model, const void *memory, size_t bytes, int verify) {
    lap_weights_header header;
    if (bytes < sizeof header) return "is too short";
    memcpy(&header, memory, sizeof header);
    if (memcmp(header.magic, "LAPIDWTS", 8) != 0 || header.version != 1) return "is not a weights file";
    if (header.bytes != (uint64_t)model->weights_bytes || bytes - sizeof header != header.bytes ||
        header.hash != model->weights_hash) {
        return "belongs to another build of the model";
    }
    if (verify && lap_hash64((const uint8_t *)memory + sizeof header, header.bytes) != header.hash) {
        return "is damaged (its content does not match its hash)";
    }
    return NULL;
}

int32_t lap_weights_open(
    const lap_model_table *model, const char *path, uint32_t flags, lap_weights **out, const uint8_t **blob,
    char *text, size_t text_bytes) {
    char beside[4096];
    *out = NULL;
    if (!path) {
        /* Not the model's address: a program may hold a copy of that symbol. */
        if (lap_os_beside(&lap_runtime_table, model->weights_file, beside, sizeof beside) != 0) {
            snprintf(text, text_bytes, "cannot tell the folder of the weights file `%s`", model->weights_file);
            return LAPIDARY_ERROR_WEIGHTS;
        }
        path = beside;
    }
    int32_t code = LAPIDARY_OK;
    lap_os_global_lock();
    lap_weights *found = all;
    /* One that shrank is of no use to a newcomer; the file may be whole again. */
    while (found && (strcmp(found->path, path) != 0 || lap_weights_lost(found))) found = found->next;
    if (!found) {
        found = malloc(sizeof *found);
        char *name = malloc(strlen(path) + 1);
        size_t bytes = 0;
        const void *memory = found && name ? lap_os_map(path, &bytes) : NULL;
        if (!memory) {
            free(found);
            free(name);
            snprintf(text, text_bytes, "cannot map the weights file `%s`", path);
            code = LAPIDARY_ERROR_WEIGHTS;
            goto done;
        }
        strcpy(name, path);
        *found = (lap_weights){.next = all, .path = name, .memory = memory, .bytes = bytes};
        all = found;
    }
    found->users++;
    if (!found->guard && !(flags & LAPIDARY_NO_FAULT_HANDLER)) {
        found->guard = lap_guard_add(found->memory, found->bytes, path);
    }
    *out = found;
done:
    lap_os_global_unlock();
    if (code) return code;
    const char *wrong = check(model, found->memory, found->bytes, (flags & LAPIDARY_VERIFY_WEIGHTS) != 0);
    if (lap_weights_lost(found)) wrong = "shrank while it was read";
    if (wrong) {
        snprintf(text, text_bytes, "the weights file `%s` %s", path, wrong);
        lap_weights_close(found);
        *out = NULL;
        return LAPIDARY_ERROR_WEIGHTS;
    }
    *blob = (const uint8_t *)found->memory + sizeof(lap_weights_header);
    return LAPIDARY_OK;
}

const char *lap_weights_lost(const lap_weights *weights) {
    const lap_guard *guard = weights->guard;
    return guard && lap_guard_lost(guard) ? weights->path : NULL;
}

void lap_weights_close(lap_weights *weights) {
    if (!weights) return;
    lap_os_global_lock();
    if (--weights->users == 0) {
        lap_weights **link = &all;
        while (*link != weights) link = &(*link)->next;
        *link = weights->next;
        lap_guard_remove(weights->guard);
        lap_os_unmap(weights->memory, weights->bytes);
        free(weights->path);
        free(weights);
    }
    lap_os_global_unlock();
}
