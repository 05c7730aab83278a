/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NumPy's .npy files for tests: a strict reader of the real data, and a writer for the tool's inputs.
 */
#ifndef TARE_TESTS_NPY_H
#define TARE_TESTS_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A little-endian array in C order; `type` is NumPy's: "<f4", "<f8", "<f2", "<i4", "<i8". */
typedef struct npy_array {
  char type[8];
  int64_t shape[2]; /* a missing second axis counts as 1 */
  int axes;
  size_t count;
  void *data;
} npy_array;

/** Reads a file, or skips the test, naming the folder, where the real data is missing; a file that is there and wrong
 *  fails the test. `name` is a file of the real data's folder (TARE_DATA, else ../shared/data/bccd beside the
 *  sources). */
npy_array npy_real(const char *name);

/** The path of a file of the real data's folder, in a buffer of the caller; skips the test where it is missing. */
void npy_real_path(char *path, size_t size, const char *name);

/** Reads a file; fails the test if it cannot. */
npy_array npy_read(const char *path);

void npy_free(npy_array *array);

/** Element `index` as a number. */
double npy_number(const npy_array *array, size_t index);

/** Writes a file with `header_type` in its header; fails the test if it cannot. `columns` 0 writes one axis. */
void npy_write(const char *path, const char *header_type, bool fortran_order, int64_t rows, int64_t columns,
               const void *data, size_t bytes);

#endif
