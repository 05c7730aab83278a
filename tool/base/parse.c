/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option values. Names of losses come from the library, so that a new loss needs nothing here.
 */
#define _GNU_SOURCE
#include "parse.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nearest.h"
#include "problem.h"
#include "tare.h"

const struct choice device_choices[] = {
    {"auto", TARE_DEVICE_AUTO}, {"cpu", TARE_DEVICE_CPU}, {"cuda", TARE_DEVICE_CUDA}, {NULL, 0}};
const struct choice dtype_choices[] = {
    {"f32", TARE_DTYPE_F32}, {"f16", TARE_DTYPE_F16}, {"bf16", TARE_DTYPE_BF16}, {"f64", TARE_DTYPE_F64}, {NULL, 0}};

static const char *skip_digits(const char *text, bool *any, bool *nonzero) {
  for (; isdigit((unsigned char)*text); text++) {
    *any = true;
    *nonzero = *nonzero || *text != '0';
  }
  return text;
}

enum number text_number(const char *text, double *value) {
  bool digits = false, nonzero = false, exponent = false, ignored = false;
  const char *at = text + (*text == '+' || *text == '-');
  at = skip_digits(at, &digits, &nonzero);
  if (*at == '.') at = skip_digits(at + 1, &digits, &nonzero);
  if (!digits) return NUMBER_NONE;
  if (*at == 'e' || *at == 'E') {
    at += 1 + (at[1] == '+' || at[1] == '-');
    at = skip_digits(at, &exponent, &ignored);
    if (!exponent) return NUMBER_NONE;
  }
  if (*at) return NUMBER_NONE;
  *value = strtod(text, NULL);
  if (!isfinite(*value)) return NUMBER_HUGE;
  return *value == 0 && nonzero ? NUMBER_TINY : NUMBER_FINE;
}

bool text_to_double(const char *text, double *value) { return text_number(text, value) == NUMBER_FINE; }

bool text_to_int64(const char *text, int64_t *value) {
  char *end;
  if (*text == 0 || isspace((unsigned char)*text)) return false;
  errno = 0;
  *value = strtoll(text, &end, 10);
  return *end == 0 && errno == 0;
}

int parse_double(const char *option, const char *text, double *value) {
  static const char *const why[] = {[NUMBER_NONE] = "not a finite decimal number",
                                    [NUMBER_HUGE] = "too large for a double",
                                    [NUMBER_TINY] = "too small for a double; write 0"};
  enum number found = text_number(text, value);
  return found == NUMBER_FINE ? TOOL_OK : misuse("%s '%s': %s", option, text, why[found]);
}

int parse_beta(const char *text, double *value) {
  int status = parse_double("--beta", text, value);
  if (status != TOOL_OK || (*value >= 0 && *value < 1)) return status;
  return misuse("--beta '%s': %s; it must be in [0,1)", text, *value < 0 ? "less than 0" : "1 or more");
}

/* A whole number may be too large for 64 bits. */
static bool is_whole(const char *text) {
  text += *text == '+' || *text == '-';
  return *text && text[strspn(text, "0123456789")] == 0;
}

int parse_int64(const char *option, const char *text, int64_t low, int64_t high, int64_t *value) {
  bool fits = text_to_int64(text, value);
  if (!fits && !is_whole(text)) return misuse("%s '%s': not a whole number", option, text);
  if (fits && *value >= low && *value <= high) return TOOL_OK;
  return misuse("%s %s: expected a whole number from %" PRId64 " to %" PRId64, option, text, low, high);
}

int parse_int32(const char *option, const char *text, int32_t low, int32_t high, int32_t *value) {
  int64_t wide = 0;
  int status = parse_int64(option, text, low, high, &wide);
  if (status == TOOL_OK) *value = (int32_t)wide;
  return status;
}

int parse_choice(const char *option, const char *text, const struct choice *choices, int32_t *value) {
  char names[256] = "";
  struct nearest nearest = {.word = text};
  for (const struct choice *choice = choices; choice->name; choice++) {
    nearest_consider(&nearest, choice->name);
    if (strcmp(text, choice->name) == 0) {
      *value = choice->value;
      return TOOL_OK;
    }
    size_t used = strlen(names);
    snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", choice->name);
  }
  return misuse("%s %s: expected one of %s%s", option, text, names, nearest_hint(&nearest, ""));
}

/* A dot in front hides a file. */
static const char *extension_of(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  return *name ? strrchr(name + 1, '.') : NULL;
}

int parse_output(const char *option, const char *text, const char *extension, const char **path) {
  const char *dot = extension_of(text);
  *path = text;
  if (!dot || strcasecmp(dot, extension) == 0) return TOOL_OK;
  return misuse("%s '%s': only %s can be written; name a file that ends in %s", option, text, extension, extension);
}

int parse_picture(const char *text, const char **path) {
  static const char *const known[] = {".svg", ".png", ".pdf"};
  const char *dot = extension_of(text);
  *path = text;
  for (size_t index = 0; dot && index < sizeof known / sizeof known[0]; index++)
    if (strcasecmp(dot, known[index]) == 0) return TOOL_OK;
  return misuse("--plot '%s': a picture is .svg, .png or .pdf; name a file that ends in one of these", text);
}

char *all_loss_names(const char *separator) {
  char *names = NULL;
  size_t length;
  FILE *stream = open_memstream(&names, &length);
  for (int32_t index = 0; stream && index < tare_loss_count(); index++)
    fprintf(stream, "%s%s", index ? separator : "", tare_loss_name(tare_loss_kind_at(index)));
  if (!stream || fclose(stream) == 0) return names;
  free(names);
  return NULL;
}

