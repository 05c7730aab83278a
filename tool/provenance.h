/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a JSON report says of the run itself, so that it can be repeated: the command line, every parameter of the loss
 * (defaults too), versions and date.
 */
#ifndef TARE_TOOL_PROVENANCE_H
#define TARE_TOOL_PROVENANCE_H

#include <jansson.h>

#include "tare.h"

/** The words of a command line; argv[0] is "tare VERB". Call it before argp sorts them. */
json_t *provenance_command(int argc, char **argv);

/** Adds "version", "build", "date" (UTC) and "parameters" to `object`. */
void provenance_add(json_t *object, const tare_loss_spec *loss);

#endif
