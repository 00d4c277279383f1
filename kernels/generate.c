/* Tensors made from numbers and sizes: shapes, ranges, constants, windows, filters. */
#include "lap_library.h"

/* The element type that the record names must be that of the output. */
static int32_t typed(lap_context *ctx, const lap_tensor *out, int64_t dtype, int32_t node_id) {
    NEED(out->dtype == dtype, "an output of type {a}, expected {b}", out->dtype, dtype);
    return LAPIDARY_OK;
}

/* x. Ints: start, end. */
LAP_LIBRARY_KERNEL(lap_lib_shape) {
    EXPECT(1, 1, 2, 0);
    int64_t rank = in[0]->rank, start = at->ints[0], end = at->ints[1];
    start = lap_min(lap_max(start < 0 ? start + rank : start, 0), rank);
    end = lap_min(lap_max(end < 0 ? end + rank : end, 0), rank);
    int64_t n = lap_max(end - start, 0);
    TRY(typed(ctx, out[0], LAPIDARY_I64, node_id));
    TRY(lap_output_alloc(ctx, out[0], 1, &n, node_id));
    memcpy(out[0]->data, in[0]->dims + start, (size_t)(8 * n));
    return LAPIDARY_OK;
}

/* x. */
LAP_LIBRARY_KERNEL(lap_lib_size) {
    EXPECT(1, 1, 0, 0);
    TRY(typed(ctx, out[0], LAPIDARY_I64, node_id));
    TRY(lap_output_alloc(ctx, out[0], 0, NULL, node_id));
    *(int64_t *)out[0]->data = lap_elements(in[0]);
    return LAPIDARY_OK;
}

/* shape. Ints: element type, bits of the value. */
LAP_LIBRARY_KERNEL(lap_lib_constant_of_shape) {
    EXPECT(1, 1, 2, 0);
    int64_t dims[LAP_MAX_RANK], rank;
    TRY(lap_ints(ctx, in[0], 0, dims, LAP_MAX_RANK, &rank, node_id));
    for (int64_t i = 0; i < rank; i++) NEED(dims[i] >= 0, "shape entry {a} is {b}", i, dims[i]);
    TRY(typed(ctx, out[0], at->ints[0], node_id));
    int64_t size = lap_dtype_bytes(out[0]->dtype);
    NEED(size > 0 && size <= 8, "elements of type {a} are not supported", out[0]->dtype, 0);
    TRY(lap_output_alloc(ctx, out[0], (int32_t)rank, dims, node_id));
    int64_t n = lap_count((int32_t)rank, dims), bits = at->ints[1];
    char *to = out[0]->data;
    if (bits == 0) memset(to, 0, (size_t)(n * size));
    else for (int64_t i = 0; i < n; i++) memcpy(to + i * size, &bits, (size_t)size);
    return LAPIDARY_OK;
}

/* start, limit, delta. */
LAP_LIBRARY_KERNEL(lap_lib_range) {
    EXPECT(3, 1, 0, 0);
    int32_t t = in[0]->dtype;
    for (int32_t i = 0; i < 3; i++) NEED(in[i]->dtype == t, "input {a} has another type than the first, {b}", i, t);
    TRY(typed(ctx, out[0], t, node_id));
    int64_t n;
    if (lap_is_float(t)) {
        double start, limit, delta;
        TRY(lap_one_number(ctx, in[0], 0, &start, node_id));
        TRY(lap_one_number(ctx, in[1], 1, &limit, node_id));
        TRY(lap_one_number(ctx, in[2], 2, &delta, node_id));
        double count = ceil((limit - start) / delta);
        NEED(count < 0x1p60, "the range is endless", 0, 0);
        n = count > 0 ? (int64_t)count : 0;
        TRY(lap_output_alloc(ctx, out[0], 1, &n, node_id));
        if (t == LAPIDARY_F64) {
            for (int64_t i = 0; i < n; i++) ((double *)out[0]->data)[i] = start + (double)i * delta;
        } else {
            for (int64_t i = 0; i < n; i++) lap_set_number(out[0], i, (double)((float)start + (float)i * (float)delta));
        }
        return LAPIDARY_OK;
    }
    int64_t start, limit, delta;
    TRY(lap_one_int(ctx, in[0], 0, &start, node_id));
    TRY(lap_one_int(ctx, in[1], 1, &limit, node_id));
    TRY(lap_one_int(ctx, in[2], 2, &delta, node_id));
    NEED(delta != 0, "the range is endless: delta is {a}", delta, 0);
    uint64_t room = delta > 0 ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
    uint64_t step = delta > 0 ? (uint64_t)delta : 0 - (uint64_t)delta, count = 0;
    if (delta > 0 ? limit > start : limit < start) count = (room - 1) / step + 1;
    NEED(count < UINT64_C(1) << 60, "the range has too many elements", 0, 0);
    n = (int64_t)count;
    TRY(lap_output_alloc(ctx, out[0], 1, &n, node_id));
    int64_t size = lap_dtype_bytes(t);
    char *to = out[0]->data;
    for (int64_t i = 0; i < n; i++) { /* the low bytes are the narrower integer */
        uint64_t v = (uint64_t)start + (uint64_t)i * (uint64_t)delta;
        memcpy(to + i * size, &v, (size_t)size);
    }
    return LAPIDARY_OK;
}

