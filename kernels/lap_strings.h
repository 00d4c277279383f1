/* What kernels over strings share: making a string tensor, broadcasting by element, tables of keys, text of
 * numbers. */
#ifndef LAP_STRINGS_H
#define LAP_STRINGS_H

#include "lap_library.h"

/* A string tensor being written, element after element. */
typedef struct lap_text {
    int64_t *offsets; /* of the next element */
    char *bytes;
} lap_text;

/* Allocates an output for `bytes` of text in all. */
int32_t lap_text_begin(
    lap_context *ctx, lap_tensor *out, int32_t rank, const int64_t *dims, int64_t bytes, lap_text *text,
    int32_t node_id);
/* Ends the element whose `bytes` stand at text->bytes + text->offsets[0]. */
static inline void lap_text_end(lap_text *text, int64_t bytes) {
    text->offsets[1] = text->offsets[0] + bytes;
    text->offsets++;
}
static inline char *lap_text_at(const lap_text *text) { return text->bytes + text->offsets[0]; }
static inline void lap_text_put(lap_text *text, lap_bytes s) {
    if (s.bytes > 0) memcpy(lap_text_at(text), s.data, (size_t)s.bytes);
    lap_text_end(text, s.bytes);
}

/* An error unless the operand holds strings. */
int32_t lap_is_strings(lap_context *ctx, const lap_tensor *t, int32_t operand, int32_t node_id);

/* The shape that n operands are broadcast to. */
int32_t lap_broadcast(
    lap_context *ctx, const lap_tensor *const *in, int32_t n, int32_t *rank, int64_t *dims, int32_t node_id);
/* The element of t that element `element` of the broadcast shape reads. */
int64_t lap_broadcast_at(const lap_tensor *t, int32_t rank, const int64_t *dims, int64_t element);

static inline int lap_bytes_compare(lap_bytes a, lap_bytes b) {
    int64_t n = a.bytes < b.bytes ? a.bytes : b.bytes;
    int c = n > 0 ? memcmp(a.data, b.data, (size_t)n) : 0;
    return c ? c : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* Keys in ascending order, and a number for each: strings (their bytes, and n + 1 offsets), i64 or f64. */
typedef struct lap_keys {
    int64_t n;
    int32_t kind; /* 0 strings, 1 i64, 2 f64 */
    const char *bytes;
    const int64_t *offsets;
    const int64_t *ints;
    const double *floats;
    const int64_t *values;
} lap_keys;
/* Reads keys from three parts of a record: bytes (or numbers), offsets (or nothing), values. */
int32_t lap_keys_of(
    lap_context *ctx, const lap_attrs *at, int32_t kind, int32_t part, lap_keys *keys, int32_t node_id);
/* The position of a key, or -1. */
int64_t lap_find_string(const lap_keys *keys, lap_bytes s);
int64_t lap_find_int(const lap_keys *keys, int64_t v);
int64_t lap_find_float(const lap_keys *keys, double v);

/* The shortest digits that read back as the same number of `mantissa` significant bits (11, 24 or 53), as NumPy writes
 * it: plainly from 1e-4 to `limit` (1e16 for f64, 1e6 for f32, 1e3 for f16), else with an exponent. At most
 * LAP_NUMBER_TEXT bytes; gives their number. */
#define LAP_NUMBER_TEXT 40
int64_t lap_float_text(double v, int32_t mantissa_bits, int32_t least_exponent, double limit, char *to);
/* Reads a number in the decimal notation of Python's float(), rounded correctly. 0: it is none. */
int32_t lap_parse_float(lap_bytes s, double *to);

#endif
