/* SPDX-License-Identifier: Apache-2.0 */
/* A training loop in C: gradient descent on a detector's last layer, logits = features * weights^T + bias, with focal
 * loss. Of 4,096 anchors 41 hold an object of one of three classes. The fused head never forms all logits at once. It
 * needs a CBLAS, such as OpenBLAS. */
#include <stdio.h>
#include <stdlib.h>
#include <tare.h>

enum { ANCHORS = 4096, CLASSES = 3, DIMENSIONS = 8, STEPS = 300 };

static float features[ANCHORS * DIMENSIONS], weights[CLASSES * DIMENSIONS], bias[CLASSES];
static float weights_gradient[CLASSES * DIMENSIONS], bias_gradient[CLASSES];
static int32_t labels[ANCHORS];

/* Uniform in (-1,1), from a 64-bit linear congruential generator: the same data on every machine. */
static float noise(void) {
  static uint64_t state = 1;
  state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (float)((double)(state >> 11) / 4503599627370496.0 - 1);
}

/* One anchor in a hundred is an object. An object of class c has a large feature c. */
static void fill(void) {
  for (int i = 0; i < ANCHORS; i++) {
    labels[i] = i % 100 == 0 ? i / 100 % CLASSES : -1; /* -1 is background */
    for (int d = 0; d < DIMENSIONS; d++) features[i * DIMENSIONS + d] = noise() + (d == labels[i] ? 3.0f : 0.0f);
  }
  for (int c = 0; c < CLASSES; c++) bias[c] = -4.6f; /* every class begins with probability 0.01 */
}

static void descend(float *parameters, const float *gradient, int count, float rate) {
  for (int i = 0; i < count; i++) parameters[i] -= rate * gradient[i];
}

/* The classifier: what it reads, and where its gradients go. */
static void init_head(tare_linear *head) {
  tare_linear_init(head, DIMENSIONS);
  head->features = features;
  head->weights = weights;
  head->bias = bias;
  head->weights_gradient = weights_gradient;
  head->bias_gradient = bias_gradient;
}

/* What does not change from step to step is set up once. Returns the loss of the last step; negative: failed. */
static float train(tare_context *context) {
  tare_loss_spec focal;
  tare_loss_spec_init(&focal, TARE_LOSS_SIGMOID_FOCAL); /* gamma 2, alpha 0.25 */

  tare_level level;
  tare_level_init_rows(&level, ANCHORS, CLASSES);
  level.labels = labels; /* no logits: the fused head forms them */

  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = CLASSES;

  tare_linear head;
  init_head(&head);

  float loss = 0;
  tare_output output;
  tare_output_init(&output);
  output.loss = &loss;
  output.normalizer = TARE_NORMALIZER_POSITIVES; /* divide by the number of objects */

  uint64_t least, ample; /* any size between works; more rows at a time are faster */
  if (tare_linear_workspace_size(context, &focal, &batch, &head, &output, &least, &ample) != TARE_STATUS_OK) return -1;
  void *workspace = malloc(ample);
  if (!workspace || tare_context_set_workspace(context, workspace, ample) != TARE_STATUS_OK) return -1;

  for (int step = 0; step < STEPS; step++) {
    if (tare_linear_evaluate(context, &focal, &batch, &head, &output, NULL) != TARE_STATUS_OK) return -1;
    descend(weights, weights_gradient, CLASSES * DIMENSIONS, 0.5f);
    descend(bias, bias_gradient, CLASSES, 0.5f);
    if (step % 100 == 0) printf("step %3d  loss %.4f\n", step, (double)loss);
  }
  tare_context_set_workspace(context, NULL, 0);
  free(workspace);
  return loss;
}

static void report(void) {
  int found = 0, objects = 0, false_alarms = 0;
  for (int i = 0; i < ANCHORS; i++) {
    objects += labels[i] >= 0;
    for (int c = 0; c < CLASSES; c++) {
      float logit = bias[c];
      for (int d = 0; d < DIMENSIONS; d++) logit += weights[c * DIMENSIONS + d] * features[i * DIMENSIONS + d];
      if (logit > 0) *(labels[i] == c ? &found : &false_alarms) += 1; /* a probability above one half */
    }
  }
  printf("%d of %d objects found, %d false alarms\n", found, objects, false_alarms);
}

int main(void) {
  tare_context *context;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* the arrays are ordinary memory */
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) {
    fprintf(stderr, "%s\n", tare_error_text(NULL));
    return EXIT_FAILURE;
  }
  fill();
  const float loss = train(context);
  if (loss < 0) fprintf(stderr, "%s\n", tare_error_text(context));
  tare_context_destroy(context);
  if (loss < 0) return EXIT_FAILURE;
  printf("step %3d  loss %.4f\n", STEPS, (double)loss);
  report();
  return EXIT_SUCCESS;
}
