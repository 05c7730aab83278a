/* SPDX-License-Identifier: Apache-2.0 */
/* A block of a tile, and its way between the caller's arrays and scratch. */

/** A rectangle of rows and classes of a tile, packed line after line: lines are classes where `by_class`, else rows. */
typedef struct block {
  int32_t first_row, rows, classes, by_class;
  int64_t first_class;
  int32_t first_positive; /* of the tile's list of rows with a class: the first that is not above first_row */
  int32_t lines, length, n;
} block;

static int64_t block_offset(const tare_tile *tile, const block *b, int name) {
  const tare_array *array = &tile->view->array[name];
  return tile->offset[name] + b->first_row * array->stride[TARE_AXES - 1] + b->first_class * array->cls;
}

static void load_block(const tare_tile *tile, const block *b, int name, int32_t dtype, real *to) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  load_lines(dtype, array->data, block_offset(tile, b, name), b->by_class ? array->cls : row,
             b->by_class ? row : array->cls, b->lines, b->length, to);
}

static void store_block(const tare_tile *tile, const block *b, int name, int32_t dtype, const real *from) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  store_lines(dtype, array->data, block_offset(tile, b, name), b->by_class ? array->cls : row,
              b->by_class ? row : array->cls, b->lines, b->length, from);
}
