/* SPDX-License-Identifier: Apache-2.0 */
/* A real detector's outputs, and how well its boxes fit. */
#ifndef TARE_TESTS_BOXES_H
#define TARE_TESTS_BOXES_H

#include "problem.h"

/** Logits and labels of a detector, "early" or "late" in its training. The scores of labels are the IoU of its boxes
 *  with their targets, as floats; NaN in rows without a class. */
problem *problem_of_detector(int32_t kind, const char *state);

#endif
