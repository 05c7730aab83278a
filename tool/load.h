/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arrays of an evaluation, from files. Their shapes are compared.
 */
#ifndef TARE_TOOL_LOAD_H
#define TARE_TOOL_LOAD_H

#include "options.h"
#include "sample.h"

/** Reads every input file of `options`. `file_dtype` is the logits' type before --dtype. TOOL_OK, or TOOL_FAILED after
 *  complaining; sample_free is right in both cases. */
int load_sample(const struct eval_options *options, struct sample *sample, int32_t *file_dtype);

/** Reads logits alone: [rows, classes]. `bf16` allows uint16 as the bits of bf16. */
int load_logits(const char *role, const char *path, bool bf16, struct sample *sample);

/** Reads labels for the rows of `sample`. */
int load_labels(const char *path, struct sample *sample);

#endif
