/* SPDX-License-Identifier: Apache-2.0 */
/* The public structs by their fields: the places where a struct of another version may end. */
#ifndef TARE_CORE_STRUCTS_H
#define TARE_CORE_STRUCTS_H

#include "problem.h"

/** A struct of the public interface. Its last field ends at `end`, which only a loss has before `size`. */
typedef struct tare_layout {
  const char *name;
  uint64_t size, minimum, end;
  const uint16_t *starts; /* of the fields but the first, rising */
  int count;
  const char *member; /* of a loss: its parameters in this member of the union are fields as well; else NULL */
} tare_layout;

extern const tare_layout tare_options_layout, tare_description_layout, tare_level_layout, tare_batch_layout,
    tare_output_layout, tare_linear_layout, tare_class_balance_layout, tare_gradient_balance_layout,
    tare_mask_spec_layout, tare_masks_layout, tare_mask_output_layout, tare_loss_description_layout,
    tare_parameter_description_layout;

/** The fields of a loss are those of the union's member that its kind uses. */
tare_layout tare_loss_layout(int32_t kind);

/** Whether a struct of `size` bytes ends after a whole field. A struct longer than ours does. */
int tare_ends_on_field(const tare_layout *layout, uint64_t size);

/** Checks the struct_size of a struct that the caller reads or writes. */
tare_status tare_check_struct_size(const void *theirs, const tare_layout *layout, tare_error *error);

/** Reads a struct of the caller's. Fields that it lacks keep their value in `out`. Its bytes beyond ours must be 0. */
tare_status tare_read_struct(void *out, const void *theirs, const tare_layout *layout, tare_error *error);

/** Fills a struct of the caller's, whose struct_size is set, from ours. Its bytes beyond ours become 0, because fields
 *  of a later version are unknown here. */
tare_status tare_write_struct(void *theirs, const void *ours, const tare_layout *layout, tare_error *error);

#endif
