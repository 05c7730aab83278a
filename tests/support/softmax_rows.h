/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of softmax losses with rows of their own (LDAM, Seesaw) share: widths, ways through memory, and
 * cross-entropy's bits. */
#ifndef TARE_TESTS_SOFTMAX_ROWS_H
#define TARE_TESTS_SOFTMAX_ROWS_H

#include "problem.h"

enum { SOFTMAX_DTYPES = 4 };
extern const int32_t softmax_dtypes[SOFTMAX_DTYPES];

enum manner { FLAT, IN_PLACE, PLANES, PADDED, MANNERS };

/** One level of a loss. Most rows have a class. */
problem *softmax_problem(int32_t kind, int32_t dtype, int64_t classes, enum manner manner);

/** The oracle's numbers for each walk of the kernels, in every dtype and manner. */
void check_softmax_widths(int32_t kind, const test_device *device);

/** Fails the test unless the bits are those of softmax cross-entropy. Frees the problem. */
void check_is_softmax_ce(problem *p, const test_device *device);

#endif
