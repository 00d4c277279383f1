/* The helpers of library kernels: checks, typed access, moves along axes. */
#include "lap_library.h"

/* ---- checks ------------------------------------------------------------------------------------ */

int32_t lap_expect(
    lap_context *ctx, const lap_tensor *const *in, int32_t n_in, int32_t inputs, int32_t n_out, int32_t outputs,
    const lap_attrs *attrs, int32_t ints, int32_t floats, int32_t node_id) {
    NEED(n_in >= inputs, "the kernel was given {a} inputs, expected {b} or more", n_in, inputs);
    NEED(n_out >= outputs, "the kernel was given {a} outputs, expected {b} or more", n_out, outputs);
    for (int32_t i = 0; i < inputs; i++) NEED(in[i], "input {a} of the kernel is missing", i, 0);
    for (int32_t i = 0; i < n_in; i++) {
        if (!in[i]) continue;
        NEED(in[i]->rank >= 0 && in[i]->rank <= LAP_MAX_RANK, "input {a} has rank {b}", i, in[i]->rank);
        NEED(lap_elements(in[i]) >= 0, "input {a} has dims whose product overflows", i, 0);
    }
    if (ints > 0 || floats > 0) {
        NEED(attrs && attrs->n_ints >= ints, "the record has {a} integers, expected {b} or more", attrs ? attrs->n_ints : 0,
             ints);
        NEED(attrs->n_floats >= floats, "the record has {a} floats, expected {b} or more", attrs->n_floats, floats);
    }
    return LAPIDARY_OK;
}

