/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes that the mask of a row's image leaves out. The rows of a tile are nearly always of one image. Then the mask
 * is a factor of the classes' weights, which a tile has anyway. Otherwise it is read for each element.
 */

/** The mask's byte for a row of a tile and class 0; NULL without a mask. */
TARE_INLINE const uint8_t *mask_of_row(const tare_tile *tile, int64_t row) {
  const tare_array *mask = &tile->view->array[TARE_ARRAY_CLASS_MASK];
  if (!mask->data) return NULL;
  return (const uint8_t *)mask->data + tile->offset[TARE_ARRAY_CLASS_MASK] + row * mask->stride[TARE_AXES - 1];
}

TARE_INLINE int has_mask(const tare_tile *tile) { return tile->view->array[TARE_ARRAY_CLASS_MASK].data != NULL; }

/** Whether all rows of a tile have the same mask. */
TARE_INLINE int has_one_mask(const tare_tile *tile) {
  return tile->rows == 1 || tile->view->array[TARE_ARRAY_CLASS_MASK].stride[TARE_AXES - 1] == 0;
}

TARE_INLINE int is_masked(const tare_tile *tile, int64_t row, int64_t cls) {
  const uint8_t *mask = mask_of_row(tile, row);
  return mask && !mask[cls * tile->view->array[TARE_ARRAY_CLASS_MASK].cls];
}

/** The same, apart from the code of calls without a mask. */
static __attribute__((noinline)) int is_left_out(const tare_tile *tile, int64_t row, int64_t cls) {
  return is_masked(tile, row, cls);
}

/** Whether the mask can be a factor: it is the same for all rows of a tile, and none of their weights makes it NaN. */
static __attribute__((noinline)) int is_factor(const tare_tile *tile, const real *row_weight) {
  int is_finite = has_one_mask(tile);
  for (int32_t i = 0; is_finite && i < tile->rows; i++) is_finite = isfinite(row_weight[i]) != 0;
  return is_finite;
}

/** Takes the weights of the masked ones of n classes away. */
static __attribute__((noinline)) void mask_classes(const tare_tile *tile, int64_t first, int32_t n,
                                                   real *restrict weight) {
  const int64_t step = tile->view->array[TARE_ARRAY_CLASS_MASK].cls;
  const uint8_t *counts = mask_of_row(tile, 0) + first * step;
  for (int32_t c = 0; c < n; c++) weight[c] = counts[c * step] ? weight[c] : (real)0;
}

/** How many classes of a row count. */
static __attribute__((noinline)) int64_t unmasked_classes(const tare_tile *tile, int64_t row, int64_t classes) {
  const uint8_t *mask = mask_of_row(tile, row);
  const int64_t step = tile->view->array[TARE_ARRAY_CLASS_MASK].cls;
  int64_t count = 0;
  for (int64_t c = 0; c < classes; c++) count += mask[c * step] != 0;
  return count;
}

/** Elements of a tile's rows with counts[i] != 0. */
static __attribute__((noinline)) int64_t unmasked_elements(const tare_tile *tile, int64_t classes, const real *counts) {
  int64_t elements = 0, of_row = -1;
  for (int32_t i = 0; i < tile->rows; i++) {
    if (counts[i] == 0) continue;
    if (of_row < 0 || !has_one_mask(tile)) of_row = unmasked_classes(tile, i, classes);
    elements += of_row;
  }
  return elements;
}
