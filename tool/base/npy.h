/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NumPy's .npy files, read strictly: format versions 1 to 3, little-endian, C order, the few types the tool needs.
 * Anything else is refused. The error names what was found, what is expected, and the cure.
 */
#ifndef TARE_TOOL_NPY_H
#define TARE_TOOL_NPY_H

#include <stdint.h>
#include <stdio.h>

#define NPY_MAX_DIMENSIONS 32 /* NumPy's own limit until version 2 */

/** Types, as bits so that a reader can name a set of them. bf16 has no NumPy type: its bits travel as uint16. */
enum npy_type {
  NPY_F2 = 1,
  NPY_F4 = 2,
  NPY_F8 = 4,
  NPY_U2 = 8,
  NPY_I4 = 16,
  NPY_I8 = 32,
  NPY_U1 = 64 /**< uint8, or bool */
};
enum { NPY_FLOATS = NPY_F2 | NPY_F4 | NPY_F8, NPY_INTEGERS = NPY_I4 | NPY_I8 };

struct npy {
  enum npy_type type;
  int dimensions;
  int64_t shape[NPY_MAX_DIMENSIONS];
  int64_t count; /**< elements: the product of the shape */
  void *data;    /**< count elements in C order; free() it */
};

#define NPY_ANY_DIMENSIONS (-1)

/**
 * Reads `path` ("-": standard input), an array of `dimensions` axes (or NPY_ANY_DIMENSIONS) whose type is one of
 * `types`. `role` ("--logits") begins the error line. Returns TOOL_OK, or TOOL_FAILED after complaining; then
 * array->data is NULL.
 */
int npy_read(const char *role, const char *path, unsigned types, int dimensions, struct npy *array);

/** What a file may hold. */
struct npy_wanted {
  unsigned types;
  int dimensions;
};

/** The same of an open file of `size` bytes, from where it is read next. */
int npy_read_file(const char *role, const char *path, FILE *file, int64_t size, const struct npy_wanted *wanted,
                  struct npy *array);

/** A shape as Python prints it. */
void npy_print_shape(const struct npy *array, char *text, size_t size);

/** @return the bytes of an element. */
size_t npy_size(enum npy_type type);

/** Writes a version 1 file. Returns 0, or -1 with errno set. */
int npy_write(FILE *file, enum npy_type type, int dimensions, const int64_t *shape, const void *data);

#endif
