/* Numbers as text and back, without the locale of the host: what Cast does with strings.
 *
 * Both ways are exact, over integers of some thousand bits: the shortest digits that read back as the number
 * (Steele and White, as Python and NumPy print), and the nearest number to a text (a first guess, moved by one
 * step until the text lies between the halves to its neighbours). */
#include "lap_strings.h"

/* ---- large integers ----------------------------------------------------------------------------- */

#define LIMBS 136 /* 801 digits times 2^1075, or 10^1127 times 2^54: 3,790 bits */

typedef struct big {
    int32_t n; /* limbs in use; none is 0 at the top */
    uint32_t limb[LIMBS];
} big;

static void big_set(big *b, uint64_t v) {
    b->n = 0;
    for (; v; v >>= 32) b->limb[b->n++] = (uint32_t)v;
}

/* b = b * by + add */
static void big_scale(big *b, uint32_t by, uint32_t add) {
    uint64_t carry = add;
    for (int32_t i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limb[i] * by;
        b->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && b->n < LIMBS) b->limb[b->n++] = (uint32_t)carry;
}

static void big_power10(big *b, int32_t power) {
    for (; power >= 9; power -= 9) big_scale(b, 1000000000u, 0);
    for (; power > 0; power--) big_scale(b, 10, 0);
}

static void big_shift(big *b, int32_t bits) {
    int32_t limbs = bits / 32;
    if (b->n == 0 || bits <= 0) return;
    if (b->n + limbs > LIMBS) limbs = LIMBS - b->n; /* does not happen: see LIMBS */
    memmove(b->limb + limbs, b->limb, 4 * (size_t)b->n);
    memset(b->limb, 0, 4 * (size_t)limbs);
    b->n += limbs;
    if (bits % 32) big_scale(b, 1u << bits % 32, 0);
}

static int big_compare(const big *a, const big *b) {
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    for (int32_t i = a->n - 1; i >= 0; i--) {
        if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
    }
    return 0;
}

