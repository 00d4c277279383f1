/* Moves of elements whose sizes are data: reshapes, slices, splits, pads, repeats. All but the reshapes are
 * one table of positions an axis, and lap_pick. */
#include "lap_library.h"

/* ---- reshapes ---------------------------------------------------------------------------------- */

/* x, shape. Ints: allowzero. */
LAP_LIBRARY_KERNEL(lap_lib_reshape) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0];
    int64_t dims[LAP_MAX_RANK], n, known = 1, rest = -1, total = lap_elements(x);
    TRY(lap_ints(ctx, in[1], 1, dims, LAP_MAX_RANK, &n, node_id));
    for (int64_t i = 0; i < n; i++) {
        if (dims[i] == 0 && !at->ints[0]) {
            NEED(i < x->rank, "shape entry {a} is 0 (copy), but the input has rank {b}", i, x->rank);
            dims[i] = x->dims[i];
        }
        if (dims[i] == -1) {
            NEED(rest < 0, "the shape has -1 at {a} and at {b}", rest, i);
            rest = i;
            continue;
        }
        NEED(dims[i] >= 0, "shape entry {a} is {b}", i, dims[i]);
        NEED(!__builtin_mul_overflow(known, dims[i], &known), "the shape's product overflows at entry {a}", i, 0);
    }
    if (rest >= 0) {
        NEED(known > 0 ? total % known == 0 : total == 0, "{a} elements do not divide by the shape's other entries, {b}",
             total, known);
        dims[rest] = known > 0 ? total / known : 0;
    }
    return lap_copy_as(ctx, x, out[0], (int32_t)n, dims, node_id);
}

/* The axes as a set. */
static int32_t axis_set(
    lap_context *ctx, const lap_tensor *t, int32_t rank, uint32_t *set, int64_t *n, int32_t node_id) {
    int64_t list[LAP_MAX_RANK];
    TRY(lap_ints(ctx, t, 1, list, LAP_MAX_RANK, n, node_id));
    *set = 0;
    for (int64_t i = 0; i < *n; i++) {
        int32_t a;
        TRY(lap_axis(ctx, list[i], rank < 0 ? (int32_t)(-rank - 1 + *n) : rank, &a, node_id));
        NEED(!(*set >> a & 1), "axis {a} is listed twice", a, 0);
        *set |= 1u << a;
    }
    return LAPIDARY_OK;
}

/* x, axes or none: all of size 1. */
LAP_LIBRARY_KERNEL(lap_lib_squeeze) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0], *list = lap_opt(in, n_in, 1);
    uint32_t set = 0;
    int64_t n, dims[LAP_MAX_RANK];
    int32_t rank = 0;
    if (list) {
        TRY(axis_set(ctx, list, x->rank, &set, &n, node_id));
    } else {
        for (int32_t a = 0; a < x->rank; a++) set |= (uint32_t)(x->dims[a] == 1) << a;
    }
    for (int32_t a = 0; a < x->rank; a++) {
        if (!(set >> a & 1)) dims[rank++] = x->dims[a];
        else NEED(x->dims[a] == 1, "axis {a} has size {b}, expected 1", a, x->dims[a]);
    }
    return lap_copy_as(ctx, x, out[0], rank, dims, node_id);
}

/* x, axes. */
LAP_LIBRARY_KERNEL(lap_lib_unsqueeze) {
    EXPECT(2, 1, 0, 0);
    const lap_tensor *x = in[0];
    uint32_t set;
    int64_t n = lap_elements(in[1]), dims[LAP_MAX_RANK];
    NEED(n <= LAP_MAX_RANK - x->rank, "{a} axes more than rank {b} are too many", n, x->rank);
    TRY(axis_set(ctx, in[1], -x->rank - 1, &set, &n, node_id));
    int32_t rank = x->rank + (int32_t)n;
    for (int32_t a = 0, from = 0; a < rank; a++) dims[a] = set >> a & 1 ? 1 : x->dims[from++];
    return lap_copy_as(ctx, x, out[0], rank, dims, node_id);
}

/* ---- moves along axes ---------------------------------------------------------------------------- */

/* A table of `n` positions; more than memory can hold fails. */
static int64_t *table(lap_context *ctx, int64_t n, int32_t node_id) { return lap_temp(ctx, lap_bytes_of(n, 8), node_id); }

