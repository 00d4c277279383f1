/* Operators over strings: joining, splitting, comparing, case, regular expressions. */
#include "lap_strings.h"

#include "case_table.h"

/* ---- joining and comparing ---------------------------------------------------------------------- */

/* a, b (strings), broadcast together: each element the two behind each other. */
LAP_LIBRARY_KERNEL(lap_lib_string_concat) {
    EXPECT(2, 1, 0, 0);
    int32_t rank;
    int64_t dims[LAP_MAX_RANK], bytes = 0;
    for (int32_t i = 0; i < 2; i++) TRY(lap_is_strings(ctx, in[i], i, node_id));
    TRY(lap_broadcast(ctx, in, 2, &rank, dims, node_id));
    int64_t n = lap_count(rank, dims);
    TEMP(int64_t, left, n);
    TEMP(int64_t, right, n);
    CLOCK(clock);
    for (int64_t e = 0; e < n; e++) {
        left[e] = lap_broadcast_at(in[0], rank, dims, e);
        right[e] = lap_broadcast_at(in[1], rank, dims, e);
        int64_t more = lap_string(in[0], left[e]).bytes + lap_string(in[1], right[e]).bytes;
        NEED(!__builtin_add_overflow(bytes, more, &bytes), "the strings are too long", 0, 0);
        TRY(lap_tick(&clock, 1));
    }
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], rank, dims, bytes, &text, node_id));
    for (int64_t e = 0; e < n; e++) {
        lap_bytes a = lap_string(in[0], left[e]), b = lap_string(in[1], right[e]);
        char *to = lap_text_at(&text);
        if (a.bytes > 0) memcpy(to, a.data, (size_t)a.bytes);
        if (b.bytes > 0) memcpy(to + a.bytes, b.data, (size_t)b.bytes);
        lap_text_end(&text, a.bytes + b.bytes);
        TRY(lap_tick(&clock, 1 + a.bytes + b.bytes));
    }
    return LAPIDARY_OK;
}

/* a, b (strings), broadcast together: bool, whether they are equal byte by byte. */
LAP_LIBRARY_KERNEL(lap_lib_string_equal) {
    EXPECT(2, 1, 0, 0);
    int32_t rank;
    int64_t dims[LAP_MAX_RANK];
    for (int32_t i = 0; i < 2; i++) TRY(lap_is_strings(ctx, in[i], i, node_id));
    TRY(lap_broadcast(ctx, in, 2, &rank, dims, node_id));
    NEED(out[0]->dtype == LAPIDARY_BOOL, "an output of type {a}, expected bool ({b})", out[0]->dtype, LAPIDARY_BOOL);
    TRY(lap_output_alloc(ctx, out[0], rank, dims, node_id));
    uint8_t *to = out[0]->data;
    CLOCK(clock);
    for (int64_t e = 0, n = lap_count(rank, dims); e < n; e++) {
        lap_bytes a = lap_string(in[0], lap_broadcast_at(in[0], rank, dims, e));
        TRY(lap_tick(&clock, 1 + a.bytes));
        to[e] = lap_bytes_compare(a, lap_string(in[1], lap_broadcast_at(in[1], rank, dims, e))) == 0;
    }
    return LAPIDARY_OK;
}

/* ---- UTF-8 --------------------------------------------------------------------------------------- */

/* The code point at s, and its length; bytes that are not UTF-8 stand for themselves, with length 1 and above
 * every code point. */