static void big_add(big *a, const big *b) {
    uint64_t carry = 0;
    int32_t n = a->n > b->n ? a->n : b->n;
    for (int32_t i = 0; i < n; i++) {
        carry += (uint64_t)(i < a->n ? a->limb[i] : 0) + (i < b->n ? b->limb[i] : 0);
        a->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    a->n = n;
    if (carry && n < LIMBS) a->limb[a->n++] = (uint32_t)carry;
}

/* a -= b, which is not greater. */
static void big_subtract(big *a, const big *b) {
    int64_t borrow = 0;
    for (int32_t i = 0; i < a->n; i++) {
        borrow += (int64_t)a->limb[i] - (i < b->n ? (int64_t)b->limb[i] : 0);
        a->limb[i] = (uint32_t)borrow;
        borrow = borrow < 0 ? -1 : 0;
    }
    while (a->n > 0 && a->limb[a->n - 1] == 0) a->n--;
}

/* ---- numbers to text ---------------------------------------------------------------------------- */

/* v = m * 2^e with m of `bits` bits, fewer at the least exponent. */
static uint64_t parts(double v, int32_t bits, int32_t least, int32_t *e) {
    int exponent;
    frexp(v, &exponent);
    *e = exponent - bits < least ? least : exponent - bits;
    return (uint64_t)ldexp(v, -*e);
}

/* The digits of a positive number, and the place of the point: 0.d1d2… * 10^point. */
static int32_t shortest(double v, int32_t bits, int32_t least, char *digits, int32_t *point) {
    int32_t e, n = 0;
    uint64_t m = parts(v, bits, least, &e);
    int even = !(m & 1), close = m == UINT64_C(1) << (bits - 1) && e > least;
    big r, s, above, below; /* v = r / s; the halves to the neighbours are above / s and below / s away */
    big_set(&r, m);
    big_set(&s, 1);
    big_set(&above, 1);
    big_set(&below, 1);
    int32_t up = e > 0 ? e : 0, down = e < 0 ? -e : 0;
    big_shift(&r, up + 1 + close);
    big_shift(&s, down + 1 + close);
    big_shift(&above, up + close);
    big_shift(&below, up);
    int32_t k = (int32_t)ceil(log10(v) - 1e-10);
    if (k >= 0) {
        big_power10(&s, k);
    } else {
        big_power10(&r, -k);
        big_power10(&above, -k);
        big_power10(&below, -k);
    }
    big t = r;
    big_add(&t, &above);
    int c = big_compare(&t, &s);
    if (even ? c >= 0 : c > 0) {
        k++;
    } else {
        big_scale(&r, 10, 0);
        big_scale(&above, 10, 0);
        big_scale(&below, 10, 0);
    }
    *point = k;
    for (;;) {
        int32_t digit = 0;
        while (digit < 9 && big_compare(&r, &s) >= 0) {
            big_subtract(&r, &s);
            digit++;
        }
        c = big_compare(&r, &below);
        int low = even ? c <= 0 : c < 0;
        t = r;
        big_add(&t, &above);
        c = big_compare(&t, &s);
        int high = even ? c >= 0 : c > 0;
        if (!low && !high && n < 20) {
            digits[n++] = (char)('0' + digit);
            big_scale(&r, 10, 0);
            big_scale(&above, 10, 0);
            big_scale(&below, 10, 0);
            continue;
        }
        if (low && high) {
            t = r;
            big_add(&t, &r);
            c = big_compare(&t, &s);
            high = c > 0 || (c == 0 && digit % 2);
        }
        digits[n++] = (char)('0' + digit + high);
        break;
    }
    for (int32_t i = n - 1; i > 0 && digits[i] > '9'; i--) { /* 9.99… rounded up */
        digits[i] = '0';
        digits[i - 1]++;
    }
    if (digits[0] > '9') {
        digits[0] = '1';
        ++*point;
    }
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

static int64_t int_text(uint64_t v, int negative, char *to) {
    char digits[20];
    int64_t n = 0, length = 0;
    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    if (negative) to[length++] = '-';
    while (n > 0) to[length++] = digits[--n];
    return length;
}

int64_t lap_float_text(double v, int32_t bits, int32_t least, double limit, char *to) {
    int64_t length = 0;
    char digits[32];
    int32_t point, n;
    if (v != v) {
        memcpy(to, "nan", 3);
        return 3;
    }
    if (signbit(v)) to[length++] = '-';
    v = fabs(v);
    if (v > 1.7976931348623157e308) {
        memcpy(to + length, "inf", 3);
        return length + 3;
    }
    if (v == 0) {
        memcpy(to + length, "0.0", 3);
        return length + 3;
    }
    n = shortest(v, bits, least, digits, &point);
    if (v >= 1e-4 && v < limit) {
        if (point <= 0) {
            to[length++] = '0';
            to[length++] = '.';
            for (int32_t i = point; i < 0; i++) to[length++] = '0';
        }
        for (int32_t i = 0; i < n || i < point; i++) {
            if (i == point && i > 0) to[length++] = '.';
            to[length++] = i < n ? digits[i] : '0';
        }
        if (n <= point) {
            to[length++] = '.';
            to[length++] = '0';
        }
        return length;
    }
    to[length++] = digits[0];
    if (n > 1) to[length++] = '.';
    for (int32_t i = 1; i < n; i++) to[length++] = digits[i];
    int32_t e = point - 1;
    to[length++] = 'e';
    to[length++] = e < 0 ? '-' : '+';
    e = e < 0 ? -e : e;
    if (e < 10) to[length++] = '0';
    return length + int_text((uint64_t)e, 0, to + length);
}

static int64_t number_text(const lap_tensor *t, int64_t i, char *to) {
    switch (t->dtype) {
    case LAPIDARY_F32: return lap_float_text((double)((const float *)t->data)[i], 24, -149, 1e6, to);
    case LAPIDARY_F64: return lap_float_text(((const double *)t->data)[i], 53, -1074, 1e16, to);
    case LAPIDARY_F16: return lap_float_text(lap_number(t, i), 11, -24, 1e3, to);
    case LAPIDARY_BF16: return lap_float_text(lap_number(t, i), 8, -133, 1e6, to);
    case LAPIDARY_BOOL: {
        int yes = ((const uint8_t *)t->data)[i] != 0;
        memcpy(to, yes ? "True" : "False", yes ? 4 : 5);
        return yes ? 4 : 5;
    }
    case LAPIDARY_U64: return int_text(((const uint64_t *)t->data)[i], 0, to);
    case LAPIDARY_I64: {
        int64_t v = ((const int64_t *)t->data)[i];
        return int_text(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0, to);
    }
    default: {
        int64_t v = (int64_t)lap_number(t, i);
        return int_text(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0, to);
    }
    }
}

/* x (numbers) -> strings. */
LAP_LIBRARY_KERNEL(lap_lib_to_string) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0];
    int64_t n = lap_elements(x), bytes = 0;
    char one[LAP_NUMBER_TEXT];
    NEED(lap_is_number(x->dtype), "elements of type {a}, expected numbers", x->dtype, 0);
    /* Most numbers are short: their text is kept where there is room, so that none is made twice. */
    TEMP(char, all, lap_bytes_of(n, LAP_NUMBER_TEXT));
    TEMP(uint8_t, lengths, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t length = number_text(x, i, one);
        memcpy(all + bytes, one, (size_t)length);
        lengths[i] = (uint8_t)length;
        bytes += length;
    }
    lap_text text;
    TRY(lap_text_begin(ctx, out[0], x->rank, x->dims, bytes, &text, node_id));
    const char *from = all;
    for (int64_t i = 0; i < n; i++) {
        lap_text_put(&text, (lap_bytes){from, lengths[i]});
        from += lengths[i];
    }
    return LAPIDARY_OK;
}

