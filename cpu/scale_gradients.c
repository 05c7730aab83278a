/* SPDX-License-Identifier: Apache-2.0 */
/* Multiplies arrays by a number, in pieces that threads share. */
#include "core/scale_gradients.h"

#include "backend.h"
#include "half.h"
#include "threads.h"

enum { PIECE = 16384 }; /* elements */

typedef struct shared_scaling {
  const tare_scaling *scaling;
  float factor;
  int64_t first_piece[TARE_MAX_LEVELS + 1];
} shared_scaling;

/* What is 0 stays 0, whatever the factor: the gradient of what does not count, times an infinity. */
#define SCALE(type, widen, narrow)                      \
  do {                                                  \
    type *x = (type *)array + from;                     \
    for (int64_t i = 0; i < n; i++) {                   \
      const type scaled = narrow(widen(x[i]) * factor); \
      x[i] = widen(x[i]) == 0 ? x[i] : scaled;          \
    }                                                   \
  } while (0)

static void scale(int32_t dtype, void *array, int64_t from, int64_t n, float factor) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      SCALE(uint16_t, tare_from_f16, tare_to_f16);
      break;
    case TARE_DTYPE_BF16:
      SCALE(uint16_t, tare_from_bf16, tare_to_bf16);
      break;
    case TARE_DTYPE_F64:
      SCALE(double, , );
      break;
    default:
      SCALE(float, , );
  }
}

static void scale_piece(void *argument, int64_t piece, int32_t thread) {
  const shared_scaling *shared = argument;
  const tare_scaling *s = shared->scaling;
  (void)thread;
  int i = 0;
  while (shared->first_piece[i + 1] <= piece) i++;
  const int64_t from = (piece - shared->first_piece[i]) * PIECE, left = s->elements[i] - from;
  scale(s->dtype, s->array[i], from, left < PIECE ? left : PIECE, shared->factor);
}

void tare_cpu_scale_gradients(const tare_cpu *cpu, const tare_scaling *scaling) {
  shared_scaling shared = {.scaling = scaling, .factor = *scaling->factor};
  if (shared.factor == 1.0f) return;
  for (int i = 0; i < scaling->count; i++)
    shared.first_piece[i + 1] = shared.first_piece[i] + (scaling->elements[i] + PIECE - 1) / PIECE;
  tare_share(cpu->threads, shared.first_piece[scaling->count], scale_piece, &shared);
}