static uint32_t decode(lap_bytes s, int64_t *length) {
    const uint8_t *b = (const uint8_t *)s.data;
    int64_t n = b[0] < 0x80 ? 1 : b[0] >= 0xc2 && b[0] < 0xe0 ? 2 : b[0] >= 0xe0 && b[0] < 0xf0 ? 3 : b[0] >= 0xf0 && b[0] < 0xf5 ? 4 : 0;
    *length = 1;
    if (n == 1) return b[0];
    if (n == 0 || n > s.bytes) return 0x80000000u | b[0];
    uint32_t c = b[0] & (0xffu >> (n + 1));
    for (int64_t i = 1; i < n; i++) {
        if ((b[i] & 0xc0) != 0x80) return 0x80000000u | b[0];
        c = c << 6 | (b[i] & 0x3fu);
    }
    if ((n == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (n == 4 && (c < 0x10000 || c > 0x10ffff))) {
        return 0x80000000u | b[0];
    }
    *length = n;
    return c;
}

static int64_t encode(uint32_t c, char *to) {
    if (c >> 31 || c < 0x80) {
        to[0] = (char)(c & 0xff);
        return 1;
    }
    int64_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int64_t i = n - 1; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(0xf00u >> n | c);
    return n;
}

/* ---- case ---------------------------------------------------------------------------------------- */

enum { CASE_KEEP, CASE_LOWER, CASE_UPPER };

static uint32_t change_case(uint32_t c, int action) {
    if (c < 0x80) {
        uint32_t first = action == CASE_LOWER ? 'A' : 'a';
        return c >= first && c < first + 26 ? c ^ 0x20 : c;
    }
    const case_run *runs = action == CASE_LOWER ? case_lower : case_upper;
    size_t low = 0, high = action == CASE_LOWER ? sizeof case_lower / sizeof *runs : sizeof case_upper / sizeof *runs;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (runs[mid].last < c) low = mid + 1;
        else high = mid;
    }
    const case_run *r = runs + low;
    size_t all = action == CASE_LOWER ? sizeof case_lower / sizeof *runs : sizeof case_upper / sizeof *runs;
    if (low == all || c < r->first || (c - r->first) % (uint32_t)r->step) return c;
    return (uint32_t)((int32_t)c + r->distance);
}

/* Writes s in another case (`to` NULL: only its length). A code point of 2 bytes or more may become one of other length,
 * at most 3 bytes for 2. */
static int64_t cased(lap_bytes s, int action, char *to) {
    int64_t length = 0, step;
    char room[4];
    for (int64_t i = 0; i < s.bytes; i += step) {
        uint32_t c = decode((lap_bytes){s.data + i, s.bytes - i}, &step);
        if (action != CASE_KEEP && !(c >> 31)) c = change_case(c, action);
        length += encode(c, to ? to + length : room);
    }
    return length;
}

/* x `[C]` or `[1, C]`. Ints: action (0 keep, 1 lower, 2 upper), case_sensitive. Strings: the stop words. Elements that are
 * stop words go, the others change their case; where none is left, one empty string. */
LAP_LIBRARY_KERNEL(lap_lib_string_normalize) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0];
    TRY(lap_is_strings(ctx, x, 0, node_id));
    NEED(x->rank == 1 || (x->rank == 2 && x->dims[0] == 1), "strings of rank {a} and first size {b}, expected [C] or [1, C]",
         x->rank, x->rank > 0 ? x->dims[0] : 0);
    int64_t n = x->dims[x->rank - 1], kept = 0, bytes = 0;
    int action = (int)at->ints[0], sensitive = at->ints[1] != 0;
    int fold = sensitive ? CASE_KEEP : action == CASE_UPPER ? CASE_UPPER : CASE_LOWER;
    NEED(at->ints[0] >= 0 && at->ints[0] <= 2, "a change of case {a}, expected 0 to {b}", at->ints[0], 2);
    /* Words are compared in the case of `fold`. */
    TEMP(lap_bytes, words, at->n_strings);
    int64_t room = 0;
    for (int32_t w = 0; w < at->n_strings; w++) room += cased(at->strings[w], fold, NULL);
    TEMP(char, folded, room);
    for (int32_t w = 0; w < at->n_strings; w++) {
        words[w] = (lap_bytes){folded, cased(at->strings[w], fold, folded)};
        folded += words[w].bytes;
    }
    room = 0;
    for (int64_t i = 0; i < n; i++) room = lap_max(room, lap_string(x, i).bytes);
    TEMP(char, one, lap_bytes_of(room, 2));
    TEMP(int64_t, list, n);
    CLOCK(clock);
    for (int64_t i = 0; i < n; i++) {
        lap_bytes s = lap_string(x, i);
        int stop = 0;
        TRY(lap_tick(&clock, 1 + s.bytes + at->n_strings));
        if (at->n_strings > 0) {
            lap_bytes key = fold == CASE_KEEP ? s : (lap_bytes){one, cased(s, fold, one)};
            for (int32_t w = 0; w < at->n_strings && !stop; w++) {
                stop = key.bytes == words[w].bytes && lap_bytes_compare(key, words[w]) == 0;
            }
        }
        if (stop) continue;
        list[kept++] = i;
        bytes += action == CASE_KEEP ? s.bytes : cased(s, action, NULL);
    }
    int64_t dims[2] = {1, 1};
    dims[x->rank - 1] = lap_max(kept, 1);
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], x->rank, dims, bytes, &text, node_id));
    for (int64_t k = 0; k < kept; k++) {
        lap_bytes s = lap_string(x, list[k]);
        if (action == CASE_KEEP) lap_text_put(&text, s);
        else lap_text_end(&text, cased(s, action, lap_text_at(&text)));
    }
    return LAPIDARY_OK;
}

