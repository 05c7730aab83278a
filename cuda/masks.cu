/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of masks on a GPU. */
#include "backend.cuh"

namespace tare {

tare_status evaluate_masks(tare_backend *, const tare_mask_problem *, tare_stream, tare_error *error) {
  return tare_fail(error, TARE_STATUS_UNSUPPORTED, "a GPU does not compute the loss of masks yet; use a CPU context");
}

}  // namespace tare
