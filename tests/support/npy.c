/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 1.0 of the .npy format, little-endian, C order, one or two axes: what the real data uses.
 */
#include "npy.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "numbers.h"

#ifndef TARE_SOURCE_DIR
#define TARE_SOURCE_DIR "."
#endif

enum { PREFIX_BYTES = 10, HEADER_BYTES = 118, HEADER_LIMIT = 4096 };

void npy_real_path(char *path, size_t size, const char *name) {
  const char *folder = getenv("TARE_DATA");
  if (folder == NULL || *folder == '\0') folder = TARE_SOURCE_DIR "/../shared/data/bccd";
  snprintf(path, size, "%s/%s", folder, name);
  if (access(path, R_OK) != 0) cr_skip_test("no real data: no %s (TARE_DATA names the folder)", path);
}

npy_array npy_real(const char *name) {
  char path[4096];
  npy_real_path(path, sizeof path, name);
  return npy_read(path);
}

static size_t type_size(const char *type) { return (size_t)(type[2] - '0'); }

static void parse_header(npy_array *array, const char *header, const char *path) {
  long long shape[2] = {0, 1};
  char order[8] = "";
  const char *axes = strstr(header, "'shape': (");
  const int named = sscanf(header, "{'descr': '%3[<|a-z0-9]', 'fortran_order': %5[A-Za-z],", array->type, order);
  if (named != 2 || strcmp(order, "False") != 0 || axes == NULL) cr_assert_fail("%s: header %s", path, header);
  array->axes = sscanf(axes, "'shape': (%lld, %lld", &shape[0], &shape[1]);
  if (array->axes < 1 || shape[0] < 0 || shape[1] < 0) cr_assert_fail("%s: shape in %s", path, header);
  array->shape[0] = shape[0];
  array->shape[1] = shape[1];
  array->count = (size_t)(shape[0] * shape[1]);
}

npy_array npy_read(const char *path) {
  npy_array array = {.axes = 0};
  unsigned char prefix[PREFIX_BYTES];
  char header[HEADER_LIMIT] = "";
  FILE *file = fopen(path, "rb");
  if (file == NULL) cr_assert_fail("cannot read %s", path);
  if (fread(prefix, 1, PREFIX_BYTES, file) != PREFIX_BYTES || memcmp(prefix, "\x93NUMPY\x01\x00", 8) != 0) {
    cr_assert_fail("%s is no .npy file of version 1.0", path);
  }
  const size_t length = prefix[8] + 256u * prefix[9];
  if (length >= sizeof header || fread(header, 1, length, file) != length) cr_assert_fail("%s: header", path);
  parse_header(&array, header, path);
  const size_t bytes = array.count * type_size(array.type);
  array.data = malloc(bytes + 1);
  if (fread(array.data, 1, bytes + 1, file) != bytes) cr_assert_fail("%s: not %zu bytes of data", path, bytes);
  fclose(file);
  return array;
}

void npy_free(npy_array *array) {
  free(array->data);
  array->data = NULL;
}

double npy_number(const npy_array *array, size_t index) {
  const char *at = (const char *)array->data + index * type_size(array->type);
  if (strcmp(array->type, "<f4") == 0) return load_element(array->data, index, TARE_DTYPE_F32);
  if (strcmp(array->type, "<f8") == 0) return load_element(array->data, index, TARE_DTYPE_F64);
  if (strcmp(array->type, "<f2") == 0) return load_element(array->data, index, TARE_DTYPE_F16);
  if (strcmp(array->type, "<i4") == 0) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    return value;
  }
  if (strcmp(array->type, "<i8") != 0) cr_assert_fail("no reader for type %s", array->type);
  int64_t value;
  memcpy(&value, at, sizeof value);
  return (double)value;
}

void npy_write(const char *path, const char *header_type, bool fortran_order, int64_t rows, int64_t columns,
               const void *data, size_t bytes) {
  char header[HEADER_BYTES + 1];
  char shape[64];
  if (columns == 0) {
    snprintf(shape, sizeof shape, "(%lld,)", (long long)rows);
  } else {
    snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)rows, (long long)columns);
  }
  const int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }", header_type,
                            fortran_order ? "True" : "False", shape);
  memset(header + used, ' ', HEADER_BYTES - (size_t)used);
  header[HEADER_BYTES - 1] = '\n';
  FILE *file = fopen(path, "wb");
  if (file == NULL) cr_assert_fail("cannot write %s", path);
  const unsigned char prefix[PREFIX_BYTES] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, HEADER_BYTES, 0};
  const size_t written = fwrite(prefix, 1, PREFIX_BYTES, file) + fwrite(header, 1, HEADER_BYTES, file) +
                         (bytes > 0 ? fwrite(data, 1, bytes, file) : 0);
  if (written != PREFIX_BYTES + HEADER_BYTES + bytes || fclose(file) != 0) cr_assert_fail("cannot write %s", path);
}