int parse_loss(const char *text, int32_t *kind) {
  *kind = tare_loss_kind_from_name(text);
  if (*kind >= 0) return TOOL_OK;
  struct nearest nearest = {.word = text};
  for (int32_t index = 0; index < tare_loss_count(); index++)
    nearest_consider(&nearest, tare_loss_name(tare_loss_kind_at(index)));
  char *names = all_loss_names(", ");
  const int status = misuse("--loss %s: expected one of %s%s", text, names ? names : "the losses that tare info lists",
                            nearest_hint(&nearest, ""));
  free(names);
  return status;
}

/* argp would print a second line ("Try ... --help") and exit with its own status. Without an error stream it does
 * neither. getopt's line about an unknown option remains. */
struct wrapped {
  void *input;
  const struct argp *argp;
  const char *const *repeatable; /* ended by NULL; or NULL: none */
  uint64_t seen;                 /* which of argp's options, by their place */
};

/* In place of argp's own, among which is a hidden --HANG that sleeps for an hour. */
enum { USAGE = 1 };
static const struct argp_option of_help[] = {{"help", 'h', 0, 0, "Print this help", -1},
                                             {NULL, '?', 0, OPTION_ALIAS | OPTION_HIDDEN, NULL, 0},
                                             {"usage", USAGE, 0, 0, "Print a short usage message", -1},
                                             {"version", 'V', 0, 0, "Print the program's version", -1},
                                             {0, 0, 0, 0, 0, 0}};

static error_t wrap(int key, char *argument, struct argp_state *state) {
  struct wrapped *wrapped = state->input;
  if (key == 'h' || key == '?') argp_state_help(state, stdout, ARGP_HELP_STD_HELP); /* ends the program */
  if (key == 'V') {
    argp_program_version_hook(stdout, state);
    exit(0);
  }
  if (key == USAGE) argp_state_help(state, stdout, ARGP_HELP_USAGE | ARGP_HELP_EXIT_OK);
  if (key == ARGP_KEY_INIT) {
    state->err_stream = NULL;
    state->child_inputs[0] = wrapped;
    return 0;
  }
  if (key != ARGP_KEY_ARG) return ARGP_ERR_UNKNOWN;
  misuse("unexpected argument '%s'", argument);
  return EINVAL;
}

/* An option with a value that is given twice: one of the two would have no effect. */
static bool is_repeated(struct wrapped *wrapped, int key) {
  const struct argp_option *option = wrapped->argp->options;
  for (int place = 0; place < 64 && (option->name || option->doc); place++, option++) {
    if (!option->name || option->key != key || !option->arg) continue;
    for (const char *const *name = wrapped->repeatable; name && *name; name++)
      if (strcmp(option->name, *name) == 0) return false;
    if (wrapped->seen >> place & 1) {
      misuse("--%s is given twice", option->name);
      return true;
    }
    wrapped->seen |= UINT64_C(1) << place;
  }
  return false;
}

static error_t once(int key, char *argument, struct argp_state *state) {
  struct wrapped *wrapped = state->input;
  if (is_repeated(wrapped, key)) return EINVAL;
  state->input = wrapped->input;
  error_t found = wrapped->argp->parser(key, argument, state);
  state->input = wrapped;
  return found;
}

/* getopt takes the beginning of a name where only one option has it; of several that have it it says so itself. */
static const struct argp_option *option_of(const struct argp *argp, const char *name, size_t length) {
  const struct argp_option *const lists[] = {argp->options, of_help};
  for (size_t list = 0; list < 2; list++) {
    for (const struct argp_option *option = lists[list]; option->name || option->doc || option->key; option++)
      if (option->name && strncmp(option->name, name, length) == 0) return option;
  }
  return NULL;
}

/* Options that do not exist are refused here: getopt's own line has no hint. */
static int check_names(const struct argp *argp, int argc, char **argv) {
  for (int index = 1; index < argc; index++) {
    if (strncmp(argv[index], "--", 2) != 0) continue;
    if (argv[index][2] == 0) return TOOL_OK;
    char name[64];
    snprintf(name, sizeof name, "%s", argv[index] + 2);
    name[strcspn(name, "=")] = 0;
    const struct argp_option *found = option_of(argp, name, strlen(name));
    if (found && found->arg && !strchr(argv[index], '=')) index++; /* the next one is its value */
    if (found) continue;
    struct nearest nearest = {.word = name};
    for (const struct argp_option *option = argp->options; option->name || option->doc || option->key; option++)
      if (option->name) nearest_consider(&nearest, option->name);
    return misuse("unrecognized option '--%s'%s", name, nearest_hint(&nearest, "--"));
  }
  return TOOL_OK;
}

int parse_arguments(const struct argp *argp, const char *const *repeatable, int argc, char **argv, void *input) {
  argp_err_exit_status = TOOL_MISUSED;
  if (check_names(argp, argc, argv) != TOOL_OK) return TOOL_MISUSED;
  struct argp inner = *argp;
  inner.parser = once;
  struct argp_child children[] = {{&inner, 0, NULL, 0}, {NULL, 0, NULL, 0}};
  struct argp outer = {
      .options = of_help, .parser = wrap, .children = children}; /* the child's texts appear as its own */
  struct wrapped wrapped = {.input = input, .argp = argp, .repeatable = repeatable};
  error_t found = argp_parse(&outer, argc, argv, ARGP_NO_HELP, NULL, &wrapped);
  if (found == ENOMEM) return complain("out of memory");
  return found == 0 ? TOOL_OK : TOOL_MISUSED;
}
