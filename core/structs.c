/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs of other versions. A struct_size that ends inside a field is refused, since half of a number or pointer would
 * be read. So the starts of all fields are listed.
 */
#include "structs.h"

#include <stddef.h>
#include <string.h>

#include "losses.h"
#include "parameters.h"

#define AT(type, field) offsetof(type, field)
#define LAYOUT(type, name, minimum, starts) \
  { (name), sizeof(type), (minimum), sizeof(type), (starts), (int)(sizeof(starts) / sizeof *(starts)), NULL }

static const uint16_t options_starts[] = {AT(tare_context_options, device), AT(tare_context_options, device_index),
                                          AT(tare_context_options, threads), AT(tare_context_options, reserved)};
static const uint16_t description_starts[] = {
    AT(tare_context_description, device),      AT(tare_context_description, device_index),
    AT(tare_context_description, threads),     AT(tare_context_description, reserved),
    AT(tare_context_description, device_name), AT(tare_context_description, instruction_set),
    AT(tare_context_description, reason)};
/* An array and its strides were added together. */
static const uint16_t level_starts[] = {
    AT(tare_level, gradient),     AT(tare_level, labels),          AT(tare_level, targets),
    AT(tare_level, row_weights),  AT(tare_level, element_weights), AT(tare_level, row_loss),
    AT(tare_level, element_loss), AT(tare_level, scores),          AT(tare_level, loss),
    AT(tare_level, loss_weight),  AT(tare_level, divisor),         AT(tare_level, divisor_pointer)};
static const uint16_t batch_starts[] = {AT(tare_batch, level_stride),
                                        AT(tare_batch, levels),
                                        AT(tare_batch, level_count),
                                        AT(tare_batch, dtype),
                                        AT(tare_batch, label_dtype),
                                        AT(tare_batch, target_dtype),
                                        AT(tare_batch, images),
                                        AT(tare_batch, classes),
                                        AT(tare_batch, first_label),
                                        AT(tare_batch, background_label),
                                        AT(tare_batch, ignore_label),
                                        AT(tare_batch, class_weights),
                                        AT(tare_batch, background_weight),
                                        AT(tare_batch, positive_weights),
                                        AT(tare_batch, score_dtype),
                                        AT(tare_batch, selection),
                                        AT(tare_batch, selection_ratio),
                                        AT(tare_batch, selection_minimum),
                                        AT(tare_batch, selection_count),
                                        AT(tare_batch, selection_fraction),
                                        AT(tare_batch, negative_weights),
                                        AT(tare_batch, background_negative_weights),
                                        AT(tare_batch, class_mask),
                                        AT(tare_batch, class_mask_image_stride),
                                        AT(tare_batch, class_mask_class_stride)};
static const uint16_t output_starts[] = {AT(tare_output, loss),
                                         AT(tare_output, loss_dtype),
                                         AT(tare_output, normalizer),
                                         AT(tare_output, normalizer_value),
                                         AT(tare_output, normalizer_pointer),
                                         AT(tare_output, gradient_scale),
                                         AT(tare_output, gradient_scale_pointer),
                                         AT(tare_output, counts),
                                         AT(tare_output, class_sums),
                                         AT(tare_output, nonfinite_gradient),
                                         AT(tare_output, nonfinite_loss),
                                         AT(tare_output, normalizer_addend),
                                         AT(tare_output, normalizer_minimum),
                                         AT(tare_output, normalizer_sums),
                                         AT(tare_output, normalizer_scope),
                                         AT(tare_output, norm_bins),
                                         AT(tare_output, norm_histogram)};
static const uint16_t linear_starts[] = {AT(tare_linear, dimensions)}; /* every version has it all */
static const uint16_t class_balance_starts[] = {AT(tare_class_balance, log_counts)};
static const uint16_t mask_spec_starts[] = {AT(tare_mask_spec, false_positive_weight)}; /* every version has it all */
static const uint16_t masks_starts[] = {AT(tare_masks, masks)};                         /* the same */
static const uint16_t mask_output_starts[] = {AT(tare_mask_output, loss)};              /* the same */
static const uint16_t gradient_balance_starts[] = {AT(tare_gradient_balance, classes)}; /* the same */
static const uint16_t loss_description_starts[] = {AT(tare_loss_description, name),
                                                   AT(tare_loss_description, kind),
                                                   AT(tare_loss_description, family),
                                                   AT(tare_loss_description, parameters),
                                                   AT(tare_loss_description, has_state),
                                                   AT(tare_loss_description, takes_targets),
                                                   AT(tare_loss_description, takes_class_weights),
                                                   AT(tare_loss_description, takes_element_weights),
                                                   AT(tare_loss_description, takes_positive_weights),
                                                   AT(tare_loss_description, takes_normalizer),
                                                   AT(tare_loss_description, gives_element_loss),
                                                   AT(tare_loss_description, takes_scores),
                                                   AT(tare_loss_description, takes_negative_weights),
                                                   AT(tare_loss_description, takes_bins),
                                                   AT(tare_loss_description, reserved)};
