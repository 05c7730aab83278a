/* SPDX-License-Identifier: Apache-2.0 */
/* A user's C program: calls a kernel, so that every library it needs must be found. */
#include <math.h>
#include <stdio.h>
#include <tare.h>

int main(void) {
  const float logits[2] = {0.0F, 0.0F};
  const int32_t labels[2] = {0, -1};
  float loss = 0.0F;
  tare_context *context = NULL;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* the arrays are ordinary memory */
  if (tare_version() != TARE_VERSION_NUMBER || tare_context_create(&context, &options) != TARE_STATUS_OK) {
    printf("%s\n", tare_error_text(NULL));
    return 1;
  }
  if (tare_sigmoid_ce(context, 2, 1, TARE_DTYPE_F32, logits, labels, -1.0, TARE_NORMALIZER_ROWS, &loss, NULL, NULL) !=
      TARE_STATUS_OK) {
    printf("%s\n", tare_error_text(context));
    return 1;
  }
  tare_context_destroy(context);
  printf("%s, cross-entropy of an undecided logit %.6f\n", tare_build_description(), (double)loss);
  return fabs((double)loss - 0.69314718) < 1e-6 ? 0 : 1;
}