/* x, shape: the common shape of both. */
LAP_LIBRARY_KERNEL(lap_lib_expand) {
    EXPECT(2, 1, 0, 0);
    int64_t shape[LAP_MAX_RANK], n, dims[LAP_MAX_RANK];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    TRY(lap_ints(ctx, in[1], 1, shape, LAP_MAX_RANK, &n, node_id));
    lap_tensor x = *in[0]; /* with ones in front */
    int32_t rank = (int32_t)lap_max(n, x.rank), gap = rank - x.rank;
    for (int32_t a = rank - 1; a >= 0; a--) x.dims[a] = a >= gap ? x.dims[a - gap] : 1;
    x.rank = rank;
    for (int32_t a = 0; a < rank; a++) {
        int64_t want = a >= rank - n ? shape[a - (rank - n)] : 1;
        NEED(want == x.dims[a] || want == 1 || x.dims[a] == 1, "a size of {a} cannot be broadcast to {b}", x.dims[a], want);
        NEED(want >= 0, "a size of {a} in the shape", want, 0);
        dims[a] = x.dims[a] == 1 ? want : x.dims[a];
        if (dims[a] != x.dims[a]) {
            int64_t *zeros = table(ctx, dims[a], node_id);
            if (!zeros) return LAPIDARY_ERROR_MEMORY;
            memset(zeros, 0, (size_t)(8 * dims[a]));
            at_axis[a] = zeros;
        }
    }
    return lap_pick(ctx, &x, out[0], dims, at_axis, NULL, node_id);
}

/* x, repeats. */
LAP_LIBRARY_KERNEL(lap_lib_tile) {
    EXPECT(2, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t times[LAP_MAX_RANK], n, dims[LAP_MAX_RANK];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    TRY(lap_ints(ctx, in[1], 1, times, LAP_MAX_RANK, &n, node_id));
    NEED(n == x->rank, "{a} repeats for an input of rank {b}", n, x->rank);
    for (int32_t a = 0; a < n; a++) {
        NEED(times[a] >= 0, "axis {a} is repeated {b} times", a, times[a]);
        NEED(!__builtin_mul_overflow(x->dims[a], times[a], &dims[a]), "axis {a} repeated {b} times is too large", a, times[a]);
        if (times[a] == 1) continue;
        int64_t *positions = table(ctx, dims[a], node_id);
        if (!positions) return LAPIDARY_ERROR_MEMORY;
        for (int64_t i = 0; i < dims[a]; i++) positions[i] = i % x->dims[a];
        at_axis[a] = positions;
    }
    return lap_pick(ctx, x, out[0], dims, at_axis, NULL, node_id);
}

/* x, starts, ends, axes or none, steps or none. */
LAP_LIBRARY_KERNEL(lap_lib_slice) {
    EXPECT(3, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t list[4][LAP_MAX_RANK], n[4] = {0}, dims[LAP_MAX_RANK];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    for (int32_t i = 0; i < 4; i++) {
        const lap_tensor *t = lap_opt(in, n_in, i + 1);
        if (t) {
            TRY(lap_ints(ctx, t, i + 1, list[i], LAP_MAX_RANK, &n[i], node_id));
        } else {
            n[i] = n[0];
            for (int64_t k = 0; k < n[0]; k++) list[i][k] = i == 2 ? k : 1;
        }
        NEED(n[i] == n[0], "the lists of a slice have {a} and {b} entries", n[0], n[i]);
    }
    memcpy(dims, x->dims, sizeof dims);
    uint32_t set = 0;
    for (int64_t k = 0; k < n[0]; k++) {
        int32_t a;
        TRY(lap_axis(ctx, list[2][k], x->rank, &a, node_id));
        NEED(!(set >> a & 1), "axis {a} is listed twice", a, 0);
        set |= 1u << a;
        int64_t d = x->dims[a], start = list[0][k], end = list[1][k], step = list[3][k];
        NEED(step != 0, "the step of axis {a} is 0", a, 0);
        /* Far ends may overflow when the size is added: they are held first. */
        int64_t low = step > 0 ? 0 : -1, high = step > 0 ? d : d - 1;
        start = start < 0 ? lap_max(start, -d - 1) + d : start;
        end = end < 0 ? lap_max(end, -d - 1) + d : end;
        start = lap_min(lap_max(start, step > 0 ? 0 : -1), high);
        end = lap_min(lap_max(end, low), high);
        if (step < 0 && start < 0) start = -1;
        int64_t span = step > 0 ? end - start : start - end;
        uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
        dims[a] = span > 0 ? (int64_t)(((uint64_t)span - 1) / stride) + 1 : 0;
        int64_t *positions = table(ctx, dims[a], node_id);
        if (!positions) return LAPIDARY_ERROR_MEMORY;
        for (int64_t i = 0; i < dims[a]; i++) positions[i] = start + i * step;
        at_axis[a] = positions;
    }
    return lap_pick(ctx, x, out[0], dims, at_axis, NULL, node_id);
}

/* x, sizes or none: equal parts. Ints: axis, whether the last of these may be smaller. */
LAP_LIBRARY_KERNEL(lap_lib_split) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0], *list = lap_opt(in, n_in, 1);
    int32_t axis;
    int64_t n = list ? lap_elements(list) : n_out, begin = 0;
    TRY(lap_axis(ctx, at->ints[0], x->rank, &axis, node_id));
    NEED(n == n_out, "{a} sizes for {b} outputs", n, n_out);
    TEMP(int64_t, sizes, n);
    if (list) {
        TRY(lap_ints(ctx, list, 1, sizes, n, &n, node_id));
    } else {
        int64_t d = x->dims[axis], part = d / n + (d % n != 0);
        NEED(d % n == 0 || at->ints[1], "an axis of {a} in {b} equal parts", d, n);
        for (int64_t i = 0; i < n; i++) sizes[i] = i < n - 1 ? part : d - part * (n - 1);
    }
    for (int64_t i = 0; i < n; i++) {
        NEED(sizes[i] >= 0 && sizes[i] <= x->dims[axis] - begin, "a part of {a} after {b} elements of the axis", sizes[i], begin);
        begin += sizes[i];
    }
    NEED(begin == x->dims[axis], "parts of {a} elements for an axis of {b}", begin, x->dims[axis]);
    begin = 0;
    int64_t *positions = table(ctx, x->dims[axis], node_id);
    if (!positions) return LAPIDARY_ERROR_MEMORY;
    for (int64_t i = 0; i < x->dims[axis]; i++) positions[i] = i;
    for (int64_t i = 0; i < n; i++) {
        int64_t dims[LAP_MAX_RANK];
        const int64_t *at_axis[LAP_MAX_RANK] = {0};
        memcpy(dims, x->dims, sizeof dims);
        dims[axis] = sizes[i];
        at_axis[axis] = positions + begin;
        if (out[i]) TRY(lap_pick(ctx, x, out[i], dims, at_axis, NULL, node_id));
        begin += sizes[i];
    }
    return LAPIDARY_OK;
}

