/* SPDX-License-Identifier: Apache-2.0 */
/* The workspace of a fused head: where the parts of a chunk lie in it, and how large a chunk fits. */
#ifndef TARE_CUDA_LINEAR_ROOM_CUH
#define TARE_CUDA_LINEAR_ROOM_CUH

#include <algorithm>

#include "backend.cuh"
#include "linear.cuh"

namespace tare {

constexpr uint64_t least_blas_bytes = 64 << 10; /* below 16 KiB some products of cuBLAS fail */

/** What NVIDIA recommends for cuBLAS: with less, products whose result is small find no room to be split. */
inline uint64_t ample_blas_bytes(const backend *self) { return self->major >= 9 ? 32 << 20 : 4 << 20; }

/** Where everything lies in it, from a multiple of 256 bytes on; cuBLAS's own part comes first. */
struct room {
  int64_t rows; /* of a chunk */
  uint64_t blas_bytes, logits, narrowed, sums, apart, bytes;
};

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

inline bool wants_products(const tare_linear *linear) { return linear->features_gradient || linear->weights_gradient; }
inline bool wants_gradient(const tare_linear *linear) { return wants_products(linear) || linear->bias_gradient; }
inline bool narrows(const tare_linear *linear) { return linear->dtype != TARE_DTYPE_F32 && wants_products(linear); }

/** What is added to a caller's gradient lies apart until a scale that is not finite is applied to it alone. */
inline uint64_t apart_bytes(const tare_problem *problem, const tare_linear *linear) {
  if (!linear->accumulate || !linear->weights_gradient) return 0;
  return uint64_t(round_up(problem->batch.classes * linear->dimensions * 4, 256));
}

inline room make_room(const tare_problem *problem, const tare_linear *linear, int64_t rows, uint64_t blas_bytes) {
  const int64_t classes = problem->batch.classes;
  room r;
  r.rows = rows;
  r.blas_bytes = blas_bytes;
  r.logits = uint64_t(round_up(int64_t(blas_bytes), 256));
  r.narrowed = r.logits + uint64_t(round_up(rows * classes * 4, 256));
  r.sums = r.narrowed + (narrows(linear) ? uint64_t(round_up(rows * round_up(classes, 8) * 2, 256)) : 0);
  const int64_t sums_bytes = linear->bias_gradient ? strips_of(rows) * classes * 8 : 0;
  r.apart = r.sums + uint64_t(round_up(sums_bytes, 256));
  r.bytes = r.apart + apart_bytes(problem, linear) + 256; /* to align the caller's */
  return r;
}

inline room least_room(const tare_problem *problem, const tare_linear *linear) {
  return make_room(problem, linear, std::min(problem->rows, strip_rows), least_blas_bytes);
}

/** Logits in half of L2: the other half is for what passes by. */
inline room ample_room(const backend *self, const tare_problem *problem, const tare_linear *linear) {
  const int64_t fit = self->l2_bytes / 2 / 4 / problem->batch.classes / strip_rows * strip_rows;
  const int64_t most = (int64_t(1) << 30) / problem->batch.classes / strip_rows * strip_rows; /* elements by 32 bits */
  const int64_t rows = std::max(std::min(fit, most), strip_rows);
  return make_room(problem, linear, std::min(problem->rows, rows), ample_blas_bytes(self));
}

/** The largest that fits: a quarter for cuBLAS, or what the smallest chunk leaves, and the rest for the chunk. The same
 *  for the same bytes. */
inline room fitting_room(const backend *self, const tare_problem *problem, const tare_linear *linear, uint64_t bytes) {
  const room ample = ample_room(self, problem, linear);
  if (bytes >= ample.bytes) return ample;
  const uint64_t spare = (bytes - least_room(problem, linear).bytes) / 256 * 256;
  const uint64_t blas_bytes =
      std::min({std::max(bytes / 4 / 256 * 256, least_blas_bytes), least_blas_bytes + spare, ample.blas_bytes});
  int64_t low = 1, high = ample.rows / strip_rows; /* strips; one always fits */
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (make_room(problem, linear, middle * strip_rows, blas_bytes).bytes <= bytes)
      low = middle;
    else
      high = middle - 1;
  }
  return make_room(problem, linear, std::min(ample.rows, low * strip_rows), blas_bytes);
}

}  // namespace tare

#endif
