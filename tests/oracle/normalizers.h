/* SPDX-License-Identifier: Apache-2.0 */
/* What a sum is divided by. */
#ifndef TARE_TESTS_ORACLE_NORMALIZERS_H
#define TARE_TESTS_ORACLE_NORMALIZERS_H

#include "oracle.h"

/** What each normalizer gives for rows [first, end) that count, also those of weight 0. */
struct oracle_normalizer_sums normalizer_sums_of(const struct oracle_problem *problem, int64_t first, int64_t end);

/** The divisor that the problem's normalizer makes of them. */
double normalizer_divisor(const struct oracle_problem *problem, const struct oracle_normalizer_sums *sums);

#endif /* TARE_TESTS_ORACLE_NORMALIZERS_H */
