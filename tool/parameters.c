/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of the losses as options of the command line.
 */
#define _GNU_SOURCE
#include "parameters.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sample.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"

tare_loss_description loss_described(int32_t kind) {
  tare_loss_description description = {.struct_size = sizeof description};
  tare_loss_describe(kind, &description);
  return description;
}

static tare_parameter_description parameter_of(int32_t kind, int32_t index) {
  tare_parameter_description description = {.struct_size = sizeof description};
  tare_loss_parameter(kind, index, &description);
  return description;
}

/* The parameter of a loss behind an option. */
static bool find(int32_t kind, const char *option, tare_parameter_description *found) {
  int32_t count = loss_described(kind).parameters;
  for (int32_t index = 0; index < count; index++) {
    *found = parameter_of(kind, index);
    if (*option && strcmp(found->option, option) == 0) return true;
  }
  return false;
}

bool loss_has(int32_t kind, const char *name) {
  int32_t count = loss_described(kind).parameters;
  for (int32_t index = 0; index < count; index++)
    if (strcmp(parameter_of(kind, index).name, name) == 0) return true;
  return false;
}

static void print_default(const tare_parameter_description *parameter, char *text, size_t size) {
  if (parameter->choices)
    snprintf(text, size, "%s", parameter->choices[(int)parameter->default_value]);
  else if (parameter->negative_is_off && parameter->default_value < 0)
    snprintf(text, size, "off");
  else
    snprintf(text, size, "%g", parameter->default_value);
}

/* Which losses take the option, and each one's default: "sigmoid-focal 2, softmax-focal 2". */
static void put_losses(FILE *stream, const char *option) {
  bool first = true;
  for (int32_t index = 0; index < tare_loss_count(); index++) {
    tare_parameter_description parameter;
    char value[64];
    int32_t kind = tare_loss_kind_at(index);
    if (!find(kind, option, &parameter)) continue;
    print_default(&parameter, value, sizeof value);
    fprintf(stream, "%s%s %s", first ? "" : ", ", tare_loss_name(kind), value);
    first = false;
  }
}

/* "What it is: one or other (loss default, ...)". The text stays for argp. NULL, no help, without memory for it. */
static char *help_of(const tare_parameter_description *parameter) {
  char *text = NULL;
  size_t length;
  FILE *stream = open_memstream(&text, &length);
  if (!stream) return NULL;
  fprintf(stream, "%c%s", toupper(parameter->help[0]), parameter->help + 1);
  for (int32_t index = 0; parameter->choices && parameter->choices[index]; index++)
    fprintf(stream, "%s%s", index ? " or " : ": ", parameter->choices[index]);
  fputs(" (", stream);
  put_losses(stream, parameter->option);
  fputs(")", stream);
  if (fclose(stream) == 0) return text;
  free(text);
  return NULL;
}

static void describe_option(struct parameter_options *options, int32_t index) {
  const tare_parameter_description *parameter = &options->of[index];
  char *metavar = options->metavar[index];
  options->help[index] = help_of(parameter);
  snprintf(metavar, sizeof options->metavar[index], "%s", parameter->choices ? "HOW" : parameter->name);
  if (parameter->choices) return;
  for (char *at = metavar; *at; at++) *at = (char)toupper(*at);
}

static void collect(struct parameter_options *options, int32_t kind) {
  int32_t count = loss_described(kind).parameters;
  for (int32_t index = 0; index < count && options->count < MAX_PARAMETERS; index++) {
    const tare_parameter_description parameter = parameter_of(kind, index);
    bool known = !*parameter.option;
    for (int32_t other = 0; other < options->count && !known; other++)
      known = strcmp(options->of[other].option, parameter.option) == 0;
    if (known) continue;
    options->of[options->count] = parameter;
    describe_option(options, options->count++);
  }
}

const struct parameter_options *parameter_options(void) {
  static struct parameter_options options;
  if (options.count) return &options;
  for (int32_t index = 0; index < tare_loss_count(); index++) collect(&options, tare_loss_kind_at(index));
  return &options;
}

