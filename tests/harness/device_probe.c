/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says whether a GPU works with the library that this is linked with. Status 0, or 77 (skip) and why not.
 */
#include <stdio.h>

#include "tare.h"

int main(void) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  tare_context *context = NULL;
  const tare_status status = tare_context_create(&context, &options);
  if (status != TARE_STATUS_OK) {
    printf("%s: %s\n", tare_status_name(status), tare_error_text(NULL));
    return 77;
  }
  tare_context_description description = {.struct_size = sizeof description};
  tare_context_describe(context, &description);
  printf("%s, %s\n", description.device_name, description.instruction_set);
  tare_context_destroy(context);
  return 0;
}
