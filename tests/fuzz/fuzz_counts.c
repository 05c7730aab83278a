/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A .csv of counts is read line by line, every count as the number it is, or refused in one line.
 */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuzz.h"
#include "tool.h"
#include "tool/base/counts.h"
#include "tool/base/problem.h"

static int64_t lines_of(const uint8_t *data, size_t size) {
  int64_t lines = 1;
  for (size_t i = 0; i < size; i++) lines += data[i] == '\n' || data[i] == '\r';
  return lines;
}

static void check_weights(const char *path, const struct counts *counts) {
  float *weights = calloc((size_t)counts->classes, sizeof *weights);
  lines_said = 0;
  const int status = counts_weigh(path, counts, 0.999, weights);
  EXPECT(lines_said == (status != TOOL_OK), "status %d, lines %d", status, lines_said);
  for (int64_t c = 0; c < counts->classes && status == TOOL_OK; c++) {
    EXPECT(isfinite(weights[c]) && weights[c] >= 0, "weight %g of count %g", (double)weights[c], counts->real[c]);
  }
  free(weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  struct counts counts;
  const int file = memory_file(data, size, path);
  lines_said = 0;
  const int status = counts_read(path, &counts);
  fuzz_count(status == TOOL_OK);
  EXPECT(lines_said == (status != TOOL_OK), "status %d, lines %d", status, lines_said);
  if (status == TOOL_OK) {
    EXPECT(counts.classes >= 1 && counts.classes <= lines_of(data, size), "%lld classes", (long long)counts.classes);
    for (int64_t c = 0; c < counts.classes; c++) {
      EXPECT(isfinite(counts.real[c]) && counts.real[c] >= 0, "count %g", counts.real[c]);
      EXPECT(counts.whole == NULL || (counts.whole[c] >= 0 && (double)counts.whole[c] == counts.real[c]), "%lld is %g",
             (long long)counts.whole[c], counts.real[c]);
    }
    check_weights(path, &counts);
    counts_free(&counts);
  }
  close(file);
  return 0;
}
