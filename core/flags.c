/* SPDX-License-Identifier: Apache-2.0 */
#include "flags.h"

/** Whether some rows have a gradient, or there are no rows. */
static int has_gradient(const tare_problem *problem) {
  for (int i = 0; i < problem->level_count; i++)
    if (problem->view[i].rows && problem->view[i].array[TARE_ARRAY_GRADIENT].data) return 1;
  return problem->rows == 0;
}

tare_status tare_check_flags(const tare_problem *problem, int unseen, tare_error *error) {
  const tare_output *output = &problem->output;
  if (!tare_has_flags(output)) return TARE_STATUS_OK;
  if ((uintptr_t)output->nonfinite_gradient % 4 || (uintptr_t)output->nonfinite_loss % 4)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->nonfinite_gradient is %p and nonfinite_loss %p; they must be aligned to 4 bytes",
                     (void *)output->nonfinite_gradient, (void *)output->nonfinite_loss);
  if (unseen)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "output->nonfinite_gradient or nonfinite_loss with a fused head: its gradient by the logits is not "
        "an output; form the logits and call tare_evaluate, or leave both NULL");
  if (output->nonfinite_gradient && !has_gradient(problem))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->nonfinite_gradient is given, but no level has a gradient to test; leave it NULL");
  if (output->nonfinite_loss && !output->loss)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->nonfinite_loss is given, but output->loss, which it tests, is NULL; leave it NULL");
  return TARE_STATUS_OK;
}
