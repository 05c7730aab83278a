/* SPDX-License-Identifier: Apache-2.0 */
/* Sets the flags of a gradient and a loss that are not finite. A gradient is looked at as it was written: its exponent
 * has all bits set. */
#include <math.h>
#include <stdatomic.h>

#include "backend.h"
#include "core/flags.h"
#include "threads.h"

#define ANY_OF(type, exponent)                                                         \
  do {                                                                                 \
    const type *x = (const type *)data + offset;                                       \
    for (int64_t i = 0; i < n; i++) any |= (x[i * stride] & (exponent)) == (exponent); \
  } while (0)

/** Whether one of n elements is infinite or NaN. */
static int any_nonfinite(int32_t dtype, const void *data, int64_t offset, int64_t stride, int64_t n) {
  int any = 0;
  switch (dtype) {
    case TARE_DTYPE_F16:
      ANY_OF(uint16_t, 0x7c00u);
      break;
    case TARE_DTYPE_BF16:
      ANY_OF(uint16_t, 0x7f80u);
      break;
    case TARE_DTYPE_F64:
      ANY_OF(uint64_t, UINT64_C(0x7ff0000000000000));
      break;
    default:
      ANY_OF(uint32_t, 0x7f800000u);
  }
  return any;
}

typedef struct gradient_search {
  const tare_tiling *tiling;
  const tare_problem *problem;
  atomic_int found;
} gradient_search;

static void search_tile(void *argument, int64_t number, int32_t thread) {
  gradient_search *search = argument;
  tare_tile tile;
  (void)thread;
  tare_tile_at(search->tiling, search->problem, number, &tile);
  const tare_array *gradient = &tile.view->array[TARE_ARRAY_GRADIENT];
  const int64_t classes = search->problem->batch.classes, row = gradient->stride[TARE_AXES - 1];
  const int by_class = tare_view_by_class(tile.view, classes);
  const int64_t lines = by_class ? classes : tile.rows, step = by_class ? gradient->cls : row;
  int any = 0;
  for (int64_t line = 0; gradient->data && !any && line < lines; line++)
    any = any_nonfinite(search->problem->batch.dtype, gradient->data, tile.offset[TARE_ARRAY_GRADIENT] + line * step,
                        by_class ? row : gradient->cls, by_class ? tile.rows : classes);
  if (any) atomic_store_explicit(&search->found, 1, memory_order_relaxed);
}

void tare_cpu_set_flags(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, double loss) {
  const tare_output *output = &problem->output;
  const double written = output->loss_dtype == TARE_DTYPE_F64 ? loss : (double)(float)loss;
  if (output->nonfinite_loss && !isfinite(written)) *output->nonfinite_loss = 1;
  if (!output->nonfinite_gradient) return;
  gradient_search search = {.tiling = tiling, .problem = problem};
  tare_share(cpu->threads, tiling->tiles, search_tile, &search);
  if (atomic_load(&search.found)) *output->nonfinite_gradient = 1;
}
