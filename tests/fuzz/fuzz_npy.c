/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A .npy file is read whole or refused in one line; what was read is written and read again, the same.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "tool.h"
#include "tool/base/npy.h"
#include "tool/base/problem.h"

static size_t size_of(enum npy_type type) {
  return type == NPY_F8 || type == NPY_I8 ? 8 : type == NPY_F4 || type == NPY_I4 ? 4 : 2;
}

static void expect_same_again(const struct npy *array, const char *role) {
  const size_t bytes = (size_t)array->count * size_of(array->type);
  char *text = NULL, path[64];
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  EXPECT(npy_write(stream, array->type, array->dimensions, array->shape, array->data) == 0, "not written");
  fclose(stream);
  const int file = memory_file(text, size, path);
  free(text);
  struct npy again;
  lines_said = 0;
  EXPECT(npy_read(role, path, array->type, array->dimensions, &again) == TOOL_OK, "what was written is refused");
  EXPECT(lines_said == 0 && again.type == array->type && again.count == array->count, "another array");
  EXPECT(bytes == 0 || memcmp(again.data, array->data, bytes) == 0, "other numbers");
  free(again.data);
  close(file);
}

static void check(const char *path, unsigned types, int dimensions) {
  struct npy array;
  lines_said = 0;
  const int status = npy_read("--logits", path, types, dimensions, &array);
  fuzz_count(status == TOOL_OK);
  if (status != TOOL_OK) {
    EXPECT(status == TOOL_FAILED && lines_said == 1 && array.data == NULL, "status %d, lines %d", status, lines_said);
    return;
  }
  int64_t count = 1;
  for (int axis = 0; axis < array.dimensions; axis++) count *= array.shape[axis];
  EXPECT(lines_said == 0 && array.dimensions == dimensions && count == array.count, "%d lines", lines_said);
  EXPECT((types & (unsigned)array.type) != 0, "type %d", (int)array.type);
  expect_same_again(&array, "--logits");
  free(array.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  const int file = memory_file(data, size, path);
  check(path, NPY_FLOATS, 2);
  check(path, NPY_INTEGERS, 1);
  check(path, NPY_U2 | NPY_F4, 1);
  close(file);
  return 0;
}
