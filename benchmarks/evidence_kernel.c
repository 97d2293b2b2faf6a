/* The forward algorithm as one would write it by hand for one shape: the practical roof of log_evidence.

   Compiled by evidence_kernel.py with REAL, S, G, O, H. Tasks one after the other, so that a task's kernel [G, S, S]
   stays in the cache nearest to the core; EPISODES of them side by side, which hides the latency of one; lanes over
   next states. Vectors are scaled every EVERY steps, so that no horizon underflows. */
#include <math.h>
#include <stdint.h>

#ifdef __AVX512F__
#define WIDEST 64
#else
#define WIDEST 32
#endif
#define ROW (S * (int)sizeof(REAL))
#define BYTES (ROW < WIDEST ? ROW : WIDEST)
#define LANES (BYTES / (int)sizeof(REAL))
#define VECTORS (S / LANES)
#define EVERY 8
/* As many episodes side by side as leave their sums in the registers, at most 4. */
#define SUMS (WIDEST == 64 ? 28 : 12)
#define EPISODES (SUMS / VECTORS >= 4 ? 4 : SUMS / VECTORS >= 1 ? SUMS / VECTORS : 1)

typedef REAL lanes __attribute__((vector_size(BYTES), aligned(sizeof(REAL))));

static inline void forward(int count, const REAL *rho, const REAL *kernel, const REAL *likelihood,
                           const int32_t *observations, const int32_t *subgoals, REAL *out) {
    _Alignas(64) REAL alpha[EPISODES][S];
    REAL logs[EPISODES];
    const int32_t *o[EPISODES], *g[EPISODES];
    for (int e = 0; e < EPISODES; e++) {
        int row = e < count ? e : 0;
        o[e] = observations + (int64_t)row * H;
        g[e] = subgoals + (int64_t)row * (H - 1);
        logs[e] = 0;
        for (int s = 0; s < S; s++) alpha[e][s] = rho[s] * likelihood[o[e][0] * S + s];
    }
    for (int h = 0; h < H - 1; h++) {
        lanes sum[EPISODES][VECTORS];
        const REAL *p[EPISODES];
#pragma GCC unroll 16
        for (int e = 0; e < EPISODES; e++) {
            p[e] = kernel + (int64_t)g[e][h] * S * S;
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++) sum[e][v] = (lanes){0};
        }
        for (int s = 0; s < S; s++)
#pragma GCC unroll 16
            for (int e = 0; e < EPISODES; e++) {
                lanes a = alpha[e][s] - (lanes){0};
#pragma GCC unroll 16
                for (int v = 0; v < VECTORS; v++) sum[e][v] += a * *(const lanes *)(p[e] + s * S + v * LANES);
            }
        for (int e = 0; e < EPISODES; e++) {
            const REAL *seen = likelihood + o[e][h + 1] * S;
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++)
                *(lanes *)(alpha[e] + v * LANES) = sum[e][v] * *(const lanes *)(seen + v * LANES);
        }
        if (h % EVERY == EVERY - 1)
            for (int e = 0; e < EPISODES; e++) {
                REAL total = 0;
                for (int s = 0; s < S; s++) total += alpha[e][s];
                logs[e] += LOG(total);
                for (int s = 0; s < S; s++) alpha[e][s] /= total;
            }
    }
    for (int e = 0; e < count; e++) {
        REAL total = 0;
        for (int s = 0; s < S; s++) total += alpha[e][s];
        out[e] = LOG(total) + logs[e];
    }
}

/* log L of each episode under tasks first..last-1; likelihood is the emission, transposed to [Z, O, S]. */
void log_evidence(int64_t first, int64_t last, int64_t episodes, const REAL *initial, const REAL *transition,
                  const REAL *likelihood, const int32_t *observations, const int32_t *subgoals, REAL *out) {
    for (int64_t z = first; z < last; z++)
        for (int64_t n = 0; n < episodes; n += EPISODES)
            forward(episodes - n < EPISODES ? (int)(episodes - n) : EPISODES, initial + z * S,
                    transition + z * G * S * S, likelihood + z * O * S, observations + n * H, subgoals + n * (H - 1),
                    out + z * episodes + n);
}
