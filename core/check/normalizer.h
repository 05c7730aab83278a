/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of a normalizer. */
#ifndef TARE_CORE_CHECK_NORMALIZER_H
#define TARE_CORE_CHECK_NORMALIZER_H

#include "core/problem.h"

/** The fields of an output that belong to its normalizer. */
tare_status tare_check_normalizer(const tare_output *output, tare_error *error);

/** Refuses a normalizer that the problem's loss or targets do not have. */
tare_status tare_check_normalizer_of(const tare_problem *problem, tare_error *error);

#endif