struct argp_option parameter_argp(int32_t index, int key) {
  const struct parameter_options *options = parameter_options();
  return (struct argp_option){options->of[index].option, key, options->metavar[index], 0, options->help[index], 0};
}

static int read_choice(const char *option, const char *text, const char *const *names, double *value) {
  struct choice choices[16] = {{NULL, 0}};
  int32_t chosen;
  for (int32_t index = 0; index < 15 && names[index]; index++) choices[index] = (struct choice){names[index], index};
  int status = parse_choice(option, text, choices, &chosen);
  if (status == TOOL_OK) *value = chosen;
  return status;
}

int parameter_read(int32_t index, const char *text, struct parameter_value *value) {
  const tare_parameter_description *parameter = &parameter_options()->of[index];
  char option[64];
  int32_t whole;
  int status;
  value->given = true;
  snprintf(option, sizeof option, "--%s", parameter->option);
  if (parameter->type == TARE_PARAMETER_TYPE_NUMBER) return parse_double(option, text, &value->number);
  if (parameter->type == TARE_PARAMETER_TYPE_CHOICE)
    return read_choice(option, text, parameter->choices, &value->number);
  status = parse_int32(option, text, (int32_t)parameter->low, (int32_t)parameter->high, &whole);
  if (status == TOOL_OK) value->number = whole;
  return status;
}

static void set(tare_loss_spec *loss, const tare_parameter_description *parameter, double number) {
  char *at = (char *)loss + parameter->offset;
  if (parameter->type == TARE_PARAMETER_TYPE_NUMBER) {
    memcpy(at, &number, sizeof number);
    return;
  }
  int32_t whole = (int32_t)number;
  memcpy(at, &whole, sizeof whole);
}

int parameters_fill(int32_t kind, const struct parameter_value *values, tare_loss_spec *loss) {
  const struct parameter_options *options = parameter_options();
  tare_loss_spec_init(loss, (tare_loss_kind)kind);
  for (int32_t index = 0; index < options->count; index++) {
    tare_parameter_description parameter;
    const char *option = options->of[index].option;
    if (!values[index].given) continue;
    if (!find(kind, option, &parameter)) return misuse("--%s does not belong to %s", option, tare_loss_name(kind));
    set(loss, &parameter, values[index].number);
  }
  return TOOL_OK;
}

/* Of a choice its word. Nothing for arrays, for what is off or does nothing at 0, its default, and for what the command
 * line does not have. The window of the exact density means nothing to the other one. */
static bool print_value(FILE *stream, const char *before, const tare_loss_spec *loss,
                        const tare_parameter_description *parameter) {
  const char *at = (const char *)loss + parameter->offset, *name = parameter->name;
  double number;
  int32_t whole;
  if (!*parameter->option) return false;
  if (kind_is_ghm(loss->kind) && loss->ghm.density != TARE_GHM_DENSITY_EXACT && strcmp(name, "epsilon") == 0)
    return false;
  memcpy(&number, at, sizeof number);
  memcpy(&whole, at, sizeof whole);
  switch (parameter->type) {
    case TARE_PARAMETER_TYPE_NUMBER:
      if ((parameter->negative_is_off && number < 0) || (number == 0 && parameter->default_value == 0)) return false;
      fprintf(stream, "%s%s %g", before, name, number);
      return true;
    case TARE_PARAMETER_TYPE_INTEGER:
      fprintf(stream, "%s%s %d", before, name, whole);
      return true;
    case TARE_PARAMETER_TYPE_CHOICE:
      if (whole == (int32_t)parameter->default_value) return false;
      fprintf(stream, "%s%s %s", before, name, parameter->choices[whole]);
      return true;
    default:
      return false;
  }
}

void parameters_print(FILE *stream, const tare_loss_spec *loss) {
  const int32_t count = loss_described(loss->kind).parameters;
  bool printed = false;
  for (int32_t index = 0; index < count; index++) {
    const tare_parameter_description parameter = parameter_of(loss->kind, index);
    printed |= print_value(stream, printed ? ", " : " (", loss, &parameter);
  }
  if (printed) fputs(")", stream);
}
