/* SPDX-License-Identifier: Apache-2.0 */
/* A call of tare_mask_evaluate on random masks, and what the oracle says of it. */
#ifndef TEST_MASKS_H
#define TEST_MASKS_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle/masks.h"
#include "support/buffers.h"
#include "support/numbers.h"
#include "support/random.h"

/** What a case is made of; zeros are the plainest. */
typedef struct mask_plan {
  int64_t masks, pixels;
  int32_t dtype, target_dtype;
  int32_t soft;     /* targets between 0 and 1 as well */
  int32_t gap;      /* elements between masks */
  int32_t misalign; /* elements */
  int32_t in_place, has_valid, has_weights;
  int32_t ignore_target;          /* 0: none */
  int32_t normalizer, by_pointer; /* by_pointer: divisor and gradient scale */
  double scale;                   /* 0: 1 */
  double value;                   /* of every logit; 0: random */
  tare_mask_spec spec;            /* struct_size 0: the defaults */
} mask_plan;

/** A call with its arrays; the doubles are what the arrays hold. */
typedef struct mask_case {
  const test_device *device;
  mask_plan plan;
  tare_masks masks;
  tare_mask_output output;
  buffer *logits, *gradient, *targets, *valid, *weights, *losses, *mask_loss, *sums, *divisor, *scale, *workspace;
  double *x, *t;    /* [masks*pixels] */
  uint8_t *counts;  /* [masks*pixels]: whether a pixel does */
  double *weight;   /* [masks] */
  double *found;    /* [masks*pixels], the gradient */
  double *expected; /* [masks*pixels] */
  double found_losses[3], expected_losses[3];
} mask_case;

mask_case *mask_case_new(const test_device *device, const mask_plan *plan);
void mask_case_free(mask_case *c);

/** Sends x, t and counts to the device again, where a test has changed them. */
void mask_case_upload(mask_case *c);

tare_status mask_case_run(mask_case *c);

/** Runs, and compares every output with the oracle. */
void mask_case_check(mask_case *c);

/** What the oracle says, into `expected` and `expected_losses`. */
void mask_case_expect(mask_case *c);

/** A plan of the defaults. */
static inline mask_plan mask_plan_of(int64_t masks, int64_t pixels) {
  mask_plan plan;
  memset(&plan, 0, sizeof plan);
  plan.masks = masks;
  plan.pixels = pixels;
  tare_mask_spec_init(&plan.spec);
  return plan;
}

static inline void mask_plan_check(const test_device *device, const mask_plan *plan) {
  mask_case *c = mask_case_new(device, plan);
  mask_case_check(c);
  mask_case_free(c);
}
#endif