static const uint16_t parameter_description_starts[] = {
    AT(tare_parameter_description, name)}; /* every version has it all */

const tare_layout tare_options_layout = LAYOUT(tare_context_options, "context_options", 8, options_starts);
const tare_layout tare_description_layout =
    LAYOUT(tare_context_description, "context_description", 8, description_starts);
const tare_layout tare_level_layout = LAYOUT(tare_level, "level", AT(tare_level, gradient), level_starts);
const tare_layout tare_batch_layout = LAYOUT(tare_batch, "batch", AT(tare_batch, levels), batch_starts);
const tare_layout tare_output_layout = LAYOUT(tare_output, "output", 8, output_starts);
const tare_layout tare_linear_layout = LAYOUT(tare_linear, "linear", sizeof(tare_linear), linear_starts);
const tare_layout tare_class_balance_layout =
    LAYOUT(tare_class_balance, "class_balance", AT(tare_class_balance, log_counts), class_balance_starts);
const tare_layout tare_mask_spec_layout = LAYOUT(tare_mask_spec, "mask_spec", sizeof(tare_mask_spec), mask_spec_starts);
const tare_layout tare_masks_layout = LAYOUT(tare_masks, "masks", sizeof(tare_masks), masks_starts);
const tare_layout tare_mask_output_layout =
    LAYOUT(tare_mask_output, "mask_output", sizeof(tare_mask_output), mask_output_starts);
const tare_layout tare_gradient_balance_layout =
    LAYOUT(tare_gradient_balance, "gradient_balance", sizeof(tare_gradient_balance), gradient_balance_starts);
const tare_layout tare_loss_description_layout =
    LAYOUT(tare_loss_description, "loss_description", 8, loss_description_starts);
const tare_layout tare_parameter_description_layout =
    LAYOUT(tare_parameter_description, "parameter_description", sizeof(tare_parameter_description),
           parameter_description_starts);

static const uint16_t spec_starts[] = {AT(tare_loss_spec, kind), AT(tare_loss_spec, reserved), AT(tare_loss_spec, ce)};

tare_layout tare_loss_layout(int32_t kind) {
  tare_layout layout = LAYOUT(tare_loss_spec, "loss", AT(tare_loss_spec, ce), spec_starts);
  const tare_listed_loss *listed = tare_find_loss(kind);
  layout.end = listed ? listed->end : AT(tare_loss_spec, ce);
  layout.member = listed ? listed->member : NULL;
  return layout;
}

int tare_ends_on_field(const tare_layout *layout, uint64_t size) {
  if (size >= layout->size) return 1;
  if (size >= layout->end) return size % 8 == 0; /* words of a loss that have no meaning in this version */
  for (int i = 0; i < layout->count; i++)
    if (layout->starts[i] == size) return 1;
  return layout->member && tare_is_parameter_at(layout->member, size);
}

tare_status tare_check_struct_size(const void *theirs, const tare_layout *layout, tare_error *error) {
  uint64_t size;
  if (!theirs) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "%s is NULL", layout->name);
  memcpy(&size, theirs, sizeof size);
  if (size < layout->minimum || size > 65536)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "%s->struct_size is %llu; it must be at least %llu: set it to sizeof(tare_%s), %llu in this version",
        layout->name, (unsigned long long)size, (unsigned long long)layout->minimum, layout->name,
        (unsigned long long)layout->size);
  if (!tare_ends_on_field(layout, size))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "%s->struct_size is %llu, which ends inside a field; it must be sizeof(tare_%s), %llu in this "
                     "version, or where a field ends",
                     layout->name, (unsigned long long)size, layout->name, (unsigned long long)layout->size);
  return TARE_STATUS_OK;
}

tare_status tare_read_struct(void *out, const void *theirs, const tare_layout *layout, tare_error *error) {
  const tare_status status = tare_check_struct_size(theirs, layout, error);
  if (status) return status;
  const unsigned char *bytes = theirs;
  const uint64_t size = layout->size;
  uint64_t their_size;
  memcpy(&their_size, theirs, sizeof their_size);
  for (uint64_t i = size; i < their_size; i++)
    if (bytes[i])
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "%s->struct_size is %llu and byte %llu is set; this library (%d.%d.%d) knows %llu bytes and "
                       "takes a longer struct only if the rest is zero",
                       layout->name, (unsigned long long)their_size, (unsigned long long)i, TARE_VERSION_MAJOR,
                       TARE_VERSION_MINOR, TARE_VERSION_PATCH, (unsigned long long)size);
  memcpy(out, theirs, their_size < size ? their_size : size);
  memcpy(out, &size, sizeof size);
  return TARE_STATUS_OK;
}

tare_status tare_write_struct(void *theirs, const void *ours, const tare_layout *layout, tare_error *error) {
  const tare_status status = tare_check_struct_size(theirs, layout, error);
  if (status) return status;
  uint64_t size;
  memcpy(&size, theirs, sizeof size);
  memset(theirs, 0, size);
  memcpy(theirs, ours, size < layout->size ? size : layout->size);
  memcpy(theirs, &size, sizeof size);
  return TARE_STATUS_OK;
}
