/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a JSON report says of the run itself, so that it can be repeated and judged: the command line, every parameter
 * of the loss (defaults too), versions and date, and whether its times can be trusted.
 */
#ifndef TARE_TOOL_PROVENANCE_H
#define TARE_TOOL_PROVENANCE_H

#include <jansson.h>

#include "tare.h"
#include "tool/base/stopwatch.h"

/** The words of a command line; argv[0] is "tare VERB". Call it before argp sorts them. */
json_t *provenance_command(int argc, char **argv);

/** Adds "version", "build" and "date" (UTC) to `object`. */
void provenance_add(json_t *object);

/** {name: value} of every parameter of the loss that is no array. */
json_t *provenance_parameters(const tare_loss_spec *loss);

/** {spread, limit, trusted}; a spread that is not known is null. */
json_t *provenance_noise(struct noise noise);

#endif