/* ---- splitting ----------------------------------------------------------------------------------- */

/* What Python's str.split() takes for space. */
static int is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int64_t skip_space(lap_bytes s, int64_t i) {
    int64_t step;
    for (; i < s.bytes; i += step) {
        if (!is_space(decode((lap_bytes){s.data + i, s.bytes - i}, &step))) break;
    }
    return i;
}

/* Where `word` stands in s first, or NULL. */
static int32_t find_bytes(lap_clock *clock, lap_bytes s, int64_t from, lap_bytes word, const char **hit) {
    *hit = NULL;
    for (const char *at = s.data + from, *end = s.data + s.bytes - word.bytes; at <= end; at++) {
        const char *next = memchr(at, word.data[0], (size_t)(end - at + 1));
        TRY(lap_tick(clock, (next ? next : end) - at + word.bytes));
        if (!next) return LAPIDARY_OK;
        at = next;
        if (memcmp(at, word.data, (size_t)word.bytes) == 0) {
            *hit = at;
            return LAPIDARY_OK;
        }
    }
    return LAPIDARY_OK;
}

/* Cuts s at most `most` times (negative: everywhere); writes the parts where `to` is given; gives their number. */
static int32_t cut(lap_clock *clock, lap_bytes s, lap_bytes delimiter, int64_t most, lap_text *to, int64_t *parts) {
    int64_t count = 0, i = 0, step;
    if (delimiter.bytes > 0) {
        for (; most < 0 || count < most; count++) {
            const char *hit;
            TRY(find_bytes(clock, s, i, delimiter, &hit));
            if (!hit) break;
            if (to) lap_text_put(to, (lap_bytes){s.data + i, hit - s.data - i});
            i = hit - s.data + delimiter.bytes;
        }
        if (to) lap_text_put(to, (lap_bytes){s.data + i, s.bytes - i});
        *parts = count + 1;
        return LAPIDARY_OK;
    }
    TRY(lap_tick(clock, 1 + s.bytes));
    for (i = skip_space(s, 0); i < s.bytes; count++) {
        int64_t begin = i, end = i;
        if (most >= 0 && count >= most) { /* the rest, without space behind it */
            for (; i < s.bytes; i += step) {
                if (!is_space(decode((lap_bytes){s.data + i, s.bytes - i}, &step))) end = i + step;
            }
        } else {
            for (; i < s.bytes; i += step, end = i) {
                if (is_space(decode((lap_bytes){s.data + i, s.bytes - i}, &step))) break;
            }
            i = skip_space(s, i);
        }
        if (to) lap_text_put(to, (lap_bytes){s.data + begin, end - begin});
    }
    *parts = count;
    return LAPIDARY_OK;
}

/* x. Ints: the most cuts, or -1. Strings: delimiter (empty: runs of space). Outputs: the parts along a new last axis,
 * padded with empty strings; their number (i64, as x). */
