/* Maps made of scores, and maps read into rows (docs/library.md). How maps lie in memory: lap_box.h. */
#include <stdlib.h>

#include "lap_box.h"
#include "lap_strings.h"

/* x f32 `[C]` or `[N, C]` -> a sequence of N maps (of one, for a vector) from key to score. Ints: kind of the keys (0
 * strings, 1 i64), then the i64 keys. Strings: the string keys. */
LAP_LIBRARY_KERNEL(lap_lib_zip_map) {
    EXPECT(1, 1, 1, 0);
    const lap_tensor *x = in[0];
    NEED(out[0], "the kernel was given no output", 0, 0);
    int strings = at->ints[0] == 0;
    int64_t n = strings ? at->n_strings : at->n_ints - 1;
    NEED(x->dtype == LAPIDARY_F32, "scores of type {a}, expected f32 ({b})", x->dtype, LAPIDARY_F32);
    NEED(x->rank == 1 || x->rank == 2, "scores of rank {a}, expected 1 or {b}", x->rank, 2);
    NEED(x->dims[x->rank - 1] == n, "{a} scores a row for {b} keys", x->dims[x->rank - 1], n);
    int64_t rows = x->rank == 2 ? x->dims[0] : 1, text = 0;
    for (int64_t i = 0; strings && i < n; i++) text += at->strings[i].bytes;
    TEMP(int64_t, offsets, n + 1);
    TEMP(char, bytes, text);
    offsets[0] = 0;
    for (int64_t i = 0; strings && i < n; i++) {
        memcpy(bytes + offsets[i], at->strings[i].data, (size_t)at->strings[i].bytes);
        offsets[i + 1] = offsets[i] + at->strings[i].bytes;
    }
    lapidary_strings header = {.offsets = offsets, .bytes = bytes};
    lap_tensor keys = {.dtype = strings ? LAPIDARY_STRING : LAPIDARY_I64, .rank = 1, .buffer = -1, .kind = LAP_KIND_TENSOR};
    keys.dims[0] = n;
    keys.data = strings ? (void *)&header : (void *)(uintptr_t)(at->ints + 1);
    lap_tensor values = {.dtype = LAPIDARY_F32, .rank = 1, .buffer = -1, .kind = LAP_KIND_TENSOR};
    values.dims[0] = n;
    values.data = x->data;
    lap_contiguous_strides(&keys);
    lap_contiguous_strides(&values);
    int64_t key_bytes = lap_box_bytes(&keys), value_bytes = lap_box_bytes(&values), each, inside, used;
    NEED(key_bytes >= 0 && value_bytes >= 0, "{a} keys are too many", n, 0);
    each = lap_box_room(2, key_bytes + value_bytes);
    if (each < 0 || __builtin_mul_overflow(each, rows, &inside)) inside = INT64_MAX;
    lap_box *to = lap_output_box(ctx, out[0], lap_box_room(rows, inside), node_id);
    if (!to) return LAPIDARY_ERROR_MEMORY;
    lap_box_begin(to, LAP_KIND_SEQUENCE, LAPIDARY_F32, rows, &used);
    for (int64_t r = 0; r < rows; r++) {
        lap_box *map = (lap_box *)(void *)((char *)to + used);
        to->at[r] = used;
        lap_box_begin(map, LAP_KIND_MAP, LAPIDARY_F32, 2, map->at);
        map->at[1] = map->at[0] + key_bytes;
        map->bytes = each;
        lap_box_write((lap_box *)(void *)((char *)map + map->at[0]), &keys);
        values.data = (float *)x->data + r * n;
        lap_box_write((lap_box *)(void *)((char *)map + map->at[1]), &values);
        used += each;
    }
    to->bytes = used;
    return LAPIDARY_OK;
}

/* A key of a map, and where its value stands. */
typedef struct entry {
    lap_bytes text;
    int64_t number;
    int64_t at;
} entry;

static int by_key(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int c = lap_bytes_compare(x->text, y->text);
    if (c == 0) c = (x->number > y->number) - (x->number < y->number);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Where the value of the key stands (of equal keys, that of the first); -1: there is none. */
static int64_t find(const entry *sorted, int64_t n, lap_bytes text, int64_t number) {
    entry key = {.text = text, .number = number, .at = -1};
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (by_key(sorted + mid, &key) < 0) low = mid + 1;
        else high = mid;
    }
    if (low == n || lap_bytes_compare(sorted[low].text, text) || sorted[low].number != number) return -1;
    return sorted[low].at;
}

