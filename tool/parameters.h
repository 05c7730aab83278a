/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of the losses as options of the command line. The library describes them, so a new loss needs nothing
 * here.
 */
#ifndef TARE_TOOL_PARAMETERS_H
#define TARE_TOOL_PARAMETERS_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tare.h"

enum { MAX_PARAMETERS = 64 };

/** What the command line gave for one option. */
struct parameter_value {
  bool given;
  double number; /**< of a choice, its index */
};

/** Options that some loss has, each once, in the library's order; `values` goes with it. */
struct parameter_options {
  int32_t count;
  tare_parameter_description of[MAX_PARAMETERS]; /**< from the description of the first loss that has it */
  char *help[MAX_PARAMETERS];                    /**< for --help: what it is, which losses, default */
  char metavar[MAX_PARAMETERS][32];
};

const struct parameter_options *parameter_options(void);

/** The argp entry of option `index`, with this key. */
struct argp_option parameter_argp(int32_t index, int key);

/** Reads the text of option `index`. TOOL_OK, or TOOL_MISUSED after complaining. */
int parameter_read(int32_t index, const char *text, struct parameter_value *value);

/** Fills `loss` with the defaults of `kind` and the values given. TOOL_MISUSED if one does not belong to the loss. */
int parameters_fill(int32_t kind, const struct parameter_value *values, tare_loss_spec *loss);

/** Prints the parameters that are in use: " (alpha 0.25, gamma 2)"; nothing if there is none. */
void parameters_print(FILE *stream, const tare_loss_spec *loss);

/** Whether a loss has a parameter of this name. */
bool loss_has(int32_t kind, const char *name);

/** The description of a loss, which exists. */
tare_loss_description loss_described(int32_t kind);

#endif
