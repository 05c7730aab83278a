/* SPDX-License-Identifier: Apache-2.0 */
/* Focal loss and its gradient for a detector's head of two levels, as the network wrote them: NCHW, nothing copied. */
#include <stdio.h>
#include <string.h>
#include <tare.h>

int main(void) {
  static float x3[2 * 3 * 32 * 32], x4[2 * 3 * 16 * 16];   /* logits: [anchors*classes, height, width] */
  static float dx3[2 * 3 * 32 * 32], dx4[2 * 3 * 16 * 16]; /* their gradient, the same shape */
  static int32_t y3[32 * 32 * 2], y4[16 * 16 * 2];         /* labels: [height, width, anchors] */
  memset(y3, -1, sizeof y3), memset(y4, -1, sizeof y4);    /* background, */
  y4[100] = 2;                                             /* but for one object, of class 2 */

  tare_level levels[2];
  tare_level_nchw(&levels[0], 2, 3, 32, 32); /* anchors, classes, height, width */
  tare_level_nchw(&levels[1], 2, 3, 16, 16);
  levels[0].logits = x3, levels[0].gradient = dx3, levels[0].labels = y3;
  levels[1].logits = x4, levels[1].gradient = dx4, levels[1].labels = y4;

  float loss;
  tare_loss focal;
  tare_batch batch;
  tare_output output;
  tare_context *context;
  tare_context_options options;
  tare_loss_init(&focal, TARE_SIGMOID_FOCAL); /* gamma 2, alpha 0.25 */
  tare_batch_init(&batch), batch.levels = levels, batch.level_count = 2, batch.classes = 3;
  tare_output_init(&output), output.loss = &loss, output.normalizer = TARE_POSITIVES;
  tare_context_options_init(&options), options.device = TARE_DEVICE_CPU; /* where the arrays above lie */
  if (tare_context_create(&context, &options) != TARE_OK) return puts(tare_error_text(NULL)), 1;
  if (tare_evaluate(context, &focal, &batch, &output, NULL) != TARE_OK) return puts(tare_error_text(context)), 1;
  printf("loss %.2f; gradient of a background logit %+.4f, of the object's %+.4f\n", (double)loss, (double)dx3[0],
         (double)dx4[2 * 256 + 50]);
  tare_context_destroy(context);
  return 0;
}