/* A map with tensors of one dimension in it -> its values as `[1, n]`. Ints: form (0: all values, ascending by key; 1: those of
 * the keys listed, 2: value k is that of the key k, an i64; 0 or an empty string where there is no such key), n (forms 1 and
 * 2), kind of the keys (0 strings, 1 i64), then the i64 keys of form 1. Strings: its string keys; of form 2 the string
 * for what is missing, if that is not empty. */
LAP_LIBRARY_KERNEL(lap_lib_map_values) {
    const lap_attrs *at = attrs;
    NEED(n_in >= 1 && in[0] && in[0]->kind == LAP_KIND_MAP && in[0]->data, "input 0 is no map", 0, 0);
    NEED(n_out >= 1 && out[0] && at && at->n_ints >= 3, "a bad record of a map", 0, 0);
    const lap_box *map = lap_box_of(in[0]);
    NEED(map->n == 2, "a map of {a} parts, expected {b}", map->n, 2);
    lap_tensor keys, values;
    lapidary_strings key_header, value_header;
    lap_box_view(lap_box_inside(map, 0), &keys, &key_header);
    lap_box_view(lap_box_inside(map, 1), &values, &value_header);
    NEED(keys.kind == LAP_KIND_TENSOR && values.kind == LAP_KIND_TENSOR, "a map whose values are no tensor", 0, 0);
    int64_t form = at->ints[0], kind = at->ints[2], n = lap_elements(&keys);
    NEED(keys.rank == 1 && n == lap_elements(&values), "{a} keys for {b} values", n, lap_elements(&values));
    NEED(keys.dtype == (kind == 0 ? LAPIDARY_STRING : LAPIDARY_I64), "keys of type {a}", keys.dtype, 0);
    int64_t listed = kind == 0 ? at->n_strings : at->n_ints - 3, width = form == 0 ? n : at->ints[1];
    NEED(form >= 0 && form <= 2 && width >= 0 && (form != 1 || listed == width) && (form != 2 || kind == 1), "a bad record of a map", 0, 0);
    TEMP(entry, sorted, n);
    for (int64_t i = 0; i < n; i++) {
        sorted[i] = (entry){.at = i};
        if (kind == 0) sorted[i].text = lap_string(&keys, i);
        else sorted[i].number = ((const int64_t *)keys.data)[i];
    }
    if (n > 1) qsort(sorted, (size_t)n, sizeof(entry), by_key);
    TEMP(int64_t, from, width);
    for (int64_t i = 0; i < width; i++) {
        lap_bytes none = {.data = NULL, .bytes = 0};
        if (form == 0) from[i] = sorted[i].at;
        else if (form == 2) from[i] = -1;
        else from[i] = kind == 0 ? find(sorted, n, at->strings[i], 0) : find(sorted, n, none, at->ints[3 + i]);
    }
    for (int64_t i = 0; form == 2 && i < n; i++) {
        int64_t key = sorted[i].number;
        if (key < 0 || key >= width) FAIL(INDEX, "key {a} of a map is out of a row of {b} values", key, width);
        from[key] = sorted[i].at;
    }
    values.rank = 2;
    values.dims[0] = 1;
    values.dims[1] = n;
    lap_contiguous_strides(&values);
    const int64_t dims[] = {1, width}, *const picked[] = {NULL, from};
    if (form != 2 || at->n_strings < 1 || values.dtype != LAPIDARY_STRING) {
        return lap_pick(ctx, &values, out[0], dims, picked, NULL, node_id);
    }
    int64_t ends[] = {0, at->strings[0].bytes};
    lapidary_strings text = {.offsets = ends, .bytes = at->strings[0].data};
    lap_tensor fill = {.dtype = LAPIDARY_STRING, .buffer = -1, .kind = LAP_KIND_TENSOR, .data = &text};
    return lap_pick(ctx, &values, out[0], dims, picked, &fill, node_id);
}
