/* SPDX-License-Identifier: Apache-2.0 */
/* The head that the tests of levels share. */
#ifndef TEST_LEVELS_H
#define TEST_LEVELS_H
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/numbers.h"
#include "support/problem.h"

static const level_shape pyramid[] = {{13, 17, 3}, {7, 9, 3}, {4, 5, 3}, {2, 3, 3}, {1, 1, 3}};

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static inline void use_channels_first(problem *p) {
  static const int with_classes[] = {ARRAY_LOGITS, ARRAY_GRADIENT, ARRAY_TARGETS, ARRAY_ELEMENT_WEIGHTS,
                                     ARRAY_ELEMENT_LOSS};
  for (size_t i = 0; i < sizeof with_classes / sizeof *with_classes; i++) {
    p->place[with_classes[i]].channels_first = true;
  }
}

#endif
