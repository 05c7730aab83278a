/* SPDX-License-Identifier: Apache-2.0 */
/* A problem's class mask in guarded device memory. */
#ifndef TARE_TESTS_CLASS_MASK_H
#define TARE_TESTS_CLASS_MASK_H

#include "buffers.h"
#include "problem.h"

/** The mask as the problem places it, or NULL without one. */
buffer *class_mask_buffer(const problem *p, const test_device *device);

/** Sets the batch's fields for it. */
void class_mask_give(const problem *p, const buffer *mask, tare_batch *batch);

#endif
