/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of the classes: weights belong to the batch, parameters to the loss.
 */
#include "columns.h"

#include <string.h>

#include "parameters.h"

static const struct {
  const char *option, *parameter;
} columns[COLUMN_VECTORS] = {[POSITIVE_COLUMNS] = {"--positive-weights", NULL},
                             [NEGATIVE_COLUMNS] = {"--negative-weights", NULL},
                             [BACKGROUND_COLUMNS] = {"--background-negative-weights", NULL},
                             [ALPHA_COLUMNS] = {"--alpha-per-class", "alpha_per_class"},
                             [GAMMA_COLUMNS] = {"--gamma-per-class", "gamma_per_class"}};

const char *columns_option(int which) { return columns[which].option; }

bool columns_taken(int32_t kind, int which) {
  const tare_loss_description loss = loss_described(kind);
  if (which == POSITIVE_COLUMNS) return loss.takes_positive_weights;
  if (which == NEGATIVE_COLUMNS || which == BACKGROUND_COLUMNS) return loss.takes_negative_weights;
  return loss_has(kind, columns[which].parameter);
}

static void put_parameter(const char *name, const void *vector, tare_loss_spec *loss) {
  tare_parameter_description parameter = {.struct_size = sizeof parameter};
  for (int32_t index = 0; tare_loss_parameter(loss->kind, index, &parameter) == TARE_STATUS_OK; index++)
    if (strcmp(parameter.name, name) == 0) memcpy((char *)loss + parameter.offset, &vector, sizeof vector);
}

void columns_put(void *const *vectors, tare_batch *batch, tare_loss_spec *loss) {
  batch->positive_weights = vectors[POSITIVE_COLUMNS];
  batch->negative_weights = vectors[NEGATIVE_COLUMNS];
  batch->background_negative_weights = vectors[BACKGROUND_COLUMNS];
  for (int which = ALPHA_COLUMNS; which < COLUMN_VECTORS; which++)
    if (vectors[which]) put_parameter(columns[which].parameter, vectors[which], loss);
}