/* Position i of a padded axis in the axis itself; -1: padding. */
static int64_t padded(int64_t i, int64_t d, int64_t mode) {
    if (i >= 0 && i < d) return i;
    if (mode == 0) return -1;
    if (mode == 1) return i < 0 ? 0 : d - 1;
    if (mode == 3) return (i % d + d) % d;
    if (d == 1) return 0;
    int64_t period = 2 * (d - 1), m = (i % period + period) % period;
    return m < d ? m : period - m;
}

/* x, pads, value or none, axes or none. Ints: mode (0 constant, 1 edge, 2 reflect, 3 wrap). */
LAP_LIBRARY_KERNEL(lap_lib_pad) {
    EXPECT(2, 1, 1, 0);
    const lap_tensor *x = in[0], *value = lap_opt(in, n_in, 2), *axes = lap_opt(in, n_in, 3);
    int64_t pads[2 * LAP_MAX_RANK], which[LAP_MAX_RANK], n, n_axes = x->rank, dims[LAP_MAX_RANK], mode = at->ints[0];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    NEED(mode >= 0 && mode <= 3, "padding mode {a}", mode, 0);
    TRY(lap_ints(ctx, in[1], 1, pads, 2 * LAP_MAX_RANK, &n, node_id));
    for (int64_t i = 0; i < x->rank; i++) which[i] = i;
    if (axes) TRY(lap_ints(ctx, axes, 3, which, LAP_MAX_RANK, &n_axes, node_id));
    NEED(n == 2 * n_axes, "{a} pads for {b} axes", n, n_axes);
    if (value && lap_elements(value) == 0) value = NULL;
    if (value) {
        NEED(value->dtype == x->dtype, "a value of type {a} for elements of type {b}", value->dtype, x->dtype);
        NEED(lap_elements(value) == 1, "a padding value of {a} elements, expected {b}", lap_elements(value), 1);
    }
    memcpy(dims, x->dims, sizeof dims);
    uint32_t set = 0;
    for (int64_t k = 0; k < n_axes; k++) {
        int32_t a;
        TRY(lap_axis(ctx, which[k], x->rank, &a, node_id));
        NEED(!(set >> a & 1), "axis {a} is listed twice", a, 0);
        set |= 1u << a;
        int64_t before = pads[k], after = pads[k + n_axes], d = x->dims[a], whole;
        NEED(before > INT64_MIN / 4 && before < INT64_MAX / 4 && after > INT64_MIN / 4 && after < INT64_MAX / 4,
             "pads of {a} and {b}", before, after);
        whole = before + d + after;
        NEED(whole >= 0, "pads of {a} and {b} leave less than nothing", before, after);
        dims[a] = whole;
        if (before == 0 && after == 0) continue;
        NEED(d > 0 || mode == 0 || whole == 0, "axis {a} has size {b}, and padding needs an element", a, d);
        int64_t *positions = table(ctx, whole, node_id);
        if (!positions) return LAPIDARY_ERROR_MEMORY;
        for (int64_t i = 0; i < whole; i++) positions[i] = padded(i - before, d, mode);
        at_axis[a] = positions;
    }
    return lap_pick(ctx, x, out[0], dims, at_axis, value, node_id);
}

