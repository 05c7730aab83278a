/* SPDX-License-Identifier: Apache-2.0 */
/* A training step in C without a BLAS: your own forward pass, one simple call for loss and gradient, your own backward
 * pass and SGD. Of 2,000 anchors 40 hold an object of one of three classes. The gradient overwrites the logits. */
#include <stdio.h>
#include <stdlib.h>
#include <tare.h>

enum { ANCHORS = 2000, CLASSES = 3, DIMENSIONS = 4, STEPS = 200 };

static float features[ANCHORS * DIMENSIONS], weights[CLASSES * DIMENSIONS], bias[CLASSES];
static float logits[ANCHORS * CLASSES]; /* after the call: the gradient */
static int32_t labels[ANCHORS];

/* One anchor in fifty is an object. An object of class c has a large feature c. */
static void fill(void) {
  for (int i = 0; i < ANCHORS; i++) {
    labels[i] = i % 50 == 0 ? i / 50 % CLASSES : -1; /* -1 is background */
    for (int d = 0; d < DIMENSIONS; d++)
      features[i * DIMENSIONS + d] = (float)((i * 7 + d * 5) % 11) / 11 - 0.5f + (d == labels[i] ? 3.0f : 0.0f);
  }
  for (int c = 0; c < CLASSES; c++) bias[c] = -4.6f; /* every class begins with probability 0.01 */
}

static void forward(void) {
  for (int i = 0; i < ANCHORS; i++)
    for (int c = 0; c < CLASSES; c++) {
      float logit = bias[c];
      for (int d = 0; d < DIMENSIONS; d++) logit += weights[c * DIMENSIONS + d] * features[i * DIMENSIONS + d];
      logits[i * CLASSES + c] = logit;
    }
}

/* Adds up the gradients by weights and bias, and descends. */
static void backward_and_descend(const float *gradient, float rate) {
  for (int c = 0; c < CLASSES; c++) {
    float by_bias = 0, by_weights[DIMENSIONS] = {0};
    for (int i = 0; i < ANCHORS; i++) {
      by_bias += gradient[i * CLASSES + c];
      for (int d = 0; d < DIMENSIONS; d++) by_weights[d] += gradient[i * CLASSES + c] * features[i * DIMENSIONS + d];
    }
    bias[c] -= rate * by_bias;
    for (int d = 0; d < DIMENSIONS; d++) weights[c * DIMENSIONS + d] -= rate * by_weights[d];
  }
}

int main(void) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* the arrays are ordinary memory */
  tare_context *context;
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) {
    fprintf(stderr, "%s\n", tare_error_text(NULL));
    return EXIT_FAILURE;
  }
  fill();
  tare_status status = TARE_STATUS_OK;
  for (int step = 0; step <= STEPS && status == TARE_STATUS_OK; step++) {
    float loss = 0;
    forward();
    status = tare_sigmoid_focal(context, ANCHORS, CLASSES, TARE_DTYPE_F32, logits, labels, 2.0, 0.25,
                                TARE_NORMALIZER_POSITIVES, &loss, logits, NULL);
    backward_and_descend(logits, 0.5f);
    if (step % 50 == 0) printf("step %3d  loss %.4f\n", step, (double)loss);
  }
  if (status != TARE_STATUS_OK) fprintf(stderr, "%s\n", tare_error_text(context));
  tare_context_destroy(context);
  return status == TARE_STATUS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
