/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each row of a batch is: its class, its weight, its targets, and whether it counts.
 */
#ifndef TARE_TESTS_ORACLE_ROWS_H
#define TARE_TESTS_ORACLE_ROWS_H

#include <stdbool.h>

#include "oracle.h"

/** A row as the loss sees it: class -1 is none; weight 0 adds nothing. */
struct row_role {
  bool counts, spoilt; /* spoilt: by a target or a score */
  int64_t class;
  double weight;
};

struct row_role row_role(const struct oracle_problem *problem, int64_t i);

/** Whether the class of element c is masked for row i. Nothing counts such an element. */
bool is_masked(const struct oracle_problem *problem, int64_t i, int64_t c);

/** The target of element c of row i, whose role is given. */
double row_target(const struct oracle_problem *problem, struct row_role row, int64_t i, int64_t c);

/** Of rows [first, end). */
struct oracle_counts row_counts_of(const struct oracle_problem *problem, int64_t first, int64_t end);

#endif /* TARE_TESTS_ORACLE_ROWS_H */
