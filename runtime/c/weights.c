/* Weights beside the library: a file mapped once for all contexts of a process, never copied; or what the host
 * gives in its stead, in memory or by a reader.
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
    char *path; /* of what is mapped; NULL for a copy in memory of ours */
    /* Where a copy is from: the host's reader and its argument, or no reader and the host's memory. */
    lapidary_read_weights_fn read;
    const void *host;
    uint64_t hash;
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

static const size_t head_bytes = sizeof(lap_weights_header);

/* Fills a copy from the host's reader or memory. */
static int32_t fill(
    const lap_model_table *model, const lapidary_options *from, uint8_t *copy, size_t bytes, char *text, size_t text_bytes) {
    if (!from->read_weights) {
        memcpy(copy, from->weights, bytes);
        return LAPIDARY_OK;
    }
    /* The head first: a reader of another build need not be asked for the rest. */
    const size_t parts[2][2] = {{0, head_bytes}, {head_bytes, bytes - head_bytes}};
    for (int i = 0; i < 2; i++) {
        if (!parts[i][1]) continue;
        int32_t code = from->read_weights(from->weights_host, (int64_t)parts[i][0], copy + parts[i][0], (int64_t)parts[i][1]);
        if (code) {
            snprintf(text, text_bytes, "the reader of weights failed with %d at offset %zu", (int)code, parts[i][0]);
            return LAPIDARY_ERROR_WEIGHTS;
        }
        const char *wrong = i ? NULL : check(model, copy, bytes, 0);
        if (wrong) {
            snprintf(text, text_bytes, "what the reader of weights gives %s", wrong);
            return LAPIDARY_ERROR_WEIGHTS;
        }
    }
    return LAPIDARY_OK;
}

/* Weights in memory: the host's, if they lie well, or a copy that contexts share. No lock is held while the host's
 * reader runs, so two contexts made at once may read twice. */
static int32_t from_host(
    const lap_model_table *model, const lapidary_options *from, lap_weights **out, const uint8_t **blob, char *text,
    size_t text_bytes) {
    const int verify = (from->flags & LAPIDARY_VERIFY_WEIGHTS) != 0;
    const void *host = from->read_weights ? from->weights_host : from->weights;
    size_t bytes = head_bytes + (size_t)model->weights_bytes;
    if (!from->read_weights) {
        const char *wrong = check(model, from->weights, from->weights_bytes, verify);
        if (wrong) {
            snprintf(text, text_bytes, "what is given as weights %s", wrong);
            return LAPIDARY_ERROR_WEIGHTS;
        }
        if ((uintptr_t)from->weights % LAP_ALIGN == 0) {
            *blob = (const uint8_t *)from->weights + head_bytes;
            return LAPIDARY_OK;
        }
    }
    lap_os_global_lock();
    lap_weights *found = all;
    while (found && (found->path || found->read != from->read_weights || found->host != host ||
                     found->hash != model->weights_hash)) {
        found = found->next;
    }
    if (found) found->users++;
    lap_os_global_unlock();
    if (!found) {
        found = malloc(sizeof *found);
        uint8_t *copy = found ? lap_os_alloc(bytes) : NULL;
        if (!copy) {
            free(found);
            snprintf(text, text_bytes, "no memory for %zu bytes of weights", bytes);
            return LAPIDARY_ERROR_MEMORY;
        }
        int32_t code = fill(model, from, copy, bytes, text, text_bytes);
        if (code) {
            lap_os_free(copy);
            free(found);
            return code;
        }
        *found = (lap_weights){.read = from->read_weights, .host = host, .hash = model->weights_hash,
                               .memory = copy, .bytes = bytes, .users = 1};
        lap_os_global_lock();
        found->next = all;
        all = found;
        lap_os_global_unlock();
    }
    if (verify && lap_hash64((const uint8_t *)found->memory + head_bytes, bytes - head_bytes) != model->weights_hash) {
        snprintf(text, text_bytes, "what the reader of weights gives is damaged (its content does not match its hash)");
        lap_weights_close(found);
        return LAPIDARY_ERROR_WEIGHTS;
    }
    *out = found;
    *blob = (const uint8_t *)found->memory + head_bytes;
    return LAPIDARY_OK;
}

int32_t lap_weights_open(
    const lap_model_table *model, const lapidary_options *options, lap_weights **out, const uint8_t **blob, char *text,
    size_t text_bytes) {
    char beside[4096];
    const char *path = options->weights_path;
    const uint32_t flags = options->flags;
    *out = NULL;
    if (options->read_weights || options->weights) return from_host(model, options, out, blob, text, text_bytes);
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
    while (found && (!found->path || strcmp(found->path, path) != 0 || lap_weights_lost(found))) found = found->next;
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
        if (weights->path) {
            lap_guard_remove(weights->guard);
            lap_os_unmap(weights->memory, weights->bytes);
        } else {
            lap_os_free((void *)(uintptr_t)weights->memory);
        }
        free(weights->path);
        free(weights);
    }
    lap_os_global_unlock();
}
