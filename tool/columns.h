/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of the classes, from files, that a loss multiplies its columns by or takes as their parameters.
 */
#ifndef TARE_TOOL_COLUMNS_H
#define TARE_TOOL_COLUMNS_H

#include <stdbool.h>

#include "tare.h"

enum { POSITIVE_COLUMNS, NEGATIVE_COLUMNS, BACKGROUND_COLUMNS, ALPHA_COLUMNS, GAMMA_COLUMNS, COLUMN_VECTORS };

/** The option of one of these, with its dashes. */
const char *columns_option(int which);

/** Whether a loss takes it. */
bool columns_taken(int32_t kind, int which);

/** Puts vectors [classes] in memory of the device, or NULL, where a batch and a loss have them. */
void columns_put(void *const *vectors, tare_batch *batch, tare_loss_spec *loss);

#endif
