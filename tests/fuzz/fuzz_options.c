/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command line of `tare eval` gives options within their ranges, or one line. Its words stand between zero bytes.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "tool.h"
#include "tool/base/problem.h"
#include "tool/options.h"

enum { MOST_WORDS = 24, MOST_TEXT = 2048 };

/* Words that print and end the process: --help, --usage, --version, however they are cut short; and -\xff, whose
 * character glibc's argp takes for the end of the words and then for a question mark. */
static bool is_cut(const char *word, const char *whole) { return *word && strncmp(whole, word, strlen(word)) == 0; }

static bool ends_the_process(const char *word) {
  if (word[0] == '-' && word[1] == '-')
    return is_cut(word + 2, "help") || is_cut(word + 2, "usage") || is_cut(word + 2, "version");
  return word[0] == '-' && strpbrk(word, "h?V\xff") != NULL;
}

static int split(char *text, size_t size, char **words) {
  int count = 0;
  words[count++] = (char *)"tare eval";
  for (size_t at = 0; at < size && count < MOST_WORDS; at += strlen(text + at) + 1) {
    if (!ends_the_process(text + at)) words[count++] = text + at;
  }
  words[count] = NULL;
  return count;
}

static void check_ranges(const struct eval_options *options) {
  EXPECT(tare_loss_name(options->loss.kind) != NULL, "kind %d", (int)options->loss.kind);
  EXPECT(options->logits != NULL && (options->labels != NULL || options->targets != NULL), "no files");
  EXPECT(options->threads >= 0 && options->threads <= 1024, "threads %d", (int)options->threads);
  EXPECT(options->dtype >= -1 && options->dtype <= TARE_DTYPE_F64, "dtype %d", (int)options->dtype);
  EXPECT(options->device >= TARE_DEVICE_AUTO && options->device <= TARE_DEVICE_CUDA, "device %d", (int)options->device);
  EXPECT(options->normalizer >= TARE_NORMALIZER_SUM && options->normalizer <= TARE_NORMALIZER_ONES, "%d",
         (int)options->normalizer);
  EXPECT(isfinite(options->normalizer_value) && isfinite(options->background_weight) && isfinite(options->beta), "NaN");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char text[MOST_TEXT + 1];
  char *words[MOST_WORDS + 1];
  struct eval_options options;
  if (size > MOST_TEXT) size = MOST_TEXT;
  memcpy(text, data, size);
  text[size] = '\0';
  const int count = split(text, size, words);
  lines_said = 0;
  const int status = eval_options_read(&options, count, words);
  fuzz_count(status == TOOL_OK);
  if (status == TOOL_OK) {
    EXPECT(lines_said == 0, "%d lines", lines_said);
    check_ranges(&options);
  } else { /* of an unknown option getopt says the line itself */
    EXPECT(status == TOOL_MISUSED && lines_said <= 1, "status %d, lines %d", status, lines_said);
  }
  return 0;
}
