/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For targets of the library: contexts, arrays of exactly the bytes that strides reach, and what every call promises.
 */
#ifndef TARE_FUZZ_CALLS_H
#define TARE_FUZZ_CALLS_H

#include "fuzz.h"
#include "tare.h"

/** A CPU context of one or of three threads, made once. */
tare_context *fuzz_context(fuzz_input *input);

enum { FUZZ_HUGE = -1, FUZZ_FAR = -2 };

/** Elements from the lowest to the highest that an array of these axes touches, its first `below` of them lying before
 *  index 0; FUZZ_HUGE where every call must refuse it, FUZZ_FAR where it is allowed and too large to try. Axes: image,
 *  y, x, anchor, class (0 for none). 0 for an array without elements. */
int64_t fuzz_span(const int64_t lengths[5], const tare_strides *strides, int64_t *below);

/** Memory for such an array, and where its index 0 lies. Huge: a few bytes, which no call may touch. Far: NULL. */
void *fuzz_array(fuzz_input *input, const int64_t lengths[5], const tare_strides *strides, size_t element);

/** A status is one of the header's, has a text unless it is TARE_STATUS_OK, and then nothing guarded has changed. */
void fuzz_expect_kept(const tare_context *context, tare_status status);

#endif