/* x, shape. Ints: the axes that the shape is for. */
LAP_LIBRARY_KERNEL(lap_lib_center_crop_pad) {
    EXPECT(2, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t shape[LAP_MAX_RANK], n, dims[LAP_MAX_RANK];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    TRY(lap_ints(ctx, in[1], 1, shape, LAP_MAX_RANK, &n, node_id));
    NEED(at && n == at->n_ints, "{a} sizes for {b} axes", n, at ? at->n_ints : 0);
    memcpy(dims, x->dims, sizeof dims);
    for (int64_t k = 0; k < n; k++) {
        int32_t a;
        TRY(lap_axis(ctx, at->ints[k], x->rank, &a, node_id));
        NEED(shape[k] >= 0, "a size of {a} for axis {b}", shape[k], a);
        int64_t d = x->dims[a], start = d > shape[k] ? (d - shape[k]) / 2 : 0, before = shape[k] > d ? (shape[k] - d) / 2 : 0;
        dims[a] = shape[k];
        int64_t *positions = table(ctx, dims[a], node_id);
        if (!positions) return LAPIDARY_ERROR_MEMORY;
        for (int64_t i = 0; i < dims[a]; i++) {
            int64_t from = i - before + start;
            positions[i] = from < 0 || from >= d ? -1 : from;
        }
        at_axis[a] = positions;
    }
    return lap_pick(ctx, x, out[0], dims, at_axis, NULL, node_id);
}

/* x, condition. Ints: axis, or -1 for the flattened input. */
LAP_LIBRARY_KERNEL(lap_lib_compress) {
    EXPECT(2, 1, 1, 0);
    lap_tensor x = *in[0];
    const lap_tensor *c = in[1];
    int64_t kept = 0, n = lap_elements(c);
    int32_t axis = 0;
    NEED(c->dtype == LAPIDARY_BOOL, "a condition of type {a}, expected bool ({b})", c->dtype, LAPIDARY_BOOL);
    if (at->ints[0] < 0) {
        x.dims[0] = lap_elements(&x);
        x.rank = 1;
    } else {
        TRY(lap_axis(ctx, at->ints[0], x.rank, &axis, node_id));
    }
    const uint8_t *flags = c->data;
    n = lap_min(n, x.dims[axis]);
    TEMP(int64_t, positions, n);
    for (int64_t i = 0; i < n; i++) {
        if (flags[i]) positions[kept++] = i;
    }
    int64_t dims[LAP_MAX_RANK];
    const int64_t *at_axis[LAP_MAX_RANK] = {0};
    memcpy(dims, x.dims, sizeof dims);
    dims[axis] = kept;
    at_axis[axis] = positions;
    return lap_pick(ctx, &x, out[0], dims, at_axis, NULL, node_id);
}

/* x, lengths. Ints: batch axis, time axis (0 and 1 in one order). */
LAP_LIBRARY_KERNEL(lap_lib_reverse_sequence) {
    EXPECT(2, 1, 2, 0);
    const lap_tensor *x = in[0];
    NEED(x->rank >= 2, "an input of rank {a}, expected {b} or more", x->rank, 2);
    int32_t batch, time;
    TRY(lap_axis(ctx, at->ints[0], x->rank, &batch, node_id));
    TRY(lap_axis(ctx, at->ints[1], x->rank, &time, node_id));
    NEED(batch + time == 1, "batch axis {a} and time axis {b}, expected 0 and 1", batch, time);
    int64_t n = x->dims[batch], steps = x->dims[time], found;
    TEMP(int64_t, lengths, lap_elements(in[1]));
    TRY(lap_ints(ctx, in[1], 1, lengths, lap_elements(in[1]), &found, node_id));
    NEED(found == n, "{a} lengths for a batch of {b}", found, n);
    TEMP(int64_t, from, lap_bytes_of(n, steps));
    for (int64_t b = 0; b < n; b++) {
        NEED(lengths[b] >= 0 && lengths[b] <= steps, "a length of {a} in {b} steps", lengths[b], steps);
        for (int64_t t = 0; t < steps; t++) {
            int64_t source = t < lengths[b] ? lengths[b] - 1 - t : t;
            if (batch == 0) from[b * steps + t] = b * steps + source;
            else from[t * n + b] = source * n + b;
        }
    }
    return lap_pick_blocks(ctx, x, out[0], x->rank, x->dims, from, n * steps, lap_span(x, 2, x->rank), node_id);
}