/* indices, depth, values. Ints: axis of the output. */
LAP_LIBRARY_KERNEL(lap_lib_one_hot) {
    EXPECT(3, 1, 1, 0);
    const lap_tensor *indices = in[0];
    double depth_number;
    TRY(lap_one_number(ctx, in[1], 1, &depth_number, node_id));
    NEED(depth_number >= 0 && depth_number < 0x1p60, "a depth of {a}", depth_number < 0 ? -1 : INT64_MAX, 0);
    int64_t depth = (int64_t)depth_number, dims[LAP_MAX_RANK], axis = at->ints[0];
    int32_t rank = indices->rank + 1;
    NEED(axis >= 0 && axis < rank && rank <= LAP_MAX_RANK, "axis {a} of an output of rank {b}", axis, rank);
    NEED(lap_elements(in[2]) == 2, "{a} values, expected {b}", lap_elements(in[2]), 2);
    NEED(lap_is_number(indices->dtype), "indices of type {a}", indices->dtype, 0);
    for (int32_t a = 0; a < rank; a++) dims[a] = a < axis ? indices->dims[a] : a == axis ? depth : indices->dims[a - 1];
    int64_t outer = lap_span(indices, 0, (int32_t)axis), inner = lap_span(indices, (int32_t)axis, indices->rank);
    int64_t n = lap_count(rank, dims);
    NEED(n >= 0, "an output's dims are negative or too large", 0, 0);
    TEMP(int64_t, from, n);
    memset(from, 0, (size_t)(8 * n));
    for (int64_t o = 0; n > 0 && o < outer; o++) {
        for (int64_t i = 0; i < inner; i++) {
            double number = lap_number(indices, o * inner + i);
            if (!(number > -0x1p62 && number < 0x1p62)) continue;
            int64_t j = (int64_t)number;
            if (j < 0) j += depth;
            if (j >= 0 && j < depth) from[(o * depth + j) * inner + i] = 1;
        }
    }
    return lap_pick_blocks(ctx, in[2], out[0], rank, dims, from, n, 1, node_id);
}

/* size. Ints: element type, periodic. Floats: weights of cos 0, cos x, cos 2x. */
LAP_LIBRARY_KERNEL(lap_lib_window) {
    EXPECT(1, 1, 2, 3);
    int64_t n;
    TRY(lap_one_int(ctx, in[0], 0, &n, node_id));
    NEED(n >= 0, "a window of size {a}", n, 0);
    TRY(typed(ctx, out[0], at->ints[0], node_id));
    NEED(lap_is_number(out[0]->dtype), "elements of type {a} are not supported", out[0]->dtype, 0);
    TRY(lap_output_alloc(ctx, out[0], 1, &n, node_id));
    double period = (double)(at->ints[1] ? n : n - 1);
    for (int64_t i = 0; i < n; i++) {
        double x = (double)i * 2 * 3.14159265358979323846 / period;
        lap_set_number(out[0], i, at->floats[0] + at->floats[1] * cos(x) + at->floats[2] * cos(2 * x));
    }
    return LAPIDARY_OK;
}

/* bins, DFT length, sample rate, lower edge, upper edge. Ints: element type. */
LAP_LIBRARY_KERNEL(lap_lib_mel_weight_matrix) {
    EXPECT(5, 1, 1, 0);
    int64_t bins, length, rate;
    double low, high;
    TRY(lap_one_int(ctx, in[0], 0, &bins, node_id));
    TRY(lap_one_int(ctx, in[1], 1, &length, node_id));
    TRY(lap_one_int(ctx, in[2], 2, &rate, node_id));
    TRY(lap_one_number(ctx, in[3], 3, &low, node_id));
    TRY(lap_one_number(ctx, in[4], 4, &high, node_id));
    NEED(bins >= 0 && bins < INT64_C(1) << 40, "{a} mel bins", bins, 0);
    NEED(length >= 0 && rate > 0, "a DFT length of {a}, a sample rate of {b}", length, rate);
    TRY(typed(ctx, out[0], at->ints[0], node_id));
    NEED(lap_is_number(out[0]->dtype), "elements of type {a} are not supported", out[0]->dtype, 0);
    int64_t dims[] = {length / 2 + 1, bins}, rows = dims[0], n = lap_count(2, dims);
    TRY(lap_output_alloc(ctx, out[0], 2, dims, node_id));
    TEMP(int64_t, edges, bins + 2);
    double low_mel = 2595 * log1p(low / 700) / log(10), high_mel = 2595 * log1p(high / 700) / log(10);
    double step = (high_mel - low_mel) / (double)(bins + 2);
    for (int64_t i = 0; i < bins + 2; i++) {
        double hertz = 700 * expm1(((double)i * step + low_mel) / 2595 * log(10));
        double edge = floor((double)(length + 1) * hertz / (double)rate);
        NEED(edge >= 0 && edge <= (double)rows, "edge {a} of the mel bins lies outside of {b} bins of the spectrum", i, rows);
        edges[i] = (int64_t)edge;
    }
    memset(out[0]->data, 0, (size_t)(n * lap_dtype_bytes(out[0]->dtype)));
    for (int64_t i = 0; i < bins; i++) {
        int64_t left = edges[i], center = edges[i + 1], right = edges[i + 2];
        NEED(center < rows && right <= rows, "bin {a} lies outside of {b} bins of the spectrum", i, rows);
        if (center == left) lap_set_number(out[0], center * bins + i, 1);
        for (int64_t j = left; center > left && j <= center; j++) {
            lap_set_number(out[0], j * bins + i, (double)(j - left) / (double)(center - left));
        }
        for (int64_t j = center; j < right; j++) {
            lap_set_number(out[0], j * bins + i, (double)(right - j) / (double)(right - center));
        }
    }
    return LAPIDARY_OK;
}