LAP_LIBRARY_KERNEL(lap_lib_string_split) {
    EXPECT(1, 1, 1, 0);
    const lap_tensor *x = in[0];
    TRY(lap_is_strings(ctx, x, 0, node_id));
    NEED(at->n_strings >= 1, "the record has {a} strings, expected {b}", at->n_strings, 1);
    NEED(x->rank < LAP_MAX_RANK, "an input of rank {a}, expected {b} at most", x->rank, LAP_MAX_RANK - 1);
    int64_t n = lap_elements(x), longest = 0, dims[LAP_MAX_RANK], bytes;
    CLOCK(clock);
    TEMP(int64_t, counts, n);
    for (int64_t i = 0; i < n; i++) {
        TRY(cut(&clock, lap_string(x, i), at->strings[0], at->ints[0], NULL, counts + i));
        longest = lap_max(longest, counts[i]);
    }
    memcpy(dims, x->dims, 8 * (size_t)x->rank);
    dims[x->rank] = longest;
    if (out[0]) {
        const lapidary_strings *from = x->data;
        bytes = n > 0 ? from->offsets[n] - from->offsets[0] : 0;
        lap_text text;
        TRY(lap_text_begin(ctx, out[0], x->rank + 1, dims, bytes, &text, node_id));
        for (int64_t i = 0; i < n; i++) {
            TRY(cut(&clock, lap_string(x, i), at->strings[0], at->ints[0], &text, counts + i));
            for (int64_t k = counts[i]; k < longest; k++) lap_text_end(&text, 0);
        }
    }
    if (n_out < 2 || !out[1]) return LAPIDARY_OK;
    NEED(out[1]->dtype == LAPIDARY_I64, "an output of type {a}, expected i64 ({b})", out[1]->dtype, LAPIDARY_I64);
    TRY(lap_output_alloc(ctx, out[1], x->rank, x->dims, node_id));
    if (n > 0) memcpy(out[1]->data, counts, (size_t)(8 * n));
    return LAPIDARY_OK;
}

/* ---- regular expressions -------------------------------------------------------------------------- */

/* States and classes of bytes; the class of each byte (256 bytes), the next state by state and class (u32), one byte a
 * state: whether a match may end there. State 0 is the start, and one past the last: no match. */
typedef struct automaton {
    int64_t states, classes;
    const uint8_t *class_of, *ends;
    const uint32_t *next;
} automaton;

/* The automaton of a record, from these numbers and parts on. */
static int32_t automaton_of(lap_context *ctx, const lap_attrs *at, int32_t ints, int32_t part, automaton *a, int32_t node_id) {
    NEED(at->n_ints >= ints + 2 && at->n_strings >= part + 3, "a record without a regular expression", 0, 0);
    const lap_bytes *s = at->strings + part;
    int64_t states = at->ints[ints], classes = at->ints[ints + 1], cells;
    NEED(states >= 0 && classes > 0 && classes <= 256 && !__builtin_mul_overflow(states, classes * 4, &cells) && s[0].bytes == 256 &&
             s[1].bytes == cells && s[2].bytes == states,
         "a bad record of a regular expression", 0, 0);
    *a = (automaton){.states = states, .classes = classes, .class_of = (const uint8_t *)s[0].data,
                     .next = (const uint32_t *)(const void *)s[1].data, .ends = (const uint8_t *)s[2].data};
    return LAPIDARY_OK;
}

/* The bytes of the longest match that begins at `from`, or -1; `read` are those that were looked at. */
static int64_t longest_match(const automaton *a, lap_bytes s, int64_t from, int64_t *read) {
    int64_t longest = -1, i = from;
    uint32_t state = 0;
    for (; state < a->states; i++) {
        if (a->ends[state]) longest = i - from;
        if (i == s.bytes) break;
        state = a->next[state * a->classes + a->class_of[(uint8_t)s.data[i]]];
    }
    *read = i - from;
    return longest;
}

/* x -> bool. Ints and strings: the automaton. */
LAP_LIBRARY_KERNEL(lap_lib_regex_full_match) {
    EXPECT(1, 1, 2, 0);
    const lap_tensor *x = in[0];
    automaton a;
    TRY(lap_is_strings(ctx, x, 0, node_id));
    TRY(automaton_of(ctx, at, 0, 0, &a, node_id));
    NEED(out[0]->dtype == LAPIDARY_BOOL, "an output of type {a}, expected bool ({b})", out[0]->dtype, LAPIDARY_BOOL);
    TRY(lap_output_alloc(ctx, out[0], x->rank, x->dims, node_id));
    uint8_t *to = out[0]->data;
    CLOCK(clock);
    for (int64_t e = 0, n = lap_elements(x); e < n; e++) {
        lap_bytes s = lap_string(x, e);
        TRY(lap_tick(&clock, 1 + s.bytes));
        int64_t read;
        to[e] = longest_match(&a, s, 0, &read) == s.bytes;
    }
    return LAPIDARY_OK;
}

