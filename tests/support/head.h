/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fused head: the classifier that a problem's logits come from. Its numbers are multiples of powers of two, so small
 * that every logit is exact in f32 in whatever order it is summed: what the loss makes of the logits, the bins of GHM
 * among it, is then compared as tightly as where they are given.
 */
#ifndef TARE_TESTS_HEAD_H
#define TARE_TESTS_HEAD_H

#include "buffers.h"
#include "problem.h"

enum head_output { HEAD_FEATURES = 1, HEAD_WEIGHTS = 2, HEAD_BIAS = 4, HEAD_ALL = 7 };

/* tare_linear_evaluate in another way: on a stream, through a graph. It waits for what it started. */
typedef tare_status head_call(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                              const tare_linear *linear, const tare_output *output, void *user);

struct head {
  int64_t dimensions;
  int32_t dtype;
  double *features; /* [rows, dimensions] */
  double *weights;  /* [classes, dimensions] */
  double *bias;     /* [classes], or NULL */
  unsigned outputs; /* gradients that are wanted */
  bool in_place;    /* the gradient by the features overwrites them */
  bool accumulate;
  int64_t padding, gradient_padding; /* further places after each row of the features and of their gradient */
  double room;                       /* workspace: 0 the least, 1 an ample one, and between */
  head_call *call; /* instead of tare_linear_evaluate on the default stream, with `user`; NULL: that */
  void *user;
};

/** What a fused head adds to an outcome. From the oracle, `size` is the sum of the magnitudes of each sum's terms, and
 *  `largest` the product of the largest gradient by a logit and the largest number that one is multiplied by. */
typedef struct head_gradient {
  double *value, *size;
  double largest;
  int64_t count;
} head_gradient;

struct head_outcome {
  head_gradient features, weights, bias;
};

/** A problem of flat rows whose logits come from a classifier; otherwise as problem_new. */
problem *head_problem(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, int64_t dimensions);

/** The problem's logits from its classifier, after a change of that. */
void head_multiply(problem *p);

void head_free(struct head *head);

/** Skips the test, saying so, if the device has no BLAS. */
void head_require_blas(const test_device *device);

/** The arrays of a head in guarded device memory. */
typedef struct head_run {
  const problem *p;
  buffer *features, *weights, *bias, *features_gradient, *weights_gradient, *bias_gradient;
  tare_linear linear;
} head_run;

void head_open(head_run *run, const problem *p, const test_device *device);
struct head_outcome *head_read(head_run *run);
void head_expect_nothing_written(head_run *run);
void head_close(head_run *run);

/** From the gradient by the logits. */
struct head_outcome *head_expect(const problem *p, const double *gradient);

void head_outcome_free(struct head_outcome *o);

void head_check(const char *file, int line, const problem *p, const outcome *got, const outcome *want);
void head_check_same(const char *file, int line, const problem *p, const outcome *got, const outcome *want);

#endif
