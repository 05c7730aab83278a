/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option values: whole numbers, real numbers and names. Each function reads the whole text, or reports wrong usage.
 */
#ifndef TARE_TOOL_PARSE_H
#define TARE_TOOL_PARSE_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/** A whole text that is one decimal number: no blanks, no hexadecimal digits, no "inf", no "nan". HUGE: beyond a
 *  double; TINY: not 0, but a double would be. */
enum number { NUMBER_FINE, NUMBER_NONE, NUMBER_HUGE, NUMBER_TINY };
enum number text_number(const char *text, double *value);

bool text_to_double(const char *text, double *value); /**< NUMBER_FINE */
bool text_to_int64(const char *text, int64_t *value);

/* Return TOOL_OK or TOOL_MISUSED. `option` is the option's name with its dashes. */
int parse_double(const char *option, const char *text, double *value);
int parse_beta(const char *text, double *value); /**< --beta, in [0,1) */
int parse_int64(const char *option, const char *text, int64_t low, int64_t high, int64_t *value);
int parse_int32(const char *option, const char *text, int32_t low, int32_t high, int32_t *value);

struct choice {
  const char *name;
  int32_t value;
};
/** `choices` ends with a NULL name. */
int parse_choice(const char *option, const char *text, const struct choice *choices, int32_t *value);
int parse_loss(const char *text, int32_t *kind);

/** The names of all losses with `separator` between them, to be freed; NULL without memory for them. */
char *all_loss_names(const char *separator);

extern const struct choice device_choices[];
extern const struct choice dtype_choices[];

/** The path of an output. It ends in `extension`, or has no extension: its name must not suggest another format. */
int parse_output(const char *option, const char *text, const char *extension, const char **path);
int parse_picture(const char *text, const char **path); /**< --plot: .svg, .png or .pdf, and not without */

/** Runs argp so that every error is one line and TOOL_MISUSED. An option with a value may be given only once, except
 *  those named in `repeatable`, which NULL ends; NULL: no exception. */
int parse_arguments(const struct argp *argp, const char *const *repeatable, int argc, char **argv, void *input);

#endif
