/* Floating-point workloads. */
#include "bench.h"
#include <math.h>
#include <string.h>

static uint64_t bits(double value)
{
    uint64_t raw;
    memcpy(&raw, &value, sizeof(raw));
    return raw;
}

uint64_t bench_matrix(void)
{
    enum { N = 110 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a[i][j] = i * 0.5 + j;
            b[i][j] = i - j * 0.25;
        }
    }
    uint64_t hash = 0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++) {
                sum += a[i][k] * b[k][j];
            }
            c[i][j] = sum;
            hash = hash_add(hash, bits(sum));
        }
    }
    return hash ^ bits(c[N / 2][N / 3]);
}

uint64_t bench_nbody(void)
{
    enum { BODIES = 5, STEPS = 30000 };
    static double p[BODIES][3] = {
        {0, 0, 0}, {4.8, -1.2, -0.1}, {8.3, 4.1, -0.4}, {12.9, -15.1, -0.2}, {15.4, -25.9, 0.2}};
    static double v[BODIES][3] = {
        {0, 0, 0}, {0.6, 2.8, -0.02}, {-1.0, 1.8, 0.008}, {1.1, 0.9, -0.01}, {0.98, 0.59, -0.03}};
    static const double m[BODIES] = {39.5, 0.04, 0.01, 0.0017, 0.002};
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0;
                for (int k = 0; k < 3; k++) {
                    d[k] = p[i][k] - p[j][k];
                    square += d[k] * d[k];
                }
                double magnitude = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    v[i][k] -= d[k] * m[j] * magnitude;
                    v[j][k] += d[k] * m[i] * magnitude;
                }
            }
        }
        for (int i = 0; i < BODIES; i++) {
            for (int k = 0; k < 3; k++) {
                p[i][k] += 0.001 * v[i][k];
            }
        }
    }
    return bits(p[1][0]) ^ bits(v[3][1]);
}

uint64_t bench_mandelbrot(void)
{
    uint64_t sum = 0;
    for (int y = 0; y < 120; y++) {
        for (int x = 0; x < 160; x++) {
            float cr = (float)x / 60.0f - 2.0f, ci = (float)y / 60.0f - 1.0f, zr = 0, zi = 0;
            int n = 0;
            while (n < 100 && zr * zr + zi * zi < 4.0f) {
                float t = zr * zr - zi * zi + cr;
                zi = 2.0f * zr * zi + ci;
                zr = t;
                n++;
            }
            sum = hash_add(sum, (uint64_t)n);
        }
    }
    return sum;
}
