/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts per class: .npy files, and the weights that counts give. counts_csv.c reads the other kind of file.
 */
#define _GNU_SOURCE
#include "counts.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infile.h"
#include "npy.h"
#include "problem.h"
#include "tare.h"

static const char *const role = "--class-counts";

/* Both arrays grow at powers of 2, so that no capacity has to be kept. */
static int grow(const char *path, struct counts *counts) {
  size_t size = (size_t)counts->classes;
  if (size & (size - 1)) return TOOL_OK;
  size_t larger = size ? 2 * size : 1;
  double *real = reallocarray(counts->real, larger, sizeof *real);
  if (real) counts->real = real;
  bool whole_too = counts->whole || size == 0;
  int64_t *whole = whole_too ? reallocarray(counts->whole, larger, sizeof *whole) : NULL;
  if (whole) counts->whole = whole;
  return real && (whole || !whole_too) ? TOOL_OK : complain("%s %s: out of memory", role, path);
}

int counts_append(const char *path, struct counts *counts, double value, bool whole, int64_t exact) {
  int status = grow(path, counts);
  if (status != TOOL_OK) return status;
  counts->real[counts->classes] = value;
  if (whole && counts->whole) {
    counts->whole[counts->classes] = exact;
  } else {
    free(counts->whole);
    counts->whole = NULL;
  }
  counts->classes++;
  return TOOL_OK;
}

static int take_element(const char *path, const struct npy *array, int64_t index, struct counts *counts) {
  bool whole = array->type == NPY_I4 || array->type == NPY_I8;
  int64_t exact = 0;
  double value = 0;
  if (array->type == NPY_I4) exact = ((int32_t *)array->data)[index];
  if (array->type == NPY_I8) exact = ((int64_t *)array->data)[index];
  if (array->type == NPY_F4) value = (double)((float *)array->data)[index];
  if (array->type == NPY_F8) value = ((double *)array->data)[index];
  if (whole) value = (double)exact;
  if (isfinite(value) && value >= 0) return counts_append(path, counts, value, whole, exact);
  return complain("%s %s: class %" PRId64 ": found %.17g, expected a finite count, 0 or more", role, path, index,
                  value);
}

static int read_npy(const char *path, FILE *file, int64_t size, struct counts *counts) {
  const struct npy_wanted wanted = {.types = NPY_INTEGERS | NPY_F4 | NPY_F8, .dimensions = 1};
  struct npy array;
  int status = npy_read_file(role, path, file, size, &wanted, &array);
  for (int64_t index = 0; status == TOOL_OK && index < array.count; index++) {
    status = take_element(path, &array, index, counts);
  }
  free(array.data);
  return status;
}

/* The library checks this too, but its text cannot name the file. */
static int check_some(const char *path, const struct counts *counts) {
  if (counts->classes == 0) {
    return complain("%s %s: holds no counts; expected one for each class", role, path);
  }
  for (int64_t class = 0; class < counts->classes; class ++) {
    if (counts->real[class] > 0) return TOOL_OK;
  }
  return complain("%s %s: every count is 0; at least one class must have samples", role, path);
}

/* By its name, or by its first byte, since a pipe has no name. No text begins with that byte. */
static bool is_npy(const char *path, FILE *file) {
  size_t length = strlen(path);
  int first = getc(file);
  if (first != EOF) ungetc(first, file);
  return first == 0x93 || (length >= 4 && strcmp(path + length - 4, ".npy") == 0);
}

int counts_read(const char *path, struct counts *counts) {
  *counts = (struct counts){0};
  int64_t size;
  FILE *file = infile_open(role, path, "a .npy or .csv file", &size);
  if (!file) return TOOL_FAILED;
  int status = is_npy(path, file) ? read_npy(path, file, size, counts) : counts_read_csv(path, file, counts);
  fclose(file);
  if (status == TOOL_OK) status = check_some(path, counts);
  if (status != TOOL_OK) counts_free(counts);
  return status;
}

void counts_free(struct counts *counts) {
  free(counts->real);
  free(counts->whole);
  *counts = (struct counts){0};
}

int counts_weigh(const char *path, const struct counts *counts, double beta, float *weights) {
  tare_status status = counts->whole
                           ? tare_class_balanced_weights(counts->classes, counts->whole, beta, NULL, weights)
                           : tare_class_balanced_weights_real(counts->classes, counts->real, beta, NULL, weights);
  return status == TARE_STATUS_OK ? TOOL_OK : complain("%s %s: %s", role, path, tare_error_text(NULL));
}
