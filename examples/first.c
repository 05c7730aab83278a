/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest program: focal loss and gradient of two anchors with three classes, by one simple call. */
#include <stdio.h>
#include <tare.h>

int main(void) {
  const float logits[2 * 3] = {2.0f, -1.0f, 0.5f, -3.0f, -2.0f, -4.0f};
  const int32_t labels[2] = {0, -1}; /* row 0 has class 0, row 1 is background */
  float loss, gradient[2 * 3];
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* where the arrays are */
  tare_context *context;
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) return puts(tare_error_text(NULL));
  tare_status status = tare_sigmoid_focal(context, 2, 3, TARE_DTYPE_F32, logits, labels, 2.0, 0.25,
                                          TARE_NORMALIZER_POSITIVES, &loss, gradient, NULL);
  if (status == TARE_STATUS_OK)
    printf("loss %.4f, gradient of the object's logit %+.5f\n", (double)loss, (double)gradient[0]);
  tare_context_destroy(context);
  return status;
}