int32_t lap_axis(lap_context *ctx, int64_t axis, int32_t rank, int32_t *to, int32_t node_id) {
    NEED(axis >= -(int64_t)rank && axis < rank, "axis {a} of a value of rank {b}", axis, rank);
    *to = (int32_t)(axis < 0 ? axis + rank : axis);
    return LAPIDARY_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

int lap_is_float(int32_t dtype) {
    return dtype == LAPIDARY_F32 || dtype == LAPIDARY_F64 || dtype == LAPIDARY_F16 || dtype == LAPIDARY_BF16;
}

int lap_is_number(int32_t dtype) {
    return lap_is_float(dtype) || (dtype >= LAPIDARY_U8 && dtype <= LAPIDARY_I64) || dtype == LAPIDARY_BOOL ||
           dtype == LAPIDARY_U32 || dtype == LAPIDARY_U64;
}

double lap_number(const lap_tensor *t, int64_t i) {
    switch (t->dtype) {
    case LAPIDARY_F32: return (double)((const float *)t->data)[i];
    case LAPIDARY_F64: return ((const double *)t->data)[i];
    case LAPIDARY_F16: return (double)lap_f16_to_f32(((const uint16_t *)t->data)[i]);
    case LAPIDARY_BF16: return (double)lap_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case LAPIDARY_U8:
    case LAPIDARY_BOOL: return ((const uint8_t *)t->data)[i];
    case LAPIDARY_I8: return ((const int8_t *)t->data)[i];
    case LAPIDARY_U16: return ((const uint16_t *)t->data)[i];
    case LAPIDARY_I16: return ((const int16_t *)t->data)[i];
    case LAPIDARY_I32: return ((const int32_t *)t->data)[i];
    case LAPIDARY_U32: return ((const uint32_t *)t->data)[i];
    case LAPIDARY_I64: return (double)((const int64_t *)t->data)[i];
    case LAPIDARY_U64: return (double)((const uint64_t *)t->data)[i];
    default: return NAN;
    }
}

/* A double as an integer: towards zero, held at the ends, NaN as 0. */
static int64_t integer(double v) {
    if (!(v > -0x1p63)) return v != v ? 0 : INT64_MIN;
    return v < 0x1p63 ? (int64_t)v : INT64_MAX;
}
static double held(double v, double low, double high) { return v != v ? 0 : v < low ? low : v > high ? high : v; }

void lap_set_number(lap_tensor *t, int64_t i, double v) {
    switch (t->dtype) {
    case LAPIDARY_F32: ((float *)t->data)[i] = (float)v; break;
    case LAPIDARY_F64: ((double *)t->data)[i] = v; break;
    case LAPIDARY_F16: ((uint16_t *)t->data)[i] = (uint16_t)lap_f32_to_f16((float)v); break;
    case LAPIDARY_BF16: ((uint16_t *)t->data)[i] = (uint16_t)lap_f32_to_bf16((float)v); break;
    case LAPIDARY_U8: ((uint8_t *)t->data)[i] = (uint8_t)held(v, 0, 255); break;
    case LAPIDARY_BOOL: ((uint8_t *)t->data)[i] = v != 0; break;
    case LAPIDARY_I8: ((int8_t *)t->data)[i] = (int8_t)held(v, -128, 127); break;
    case LAPIDARY_U16: ((uint16_t *)t->data)[i] = (uint16_t)held(v, 0, 65535); break;
    case LAPIDARY_I16: ((int16_t *)t->data)[i] = (int16_t)held(v, -32768, 32767); break;
    case LAPIDARY_I32: ((int32_t *)t->data)[i] = (int32_t)held(v, -2147483648.0, 2147483647.0); break;
    case LAPIDARY_U32: ((uint32_t *)t->data)[i] = (uint32_t)held(v, 0, 4294967295.0); break;
    case LAPIDARY_I64: ((int64_t *)t->data)[i] = integer(v); break;
    case LAPIDARY_U64: ((uint64_t *)t->data)[i] = v >= 0x1p64 ? UINT64_MAX : v > 0 ? (uint64_t)v : 0; break;
    default: break;
    }
}

static int64_t int_at(const lap_tensor *t, int64_t i) {
    switch (t->dtype) {
    case LAPIDARY_I64: return ((const int64_t *)t->data)[i];
    case LAPIDARY_U64: {
        uint64_t v = ((const uint64_t *)t->data)[i];
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    default: return (int64_t)lap_number(t, i);
    }
}

static int32_t integers(lap_context *ctx, const lap_tensor *t, int32_t operand, int32_t node_id) {
    NEED(t->data || lap_elements(t) == 0, "input {a} has no data", operand, 0);
    NEED(lap_is_number(t->dtype) && !lap_is_float(t->dtype), "input {a} has type {b}, expected integers", operand,
         t->dtype);
    return LAPIDARY_OK;
}

int32_t lap_ints(
    lap_context *ctx, const lap_tensor *t, int32_t operand, int64_t *to, int64_t most, int64_t *n, int32_t node_id) {
    TRY(integers(ctx, t, operand, node_id));
    *n = lap_elements(t);
    NEED(*n <= most, "an operand has {a} numbers, expected {b} at most", *n, most);
    for (int64_t i = 0; i < *n; i++) to[i] = int_at(t, i);
    return LAPIDARY_OK;
}

int32_t lap_one_int(lap_context *ctx, const lap_tensor *t, int32_t operand, int64_t *to, int32_t node_id) {
    TRY(integers(ctx, t, operand, node_id));
    NEED(lap_elements(t) == 1, "input {a} has {b} elements, expected 1", operand, lap_elements(t));
    *to = int_at(t, 0);
    return LAPIDARY_OK;
}

int32_t lap_one_number(lap_context *ctx, const lap_tensor *t, int32_t operand, double *to, int32_t node_id) {
    NEED(lap_is_number(t->dtype), "input {a} has type {b}, expected a number", operand, t->dtype);
    NEED(lap_elements(t) == 1, "input {a} has {b} elements, expected 1", operand, lap_elements(t));
    *to = lap_number(t, 0);
    return LAPIDARY_OK;
}

#define CONVERTED(name, room, store, type, own)                                                        \
    const type *name(lap_context *ctx, const lap_tensor *t, int32_t node_id) {                         \
        if (t->dtype == own) return t->data;                                                           \
        if (!lap_is_number(t->dtype)) {                                                                \
            lap_fail(ctx, LAPIDARY_ERROR_CHECK, node_id, "elements of type {a}, expected numbers", t->dtype, 0); \
            return NULL;                                                                               \
        }                                                                                              \
        int64_t n = lap_elements(t);                                                                   \
        type *to = lap_temp(ctx, lap_bytes_of(n, sizeof(type)), node_id);                              \
        for (int64_t i = 0; to && i < n; i++) to[i] = (type)lap_number(t, i);                          \
        return to;                                                                                     \
    }                                                                                                  \
    type *room(lap_context *ctx, lap_tensor *t, int32_t node_id) {                                     \
        if (t->dtype == own) return t->data;                                                           \
        if (!lap_is_number(t->dtype)) {                                                                \
            lap_fail(ctx, LAPIDARY_ERROR_CHECK, node_id, "elements of type {a}, expected numbers", t->dtype, 0); \
            return NULL;                                                                               \
        }                                                                                              \
        return lap_temp(ctx, lap_bytes_of(lap_elements(t), sizeof(type)), node_id);                    \
    }                                                                                                  \
    void store(lap_tensor *t, const type *from) {                                                      \
        if (t->dtype == own) return;                                                                   \
        int64_t n = lap_elements(t);                                                                   \
        for (int64_t i = 0; i < n; i++) lap_set_number(t, i, (double)from[i]);                         \
    }
CONVERTED(lap_floats, lap_float_room, lap_store_floats, float, LAPIDARY_F32)
CONVERTED(lap_doubles, lap_double_room, lap_store_doubles, double, LAPIDARY_F64)

/* ---- strings ----------------------------------------------------------------------------------- */

/* out[i] = x[from[i]], -1: the fill, or nothing. */
static int32_t pick_strings(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, int32_t rank, const int64_t *dims, const int64_t *from,
    int64_t n, const lap_tensor *fill, int32_t node_id) {
    int64_t bytes = 0;
    lap_bytes other = fill ? lap_string(fill, 0) : (lap_bytes){"", 0};
    for (int64_t i = 0; i < n; i++) {
        int64_t more = from[i] < 0 ? other.bytes : lap_string(x, from[i]).bytes;
        NEED(!__builtin_add_overflow(bytes, more, &bytes), "the strings are too long", 0, 0);
    }
    TRY(lap_output_alloc_strings(ctx, out, rank, dims, bytes, node_id));
    lapidary_strings *to = out->data;
    int64_t *offsets = (int64_t *)(uintptr_t)to->offsets;
    for (int64_t i = 0; i < n; i++) {
        lap_bytes s = from[i] < 0 ? other : lap_string(x, from[i]);
        memcpy((char *)(uintptr_t)to->bytes + offsets[i], s.data, (size_t)s.bytes);
        offsets[i + 1] = offsets[i] + s.bytes;
    }
    return LAPIDARY_OK;
}

/* ---- moves ------------------------------------------------------------------------------------- */

int32_t lap_copy_as(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, int32_t rank, const int64_t *dims, int32_t node_id) {
    int64_t n = lap_elements(x), m = lap_count(rank, dims), size = lap_dtype_bytes(x->dtype);
    NEED(n == m, "{a} elements do not fit a shape of {b}", n, m);
    NEED(out->dtype == x->dtype, "an output of type {a} for elements of type {b}", out->dtype, x->dtype);
    if (x->dtype == LAPIDARY_STRING) {
        TEMP(int64_t, from, n);
        for (int64_t i = 0; i < n; i++) from[i] = i;
        return pick_strings(ctx, x, out, rank, dims, from, n, NULL, node_id);
    }
    NEED(size > 0, "elements of type {a} are not supported", x->dtype, 0);
    TRY(lap_output_alloc(ctx, out, rank, dims, node_id));
    if (n > 0) memmove(out->data, x->data, (size_t)(n * size));
    return LAPIDARY_OK;
}

typedef struct pick_run {
    int64_t to, from, length; /* in steps of the run axis; from -1: fill */
} pick_run;

typedef struct pick {
    const char *x;
    char *out;
    int64_t size, row_to, row_from, block; /* bytes of an element, of rows, of a step of the run axis */
    int32_t outer; /* axes before the run axis */
    const int64_t *to_dims;
    int64_t from_strides[LAP_MAX_RANK]; /* of the outer axes, in rows */
    const int64_t *const *at;
    const int64_t *last; /* table of the run axis, NULL: by runs */
    const pick_run *runs;
    int64_t n_runs, steps;
    const void *fill;
} pick;

static void fill_bytes(char *to, int64_t bytes, const void *fill, int64_t size) {
    if (!fill || bytes <= 0) {
        if (bytes > 0) memset(to, 0, (size_t)bytes);
        return;
    }
    memcpy(to, fill, (size_t)size);
    for (int64_t done = size; done < bytes;) { /* by doubling */
        int64_t more = lap_min(done, bytes - done);
        memcpy(to + done, to, (size_t)more);
        done += more;
    }
}

#define PICK_ELEMENTS(type)                                                                            \
    {                                                                                                  \
        type *t = (type *)(void *)to, fill = 0;                                                        \
        const type *f = (const type *)(const void *)from;                                              \
        if (p->fill) memcpy(&fill, p->fill, sizeof fill);                                              \
        for (int64_t i = 0; i < p->steps; i++) t[i] = p->last[i] < 0 ? fill : f[p->last[i]];           \
    }                                                                                                  \
    break

static void pick_rows(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end, lap_worker *worker) {
    const pick *p = buffers[0];
    (void)dims;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        int64_t rest = row, source = 0;
        for (int32_t a = p->outer - 1; a >= 0; a--) {
            int64_t i = rest % p->to_dims[a];
            rest /= p->to_dims[a];
            if (p->at[a]) i = p->at[a][i];
            if (i < 0) {
                source = -1;
                break;
            }
            source += i * p->from_strides[a];
        }
        char *to = p->out + row * p->row_to;
        if (source < 0) {
            fill_bytes(to, p->row_to, p->fill, p->size);
            continue;
        }
        const char *from = p->x + source * p->row_from;
        if (p->last) {
            switch (p->size) {
            case 1: PICK_ELEMENTS(uint8_t);
            case 2: PICK_ELEMENTS(uint16_t);
            case 4: PICK_ELEMENTS(uint32_t);
            default: PICK_ELEMENTS(uint64_t);
            }
            continue;
        }
        for (int64_t r = 0; r < p->n_runs; r++) {
            const pick_run *run = p->runs + r;
            int64_t bytes = run->length * p->block;
            if (run->from < 0) fill_bytes(to + run->to * p->block, bytes, p->fill, p->size);
            else memcpy(to + run->to * p->block, from + run->from * p->block, (size_t)bytes);
        }
    }
}

int32_t lap_pick(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, const int64_t *dims, const int64_t *const *at,
    const lap_tensor *fill, int32_t node_id) {
    int32_t rank = x->rank;
    int64_t n = lap_count(rank, dims), size = lap_dtype_bytes(x->dtype);
    NEED(out->dtype == x->dtype, "an output of type {a} for elements of type {b}", out->dtype, x->dtype);
    NEED(n >= 0, "an output's dims are negative or too large", 0, 0);
    for (int32_t a = 0; a < rank; a++) { /* the tables are the caller's; a wrong one must not read elsewhere */
        for (int64_t i = 0; at[a] && i < dims[a]; i++) {
            NEED(at[a][i] < x->dims[a], "position {a} of an axis of {b}", at[a][i], x->dims[a]);
        }
        NEED(at[a] || dims[a] <= x->dims[a], "{a} positions of an axis of {b}", dims[a], x->dims[a]);
    }
    if (x->dtype == LAPIDARY_STRING) {
        TEMP(int64_t, from, n);
        for (int64_t e = 0; e < n; e++) {
            int64_t rest = e, stride = 1, source = 0;
            for (int32_t a = rank - 1; a >= 0; a--) {
                int64_t i = rest % dims[a];
                rest /= dims[a];
                if (at[a]) i = at[a][i];
                if (i < 0) {
                    source = -1;
                    break;
                }
                source += i * stride;
                stride *= x->dims[a];
            }
            from[e] = source;
        }
        return pick_strings(ctx, x, out, rank, dims, from, n, fill, node_id);
    }
    NEED(size > 0, "elements of type {a} are not supported", x->dtype, 0);
    TRY(lap_output_alloc(ctx, out, rank, dims, node_id));
    if (n == 0) return LAPIDARY_OK;
    /* The run axis is the last that does not stay as it is. */
    int32_t axis = rank - 1;
    while (axis > 0 && !at[axis] && dims[axis] == x->dims[axis]) axis--;
    if (rank == 0) {
        memcpy(out->data, x->data, (size_t)size);
        return LAPIDARY_OK;
    }
    pick p = {
        .x = x->data, .out = out->data, .size = size, .outer = axis, .to_dims = dims, .at = at,
        .fill = fill ? fill->data : NULL, .steps = dims[axis]};
    p.block = lap_count(rank - axis - 1, dims + axis + 1) * size;
    p.row_to = dims[axis] * p.block;
    p.row_from = x->dims[axis] * p.block;
    int64_t stride = 1;
    for (int32_t a = axis - 1; a >= 0; a--) {
        p.from_strides[a] = stride;
        if (__builtin_mul_overflow(stride, x->dims[a], &stride)) stride = 0; /* then x is empty */
    }
    TEMP(pick_run, runs, dims[axis]);
    for (int64_t i = 0; i < dims[axis]; i++) {
        int64_t from = at[axis] ? at[axis][i] : i;
        if (from < 0) from = -1;
        pick_run *last = runs + p.n_runs - 1;
        if (p.n_runs > 0 && (from < 0 ? last->from < 0 : last->from >= 0 && last->from + last->length == from)) {
            last->length++;
        } else {
            runs[p.n_runs++] = (pick_run){i, from, 1};
        }
    }
    p.runs = runs;
    if (p.block == size && size <= 8 && p.n_runs * 4 > dims[axis]) p.last = at[axis];
    void *buffers[] = {&p};
    int64_t rows = lap_count(axis, dims);
    return lap_parallel_for(ctx, pick_rows, buffers, NULL, rows, 0, node_id, n / 4 + rows * (4 + p.n_runs * 2));
}

int32_t lap_pick_blocks(
    lap_context *ctx, const lap_tensor *x, lap_tensor *out, int32_t rank, const int64_t *dims, const int64_t *from,
    int64_t n, int64_t block, int32_t node_id) {
    int64_t size = lap_dtype_bytes(x->dtype), total = lap_elements(x), blocks = block > 0 ? total / block : INT64_MAX;
    NEED(out->dtype == x->dtype, "an output of type {a} for elements of type {b}", out->dtype, x->dtype);
    for (int64_t i = 0; i < n; i++) NEED(from[i] < blocks, "block {a} of {b}", from[i], blocks);
    if (x->dtype == LAPIDARY_STRING) {
        TEMP(int64_t, each, lap_bytes_of(n, block));
        for (int64_t i = 0; i < n * block; i++) {
            int64_t b = from[i / block];
            each[i] = b < 0 ? -1 : b * block + i % block;
        }
        return pick_strings(ctx, x, out, rank, dims, each, n * block, NULL, node_id);
    }
    NEED(size > 0, "elements of type {a} are not supported", x->dtype, 0);
    TRY(lap_output_alloc(ctx, out, rank, dims, node_id));
    int64_t bytes = block * size;
    char *to = out->data;
    const char *source = x->data;
    for (int64_t i = 0; i < n && bytes > 0; i++, to += bytes) {
        if (from[i] < 0) memset(to, 0, (size_t)bytes);
        else memcpy(to, source + from[i] * bytes, (size_t)bytes);
    }
    return LAPIDARY_OK;
}
