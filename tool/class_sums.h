/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of each class: measured, and shown as a table or as JSON. */
#ifndef TARE_TOOL_CLASS_SUMS_H
#define TARE_TOOL_CLASS_SUMS_H

#include "report.h"
#include "run.h"

/** Evaluates `run` once more for them; free() them. They stay NULL after an error. */
int class_sums_measure(struct run *run, tare_class_sums **sums);

void print_class_sums(const tare_class_sums *sums, int64_t classes);

/** {loss, positive_gradient, negative_gradient, count}, each an array over the classes. */
json_t *json_class_sums(const tare_class_sums *sums, int64_t classes);

#endif