/* Puts a token if it has so many characters; whether it has. */
static int put_token(lap_text *to, lap_bytes token, int64_t least) {
    int64_t characters = 0;
    for (int64_t i = 0; i < token.bytes; i++) characters += ((uint8_t)token.data[i] & 0xc0) != 0x80;
    if (characters < least) return 0;
    if (to) lap_text_put(to, token);
    return 1;
}

/* The tokens of a text: the matches, or what is between them. A match may be given up only at the end of the text, so
 * that the time can grow with the square of its length. */
static int32_t tokens_of(
    lap_clock *clock, const automaton *a, lap_bytes s, int matches, int64_t least, lap_text *to, int64_t *tokens) {
    int64_t count = 0, begin = 0, i = 0, step, read;
    while (i < s.bytes) {
        int64_t length = longest_match(a, s, i, &read);
        TRY(lap_tick(clock, 1 + read));
        if (length < 1) {
            decode((lap_bytes){s.data + i, s.bytes - i}, &step);
            i += step;
            continue;
        }
        int64_t from = matches ? i : begin, end = matches ? i + length : i;
        count += put_token(to, (lap_bytes){s.data + from, end - from}, least);
        begin = i += length;
    }
    if (!matches) count += put_token(to, (lap_bytes){s.data + begin, s.bytes - begin}, least);
    *tokens = count;
    return LAPIDARY_OK;
}

/* x `[C]` or `[N, C]` -> tokens, along a new axis. Ints: whether matches are tokens, whether marks (2 and 3) stand at the begin
 * and end, least number of characters, then the automaton. Strings: what fills rows, then the automaton. */
LAP_LIBRARY_KERNEL(lap_lib_tokenize) {
    EXPECT(1, 1, 5, 0);
    const lap_tensor *x = in[0];
    automaton a;
    TRY(lap_is_strings(ctx, x, 0, node_id));
    TRY(automaton_of(ctx, at, 3, 1, &a, node_id));
    NEED(x->rank == 1 || x->rank == 2, "strings of rank {a}, expected 1 or {b}", x->rank, 2);
    int matches = at->ints[0] != 0, mark = at->ints[1] != 0;
    int64_t n = lap_elements(x), most = 0, dims[3], least = at->ints[2], fill, bytes;
    lap_bytes pad = at->strings[0];
    CLOCK(clock);
    TEMP(int64_t, counts, n);
    for (int64_t i = 0; i < n; i++) {
        TRY(tokens_of(&clock, &a, lap_string(x, i), matches, least, NULL, counts + i));
        most = lap_max(most, counts[i]);
    }
    /* Where there is nothing in any text there are no marks either. */
    int64_t width = most + (mark && most > 0 ? 2 : 0);
    memcpy(dims, x->dims, 8 * (size_t)x->rank);
    dims[x->rank] = width;
    const lapidary_strings *from = x->data;
    bytes = n > 0 ? from->offsets[n] - from->offsets[0] + 2 * n : 0;
    NEED(!__builtin_mul_overflow(lap_max(n, 1) * width, pad.bytes, &fill) && fill < INT64_MAX / 4 - bytes, "{a} tokens are too many", most, 0);
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], x->rank + 1, dims, bytes + fill, &text, node_id));
    for (int64_t i = 0; i < n && width > 0; i++) {
        if (mark) lap_text_put(&text, (lap_bytes){"\x02", 1});
        TRY(tokens_of(&clock, &a, lap_string(x, i), matches, least, &text, counts + i));
        if (mark) lap_text_put(&text, (lap_bytes){"\x03", 1});
        for (int64_t k = counts[i]; k < most; k++) lap_text_put(&text, pad);
    }
    return LAPIDARY_OK;
}
