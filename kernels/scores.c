/* Transforms of the scores of classical models. */
#include "lap_library.h"

/* The inverse error function by the approximation that all runtimes share (Winitzki), 0 at the ends. */
static double inverse_erf(double y) {
    const double pi = 3.14159265358979323846, a = 0.147;
    double t = (1 - y) * (1 + y);
    if (t == 0) return 0;
    double l = log(t), v = 2 / (pi * a) + l / 2;
    return copysign(sqrt(sqrt(v * v - l / a) - v), y);
}

void lap_post_transform(double *s, int64_t n, int post) {
    double most = -INFINITY, total = 0;
    switch (post) {
    case 2:
        for (int64_t i = 0; i < n; i++) s[i] = 1 / (1 + exp(-s[i]));
        break;
    case 4:
        for (int64_t i = 0; i < n; i++) s[i] = sqrt(2.0) * inverse_erf(2 * s[i] - 1);
        break;
    case 1:
    case 3:
        for (int64_t i = 0; i < n; i++) most = s[i] > most ? s[i] : most;
        for (int64_t i = 0; i < n; i++) {
            s[i] = post == 3 && fabs(s[i]) <= 1e-7 ? s[i] * exp(-most) : exp(s[i] - most);
            total += s[i];
        }
        for (int64_t i = 0; i < n; i++) s[i] = total != 0 ? s[i] / total : 0.5;
        break;
    default: break;
    }
}
