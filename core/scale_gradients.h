/* SPDX-License-Identifier: Apache-2.0 */
/* What tare_scale_gradients multiplies. */
#ifndef TARE_CORE_SCALE_GRADIENTS_H
#define TARE_CORE_SCALE_GRADIENTS_H

#include "tare.h"

typedef struct tare_scaling {
  int32_t dtype, count;
  void *array[TARE_MAX_LEVELS];
  int64_t elements[TARE_MAX_LEVELS];
  const float *factor;
} tare_scaling;

#endif
