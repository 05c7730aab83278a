/* SPDX-License-Identifier: Apache-2.0 */
/* A user's plugin, which has the static library inside; tests/checks/unload.c loads and unloads it. */
#include <tare.h>

int plugin_uses_tare(void);
int plugin_uses_tare(void) {
  tare_context *context = NULL;
  tare_context_options options;
  float loss;
  tare_context_options_init(&options);
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) return 1;
  const tare_status status =
      tare_sigmoid_focal(context, 0, 1, TARE_DTYPE_F32, NULL, NULL, 2, 0.25, TARE_NORMALIZER_SUM, &loss, NULL, NULL);
  tare_context_destroy(context);
  return status != TARE_STATUS_OK;
}
