/* What follows the decisions of a support vector machine: votes, probabilities, transformed scores. */
#include "lap_library.h"

/* Probabilities of n classes from those of each pair (pair[i * n + j]: i against j), after Wu, Lin and Weng,
 * "Probability Estimates for Multi-class Classification by Pairwise Coupling", as libsvm computes it. */
static int32_t couple(lap_clock *clock, int64_t n, const double *pair, double *q, double *qp, double *p) {
    double limit = 0.005 / (double)n;
    for (int64_t i = 0; i < n; i++) {
        p[i] = 1.0 / (double)n;
        q[i * n + i] = 0;
        for (int64_t j = 0; j < n; j++) {
            if (j == i) continue;
            q[i * n + i] += pair[j * n + i] * pair[j * n + i];
            q[i * n + j] = -pair[j * n + i] * pair[i * n + j];
        }
    }
    for (int64_t round = 0, rounds = lap_max(100, n); round < rounds; round++) {
        double pqp = 0, error = 0;
        TRY(lap_tick(clock, n * n));
        for (int64_t i = 0; i < n; i++) {
            qp[i] = 0;
            for (int64_t j = 0; j < n; j++) qp[i] += q[i * n + j] * p[j];
            pqp += p[i] * qp[i];
        }
        for (int64_t i = 0; i < n; i++) error = fmax(error, fabs(qp[i] - pqp));
        if (error < limit) break;
        for (int64_t i = 0; i < n; i++) {
            double step = (pqp - qp[i]) / q[i * n + i];
            p[i] += step;
            pqp = (pqp + step * (step * q[i * n + i] + 2 * qp[i])) / (1 + step) / (1 + step);
            for (int64_t j = 0; j < n; j++) {
                qp[j] = (qp[j] + step * q[i * n + j]) / (1 + step);
                p[j] /= 1 + step;
            }
        }
    }
    return LAPIDARY_OK;
}

/* Decisions f32 `[N, pairs]`, or scores `[N, classes]`. Ints: classes, whether the input is scores, post transform, whether
 * all coefficients are positive. Floats: a, then b of each pair's probability 1 / (1 + exp(a d + b)), or none. Outputs:
 * position of the class (i64), scores: of classes with probabilities, of pairs without; of two classes `[-d, d]`. */
LAP_LIBRARY_KERNEL(lap_lib_svm_classes) {
    EXPECT(1, 2, 4, 0);
    const lap_tensor *x = in[0];
    int64_t n = at->ints[0], rows = x->dims[0], post = at->ints[2], pairs = n * (n - 1) / 2;
    int linear = at->ints[1] != 0, positive = at->ints[3] != 0, coupled = at->n_floats > 0;
    NEED(n >= 1 && n < 65536, "{a} classes, expected 1 to {b}", n, 65535);
    NEED(x->dtype == LAPIDARY_F32 && x->rank == 2, "decisions of type {a} and rank {b}, expected an f32 matrix", x->dtype, x->rank);
    NEED(x->dims[1] == (linear ? n : pairs), "{a} decisions a row, expected {b}", x->dims[1], linear ? n : pairs);
    NEED(!coupled || (!linear && at->n_floats == 2 * pairs), "{a} numbers for the probabilities of {b} pairs", at->n_floats, pairs);
    NEED((linear || n >= 2) && post >= 0 && post <= 4, "a bad record of a support vector machine", 0, 0);
    int64_t width = linear || coupled ? n : n == 2 ? 2 : pairs, dims[] = {rows, width};
    float *scores = NULL;
    int64_t *best = NULL;
    if (out[0]) {
        NEED(out[0]->dtype == LAPIDARY_I64, "classes of type {a}, expected i64 ({b})", out[0]->dtype, LAPIDARY_I64);
        TRY(lap_output_alloc(ctx, out[0], 1, dims, node_id));
        best = out[0]->data;
    }
    if (out[1]) {
        NEED(out[1]->dtype == LAPIDARY_F32, "scores of type {a}, expected f32 ({b})", out[1]->dtype, LAPIDARY_F32);
        TRY(lap_output_alloc(ctx, out[1], 2, dims, node_id));
        scores = out[1]->data;
    }
    TEMP(int64_t, votes, n);
    TEMP(double, row, lap_max(width, 2));
    TEMP(double, pair, coupled ? n * n : 1);
    TEMP(double, q, coupled ? n * n : 1);
    TEMP(double, qp, coupled ? n : 1);
    const float *d = x->data;
    CLOCK(clock);
    for (int64_t r = 0; r < rows; r++, d += x->dims[1]) {
        int64_t winner = 0;
        TRY(lap_tick(&clock, 1 + x->dims[1]));
        if (linear) {
            for (int64_t i = 0; i < n; i++) {
                row[i] = (double)d[i];
                if (row[i] > row[winner]) winner = i;
            }
            if (n == 2 && positive && row[winner] >= 0.5) winner = 1;
        } else {
            memset(votes, 0, (size_t)(8 * n));
            for (int64_t i = 0, k = 0; i < n; i++) {
                for (int64_t j = i + 1; j < n; j++, k++) votes[d[k] > 0 ? i : j]++;
            }
            for (int64_t i = 1; i < n; i++) winner = votes[i] > votes[winner] ? i : winner;
        }
        if (best) best[r] = winner;
        if (!scores) continue;
        if (coupled) {
            for (int64_t i = 0, k = 0; i < n; i++) {
                for (int64_t j = i + 1; j < n; j++, k++) {
                    double p = 1 / (1 + exp((double)d[k] * at->floats[k] + at->floats[pairs + k]));
                    p = fmin(fmax(p, 1e-7), 1 - 1e-7);
                    pair[i * n + j] = p;
                    pair[j * n + i] = 1 - p;
                }
            }
            TRY(couple(&clock, n, pair, q, qp, row));
        } else if (!linear && n == 2) {
            row[0] = -(double)d[0];
            row[1] = (double)d[0];
        } else if (!linear) {
            for (int64_t k = 0; k < pairs; k++) row[k] = (double)d[k];
        }
        lap_post_transform(row, width, (int)post);
        for (int64_t i = 0; i < width; i++) scores[r * width + i] = (float)row[i];
    }
    return LAPIDARY_OK;
}