/* ---- text to numbers ---------------------------------------------------------------------------- */

static int is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static lap_bytes trimmed(lap_bytes s) {
    while (s.bytes > 0 && is_space(s.data[0])) s = (lap_bytes){s.data + 1, s.bytes - 1};
    while (s.bytes > 0 && is_space(s.data[s.bytes - 1])) s.bytes--;
    return s;
}

/* Whether s is `word`, without regard to case. */
static int is_word(lap_bytes s, const char *word) {
    int64_t i = 0;
    for (; i < s.bytes && word[i]; i++) {
        char c = s.data[i];
        if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != word[i]) return 0;
    }
    return i == s.bytes && !word[i];
}

#define DIGITS 801 /* more only tell on which side of a half the text lies */

/* The digits of a text against m * 2^e2. */
static int against(const char *digits, int32_t n, int32_t e10, uint64_t m, int32_t e2) {
    big a, b;
    big_set(&a, 0);
    for (int32_t i = 0; i < n; i++) {
        uint32_t digit = (uint32_t)(digits[i] - '0');
        if (a.n == 0) big_set(&a, digit);
        else big_scale(&a, 10, digit);
    }
    big_set(&b, m);
    if (e10 > 0) big_power10(&a, e10);
    if (e10 < 0) big_power10(&b, -e10);
    if (e2 > 0) big_shift(&b, e2);
    if (e2 < 0) big_shift(&a, -e2);
    return big_compare(&a, &b);
}

/* The nearest number to 0.d1d2… * 10^point. */
static double nearest(const char *digits, int32_t n, int32_t point) {
    if (n == 0 || point < -330) return 0;
    if (point > 310) return INFINITY;
    uint64_t lead = 0;
    int32_t used = n < 18 ? n : 18, e10 = point - n;
    for (int32_t i = 0; i < used; i++) lead = lead * 10 + (uint64_t)(digits[i] - '0');
    int32_t power = point - used;
    if (n <= 15 && power >= -22 && power <= 22) { /* both are exact */
        static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                      1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
        return power < 0 ? (double)lead / tens[-power] : (double)lead * tens[power];
    }
    double z = (double)lead;
    z = power < -290 ? z * 1e-290 * pow(10, power + 290) : z * pow(10, power);
    if (!(z <= 1.7976931348623157e308)) z = 1.7976931348623157e308;
    for (;;) {
        int32_t e = -1074;
        uint64_t m = z > 0 ? parts(z, 53, -1074, &e) : 0;
        int c = against(digits, n, e10, 2 * m + 1, e - 1);
        if (c > 0 || (c == 0 && m & 1)) {
            z = nextafter(z, INFINITY);
            if (z > 1.7976931348623157e308) return z;
            continue;
        }
        if (m == 0) return z;
        int close = m == UINT64_C(1) << 52 && e > -1074;
        c = close ? against(digits, n, e10, 4 * m - 1, e - 2) : against(digits, n, e10, 2 * m - 1, e - 1);
        if (c > 0 || (c == 0 && !(m & 1))) return z;
        z = nextafter(z, 0);
    }
}

