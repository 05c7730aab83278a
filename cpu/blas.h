/* SPDX-License-Identifier: Apache-2.0 */
/* The CBLAS of the fused head, loaded when it is first used: a program that only evaluates losses neither needs it nor
 * pays for its threads. */
#ifndef TARE_CPU_BLAS_H
#define TARE_CPU_BLAS_H

#include "core/problem.h"

enum { TARE_CBLAS_ROW_MAJOR = 101, TARE_CBLAS_NO_TRANSPOSE = 111, TARE_CBLAS_TRANSPOSE = 112 };

/** cblas_sgemm with 32-bit integers: c [m, n] = alpha a b + beta c. */
typedef void tare_sgemm(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc);

/** Finds it, or fails with TARE_STATUS_NO_BLAS. */
tare_status tare_blas_load(tare_sgemm **sgemm, tare_error *error);

#endif
