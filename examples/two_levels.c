/* SPDX-License-Identifier: Apache-2.0 */
/* Focal loss and gradient for a detector's head with two levels. The network's NCHW outputs are used as they are. */
#include <stdio.h>
#include <string.h>
#include <tare.h>

enum { ANCHORS = 2, CLASSES = 3, BIG = 32, SMALL = 16 }; /* a head of two levels, 32x32 and 16x16 */

static float x3[ANCHORS * CLASSES * BIG * BIG], x4[ANCHORS * CLASSES * SMALL * SMALL];   /* logits, NCHW */
static float dx3[ANCHORS * CLASSES * BIG * BIG], dx4[ANCHORS * CLASSES * SMALL * SMALL]; /* their gradients */
static int32_t y3[BIG * BIG * ANCHORS], y4[SMALL * SMALL * ANCHORS];                     /* one label an anchor */

static void fill(float *array, size_t count, float value) {
  for (size_t i = 0; i < count; i++) array[i] = value;
}

static int fail(const char *text) {
  fprintf(stderr, "%s\n", text);
  return 1;
}

int main(void) {
  fill(x3, sizeof x3 / sizeof *x3, -4.6f); /* a fresh head: every class has probability 0.01 */
  fill(x4, sizeof x4 / sizeof *x4, -4.6f);
  memset(y3, -1, sizeof y3); /* -1 is background */
  memset(y4, -1, sizeof y4);
  y4[100] = 2; /* one object, of class 2 */

  tare_level levels[2];
  tare_level_init_nchw(&levels[0], ANCHORS, CLASSES, BIG, BIG);
  levels[0].logits = x3;
  levels[0].gradient = dx3;
  levels[0].labels = y3;
  tare_level_init_nchw(&levels[1], ANCHORS, CLASSES, SMALL, SMALL);
  levels[1].logits = x4;
  levels[1].gradient = dx4;
  levels[1].labels = y4;

  tare_loss_spec focal;
  tare_loss_spec_init(&focal, TARE_LOSS_SIGMOID_FOCAL); /* gamma 2, alpha 0.25 */

  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = levels;
  batch.level_count = 2;
  batch.classes = CLASSES;

  float loss;
  tare_output output;
  tare_output_init(&output);
  output.loss = &loss;
  output.normalizer = TARE_NORMALIZER_POSITIVES; /* divide by the number of objects */

  tare_context *context;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* the arrays above are in the CPU's memory */
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) return fail(tare_error_text(NULL));
  if (tare_evaluate(context, &focal, &batch, &output, NULL) != TARE_STATUS_OK) return fail(tare_error_text(context));
  tare_context_destroy(context);

  printf("loss %.2f; gradient of a background logit %+.1e, of the object's logit %+.4f\n", (double)loss, (double)dx3[0],
         (double)dx4[2 * SMALL * SMALL + 50]);
  return 0;
}
