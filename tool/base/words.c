/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error texts of the library, in the command line's words. The ranges in them stay the library's own.
 */
#define _GNU_SOURCE
#include "words.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "tare.h"

/* A name that is the beginning of another comes after it. */
static const struct {
  const char *library, *tool;
} words[] = {
    {"batch->selection other than TARE_SELECTION_ALL", "--hard-negatives"},
    {"batch->selection of hard rows", "--hard-rows or --hard-fraction"},
    {"batch->selection_ratio", "--hard-negatives"},
    {"batch->selection_minimum", "--least-negatives"},
    {"TARE_SELECTION_HARD_NEGATIVES, first_label", "--hard-negatives, --first-label"},
    {"batch->background_weight", "--background-weight"},
    {"batch->background_label", "--background"},
    {"background_label", "--background"},
    {"batch->ignore_label", "--ignore"},
    {"batch->first_label", "--first-label"},
    {"batch->classes", "the number of classes"},
    {"batch->dtype is TARE_DTYPE_F64 on a CUDA context", "the logits are f64"},
    {"bf16; use a CPU context for f64", "bf16; use --dtype f32, or --device cpu"},
    {"output->normalizer_value", "--normalizer"},
    {"output->normalizer_addend", "--normalizer-addend"},
    {"output->normalizer_minimum", "--normalizer-minimum"},
    {"TARE_NORMALIZER_SUM (0)", "sum"},
    {"TARE_NORMALIZER_VALUE (5)", "NUMBER"},
    {"output->normalizer", "--normalizer"},
    {"options->threads", "--threads"},
    {"options->device is TARE_DEVICE_CUDA, but this", "this"},
    {"use TARE_DEVICE_CPU", "use --device cpu"},
    {"options->device", "--device"},
    {"TARE_DEVICE_CPU", "cpu"},
    {"TARE_DEVICE_CUDA", "cuda"},
    {"linear->dimensions", "--head"},
    {"workspace has", "--workspace has"},
    {": see tare_linear_workspace_size and tare_context_set_workspace", ""},
    {": see tare_workspace_size and tare_context_set_workspace", ""},
    {"label of row", "--labels: label of row"},
    {" since the last check", ""},
    {", background ", ", --background "},
    {" or ignore ", " or --ignore "},
    {"target of row", "--targets: target of row"},
};
enum { WORDS = sizeof words / sizeof words[0] };

/* loss->focal.gamma is --gamma, as the library describes it. */
static size_t find_parameter(const char *text, const char **replacement) {
  static char option[64];
  static const char begin[] = "loss->";
  const size_t skipped = sizeof begin - 1;
  if (strncmp(text, begin, skipped) != 0) return 0;
  for (int32_t index = 0; index < tare_loss_count(); index++) {
    int32_t kind = tare_loss_kind_at(index);
    tare_parameter_description parameter = {.struct_size = sizeof parameter};
    for (int32_t which = 0; tare_loss_parameter(kind, which, &parameter) == TARE_STATUS_OK; which++) {
      size_t length = strlen(parameter.field);
      if (!*parameter.option || strncmp(text + skipped, parameter.field, length) != 0) continue;
      if (isalnum((unsigned char)text[skipped + length]) || text[skipped + length] == '_') continue;
      snprintf(option, sizeof option, "--%s", parameter.option);
      *replacement = option;
      return skipped + length;
    }
  }
  return 0;
}

static size_t find(const char *text, const char **replacement) {
  size_t found = find_parameter(text, replacement);
  if (found) return found;
  for (size_t index = 0; index < WORDS; index++) {
    size_t length = strlen(words[index].library);
    if (strncmp(text, words[index].library, length) != 0) continue;
    *replacement = words[index].tool;
    return length;
  }
  return 0;
}

const char *words_of_options(const char *text) {
  static char said[2048];
  size_t used = 0;
  while (*text && used + 1 < sizeof said) {
    const char *replacement = NULL;
    size_t length = find(text, &replacement);
    if (length) {
      used += (size_t)snprintf(said + used, sizeof said - used, "%s", replacement);
      text += length;
      if (used >= sizeof said) used = sizeof said - 1;
    } else {
      said[used++] = *text++;
    }
  }
  said[used] = 0;
  return said;
}
