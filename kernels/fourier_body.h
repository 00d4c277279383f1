/* Transforms of a line of complex numbers whose parts are of type T; included once a type by signal.c, which defines
 * T and NAME. The length is a product of small factors: a pass a factor r makes r transforms of a r-th of the length
 * out of each (decimation in frequency; Cooley and Tukey, 1965, in the self-sorting order of Stockham). */

/* c[0 .. r], the transform of r numbers, in place. `roots` has e^(-2 pi i k / n), r divides n. */
static inline __attribute__((always_inline)) void NAME(few)(T (*c)[2], int64_t r, const T *roots, int64_t n) {
    if (r == 2) {
        for (int p = 0; p < 2; p++) {
            T a = c[0][p], b = c[1][p];
            c[0][p] = a + b;
            c[1][p] = a - b;
        }
        return;
    }
    if (r == 4) {
        T even[2][2], odd[2][2];
        for (int p = 0; p < 2; p++) {
            even[0][p] = c[0][p] + c[2][p];
            even[1][p] = c[0][p] - c[2][p];
            odd[0][p] = c[1][p] + c[3][p];
            odd[1][p] = c[1][p] - c[3][p];
        }
        for (int p = 0; p < 2; p++) {
            T turned = p ? -odd[1][0] : odd[1][1]; /* times -i */
            c[0][p] = even[0][p] + odd[0][p];
            c[2][p] = even[0][p] - odd[0][p];
            c[1][p] = even[1][p] + turned;
            c[3][p] = even[1][p] - turned;
        }
        return;
    }
    /* Odd: sums and differences of the pairs j, r - j, whose roots are conjugates. */
    T first[2] = {c[0][0], c[0][1]}, out[MAX_FACTOR][2];
    int64_t half = (r - 1) / 2;
    for (int p = 0; p < 2; p++) {
        out[0][p] = first[p];
        for (int64_t j = 1; j <= half; j++) {
            T a = c[j][p], b = c[r - j][p];
            c[j][p] = a + b;
            c[r - j][p] = a - b;
            out[0][p] += c[j][p];
        }
    }
    for (int64_t u = 1; u <= half; u++) {
        T a[2] = {first[0], first[1]}, b[2] = {0, 0};
        for (int64_t j = 1; j <= half; j++) {
            const T *w = roots + 2 * (u * j % r * (n / r));
            for (int p = 0; p < 2; p++) {
                a[p] += w[0] * c[j][p];
                b[p] += w[1] * c[r - j][p];
            }
        }
        out[u][0] = a[0] - b[1];
        out[u][1] = a[1] + b[0];
        out[r - u][0] = a[0] + b[1];
        out[r - u][1] = a[1] - b[0];
    }
    memcpy(c, out, sizeof(T) * 2 * (size_t)r);
}

/* One pass: `done` is the product of the factors before. */
static inline __attribute__((always_inline)) void NAME(pass)(
    const T *from, T *to, int64_t r, int64_t done, const T *roots, int64_t n) {
    int64_t run = n / (done * r);
    for (int64_t k = 0; k < done; k++) {
        for (int64_t i = 0; i < run; i++) {
            T c[MAX_FACTOR][2];
            for (int64_t j = 0; j < r; j++) memcpy(c[j], from + 2 * (i + run * (j + r * k)), sizeof c[j]);
            NAME(few)(c, r, roots, n);
            for (int64_t j = 0; j < r; j++) {
                const T *w = roots + 2 * (j * done * i); /* less than n */
                T *y = to + 2 * (i + run * (k + done * j));
                int plain = i == 0 || j == 0;
                y[0] = plain ? c[j][0] : c[j][0] * w[0] - c[j][1] * w[1];
                y[1] = plain ? c[j][1] : c[j][0] * w[1] + c[j][1] * w[0];
            }
        }
    }
}

/* The forward transform of n pairs of f64, computed in T. */
static void NAME(transform)(const plan *p, double *x) {
    T *from = p->room, *to = from + 2 * p->n;
    const T *roots = p->roots;
    for (int64_t i = 0; i < 2 * p->n; i++) from[i] = (T)x[i];
    for (int64_t f = 0, done = 1; f < p->n_factors; done *= p->factors[f++]) {
        int64_t r = p->factors[f];
        switch (r) { /* with a constant size the loops over a group of r are written out */
        case 2: NAME(pass)(from, to, 2, done, roots, p->n); break;
        case 3: NAME(pass)(from, to, 3, done, roots, p->n); break;
        case 4: NAME(pass)(from, to, 4, done, roots, p->n); break;
        case 5: NAME(pass)(from, to, 5, done, roots, p->n); break;
        default: NAME(pass)(from, to, r, done, roots, p->n); break;
        }
        T *t = from;
        from = to;
        to = t;
    }
    for (int64_t i = 0; i < 2 * p->n; i++) x[i] = (double)from[i];
}

/* e^(-2 pi i k / n) for k below n. */
static void NAME(fill_roots)(T *roots, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        roots[2 * k] = (T)cos(TAU * (double)k / (double)n);
        roots[2 * k + 1] = (T)-sin(TAU * (double)k / (double)n);
    }
}
