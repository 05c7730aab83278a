/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error texts of the library, in the command line's words. The ranges in them stay the library's own.
 */
#define _GNU_SOURCE
#include "words.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* A name that begins another comes after it. */
static const struct {
  const char *library, *tool;
} words[] = {
    {"loss->focal.gamma", "--gamma"},
    {"loss->poly1.gamma", "--gamma"},
    {"loss->ce.alpha", "--alpha"},
    {"loss->focal.alpha", "--alpha"},
    {"loss->poly1.alpha", "--alpha"},
    {"loss->poly1.epsilon", "--poly-epsilon"},
    {"loss->ghm.bins", "--bins"},
    {"loss->ghm.density", "--density"},
    {"loss->ghm.epsilon", "--epsilon"},
    {"loss->ghm.momentum", "--momentum"},
    {"loss->ghm.mu", "--mu"},
    {"loss->ghm.variant", "--ghm-variant"},
    {"batch->background_weight", "--background-weight"},
    {"batch->background_label", "--background"},
    {"background_label", "--background"},
    {"batch->ignore_label", "--ignore"},
    {"batch->first_label", "--first-label"},
    {"batch->classes", "the number of classes"},
    {"batch->dtype is TARE_F64 on a CUDA context", "the logits are f64"},
    {"a GPU takes f32, f16, bf16", "a GPU takes f32, f16, bf16: say --dtype f32, or --device cpu"},
    {"output->normalizer_value", "--normalizer"},
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

static size_t find(const char *text, const char **replacement) {
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
