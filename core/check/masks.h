/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the loss of masks. */
#ifndef TARE_CORE_CHECK_MASKS_H
#define TARE_CORE_CHECK_MASKS_H

#include "core/masks.h"

/** Number and size alone, as a workspace's size depends on them. */
tare_status tare_check_mask_shape(const tare_masks *masks, tare_error *error);

tare_status tare_check_mask_spec(const tare_mask_spec *spec, tare_error *error);

/** The arrays of masks and output, and the output's numbers. */
tare_status tare_check_masks(const tare_masks *masks, const tare_mask_output *output, tare_error *error);

#endif