int32_t lap_parse_float(lap_bytes s, double *to) {
    s = trimmed(s);
    int negative = 0, point_seen = 0, any = 0;
    if (s.bytes > 0 && (s.data[0] == '-' || s.data[0] == '+')) {
        negative = s.data[0] == '-';
        s = (lap_bytes){s.data + 1, s.bytes - 1};
    }
    double v;
    if (is_word(s, "inf") || is_word(s, "infinity")) {
        v = INFINITY;
    } else if (is_word(s, "nan")) {
        v = NAN;
    } else {
        char digits[DIGITS];
        int32_t n = 0;
        int64_t point = 0, i = 0;
        for (; i < s.bytes; i++) {
            char c = s.data[i];
            if (c == '.') {
                if (point_seen) return 0;
                point_seen = 1;
                continue;
            }
            if (c < '0' || c > '9') break;
            any = 1;
            if (n == 0 && c == '0') {
                point -= point_seen;
                continue;
            }
            point += !point_seen;
            if (n < DIGITS - 1) digits[n++] = c;
            else if (c != '0') digits[DIGITS - 1] = '1', n = DIGITS;
        }
        if (!any) return 0;
        if (i < s.bytes) {
            int down = 0, some = 0;
            int64_t e = 0;
            if (s.data[i] != 'e' && s.data[i] != 'E') return 0;
            i++;
            if (i < s.bytes && (s.data[i] == '-' || s.data[i] == '+')) down = s.data[i++] == '-';
            for (; i < s.bytes; i++) {
                if (s.data[i] < '0' || s.data[i] > '9') return 0;
                if (e < INT64_C(1) << 40) e = e * 10 + (s.data[i] - '0');
                some = 1;
            }
            if (!some) return 0;
            point += down ? -e : e;
        }
        while (n > 0 && digits[n - 1] == '0') n--;
        point = point > 1000 ? 1000 : point < -1000 ? -1000 : point;
        v = nearest(digits, n, (int32_t)point);
    }
    *to = negative ? -v : v;
    return 1;
}

/* A whole number of 64 bits; 0: it is none. */
static int32_t parse_int(lap_bytes s, int *negative, uint64_t *to) {
    s = trimmed(s);
    int64_t i = 0;
    *negative = s.bytes > 0 && s.data[0] == '-';
    if (s.bytes > 0 && (s.data[0] == '-' || s.data[0] == '+')) i++;
    if (i == s.bytes) return 0;
    for (*to = 0; i < s.bytes; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return 0;
        if (__builtin_mul_overflow(*to, 10, to) || __builtin_add_overflow(*to, (uint64_t)(s.data[i] - '0'), to)) return 0;
    }
    return 1;
}

static int32_t parse_into(lap_tensor *out, int64_t i, lap_bytes s) {
    double v = 0;
    if (out->dtype == LAPIDARY_BOOL) {
        lap_bytes word = trimmed(s);
        int yes = is_word(word, "true"), no = is_word(word, "false");
        if (!yes && !no && !lap_parse_float(s, &v)) return 0;
        ((uint8_t *)out->data)[i] = yes || (!no && v != 0);
        return 1;
    }
    if (!lap_is_float(out->dtype)) {
        int negative;
        uint64_t whole;
        if (parse_int(s, &negative, &whole)) {
            uint64_t bits = negative ? 0 - whole : whole;
            memcpy((char *)out->data + i * lap_dtype_bytes(out->dtype), &bits, (size_t)lap_dtype_bytes(out->dtype));
            return 1;
        }
    }
    if (!lap_parse_float(s, &v)) return 0;
    lap_set_number(out, i, v);
    return 1;
}

/* x (strings) -> numbers of the output's type. A text that is no number ends the run. */
LAP_LIBRARY_KERNEL(lap_lib_from_string) {
    EXPECT(1, 1, 0, 0);
    const lap_tensor *x = in[0];
    TRY(lap_is_strings(ctx, x, 0, node_id));
    NEED(lap_is_number(out[0]->dtype), "an output of type {a}, expected numbers", out[0]->dtype, 0);
    TRY(lap_output_alloc(ctx, out[0], x->rank, x->dims, node_id));
    for (int64_t i = 0, n = lap_elements(x); i < n; i++) {
        lap_bytes s = lap_string(x, i);
        NEED(parse_into(out[0], i, s), "element {a}, of {b} bytes, is no number", i, s.bytes);
    }
    return LAPIDARY_OK;
}
