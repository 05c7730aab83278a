/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random problems: every loss, type, layout, label convention, weight, normalizer and output that the library computes,
 * each problem made from one number. The values stay where the header promises an accuracy, extreme ones among them.
 */
#ifndef TARE_TESTS_DRAW_H
#define TARE_TESTS_DRAW_H

#include "problem.h"
#include "random.h"

/** Problem `index` of the run's seed. `heads`: some of them are fused heads. */
problem *draw_problem(int64_t index, bool heads);

/** The library's GHM state against the oracle's; fails the test where they differ. Nothing where there is none. */
void draw_check_state(const problem *p);

#endif
