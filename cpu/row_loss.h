/* SPDX-License-Identifier: Apache-2.0 */
/* Row losses of a tile, which are formed in double. */

/** Writes them, where they are wanted: as doubles where the logits are, else as floats. */
static void store_row_loss(const tare_problem *problem, const tare_tile *tile, const double *restrict row_loss) {
  const tare_array *array = &tile->view->array[TARE_ARRAY_ROW_LOSS];
  const int64_t stride = array->stride[TARE_AXES - 1], offset = tile->offset[TARE_ARRAY_ROW_LOSS];
  if (!array->data) return;
  if (problem->batch.dtype == TARE_DTYPE_F64) {
    double *restrict to = (double *)array->data + offset;
    for (int32_t i = 0; i < tile->rows; i++) to[i * stride] = row_loss[i];
    return;
  }
  float *restrict to = (float *)array->data + offset;
  if (stride == 1)
    for (int32_t i = 0; i < tile->rows; i++) to[i] = (float)row_loss[i];
  else
    for (int32_t i = 0; i < tile->rows; i++) to[i * stride] = (float)row_loss[i];
}
