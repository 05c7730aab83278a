/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of a batch that look at no level. */
#ifndef TARE_CORE_CHECK_BATCH_H
#define TARE_CORE_CHECK_BATCH_H

#include "core/problem.h"

/** Enumerators, ranges and alignments of a batch. */
tare_status tare_check_batch_scalars(const tare_batch *batch, tare_error *error);

#endif
