/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OHEM: which rows of the whole batch have the largest losses.
 *
 * A radix selection, most significant digit first, takes a launch for each of four digits: blocks add their counts, and
 * the last block finds the digit. Two launches more take ties in row order: one counts them by chunks of rows, the
 * other drops what is not selected. So the result is the same on every run.
 */
#include "selection.cuh"

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "losses/loss_key.h"

constexpr uint32_t digits = TARE_DIGITS;
static_assert(digits == block_threads && TARE_ROWS_OF_CHUNK == block_threads, "a digit, and a row, for each thread");
static_assert(sizeof(tare_hard_rows::counts) == digits * sizeof(uint64_t), "a count for each digit");

/** Every thread calls work(chunk, row, is_there) for the rows of its block's chunks. */
template <typename Work>
__device__ __forceinline__ void for_each_chunk(const selection_call &s, Work &&work) {
  for (int64_t chunk = blockIdx.x; chunk * block_threads < s.rows; chunk += gridDim.x) {
    const int64_t row = chunk * block_threads + int64_t(thread_rank());
    work(chunk, row, row < s.rows && s.label[row] != TARE_NOT_SELECTED);
  }
}

__device__ __forceinline__ int32_t level_of(const selection_call &s, int64_t row) {
  int32_t level = 0;
  while (level + 1 < s.levels && row >= s.of_level[level + 1].first) level++;
  return level;
}

/** By all threads of the last block. */
__device__ void settle_digit(const selection_call &s, int shift) {
  TARE_SHARED(int64_t, taken);
  tare_hard_rows &h = *s.hard;
  const uint64_t count = __ldcg(h.counts + thread_rank());
  if (shift == 32 - TARE_DIGIT_BITS) {
    const double counted = block_sum<block_threads>(double(count)); /* exact below 2^53 */
    if (thread_rank() == 0) taken = tare_rows_taken(s.count, s.fraction, counted);
  } else if (thread_rank() == 0) {
    taken = __ldcg(&h.ties);
  }
  __syncthreads();
  const last_digit last = find_last_digit(count, taken);
  if (thread_rank() == 0) {
    h.key |= last.digit << shift;
    h.ties = last.ties;
  }
  h.counts[thread_rank()] = 0;
}

/** One digit of the key of the last row taken. The first launch counts positives too. */
__global__ void __launch_bounds__(block_threads) find_digit(const TARE_GRID_CONSTANT selection_call s, int shift) {
  TARE_SHARED(uint32_t[digits], counts);
  const bool is_first = shift == 32 - TARE_DIGIT_BITS;
  const uint32_t prefix = __ldcg(&s.hard->key);
  counts[thread_rank()] = 0;
  __syncthreads();
  for_each_chunk(s, [&](int64_t, int64_t row, bool is_ranked) {
    if (!is_ranked) return;
    const uint32_t key = tare_key_of_loss(s.loss[row]);
    if (tare_key_has_prefix(key, prefix, shift)) atomic_add(&counts[(key >> shift) % digits], uint32_t(1));
    if (is_first && s.label[row] >= 0 && s.label[row] != s.background)
      atomic_add(&s.hard->all_positives[level_of(s, row)], uint64_t(1));
  });
  __syncthreads();
  if (counts[thread_rank()]) atomic_add(&s.hard->counts[thread_rank()], uint64_t(counts[thread_rank()]));
  if (last_block(&s.hard->ticket)) settle_digit(s, shift);
}

__device__ __forceinline__ bool is_tie(const selection_call &s, int64_t row, bool is_ranked) {
  return is_ranked && tare_key_of_loss(s.loss[row]) == s.hard->key;
}

__global__ void __launch_bounds__(block_threads) count_ties(const TARE_GRID_CONSTANT selection_call s) {
  for_each_chunk(s, [&](int64_t chunk, int64_t row, bool is_ranked) {
    const uint32_t ties = block_sum<block_threads>(uint32_t(is_tie(s, row, is_ranked)));
    if (thread_rank() == 0) s.ties[chunk] = ties;
  });
}

/** Ties of the chunks before, up to `enough`. */
__device__ int64_t ties_before(const selection_call &s, int64_t chunk, int64_t enough) {
  TARE_SHARED(int64_t, found);
  double mine = 0; /* exact below 2^53 */
  for (int64_t at = thread_rank(); at < chunk; at += block_threads) mine += double(s.ties[at]);
  const double sum = block_sum<block_threads>(mine);
  if (thread_rank() == 0) found = sum < double(enough) ? int64_t(sum) : enough;
  __syncthreads();
  const int64_t result = found;
  __syncthreads();
  return result;
}

__global__ void __launch_bounds__(block_threads) drop_rows(const TARE_GRID_CONSTANT selection_call s) {
  const uint32_t lowest = s.hard->key;
  const int64_t ties = s.hard->ties;
  for_each_chunk(s, [&](int64_t chunk, int64_t row, bool is_ranked) {
    const bool tie = is_tie(s, row, is_ranked);
    uint32_t in_chunk;
    const int64_t in_block = rank_among(tie, &in_chunk);
    const int64_t before = in_chunk ? ties_before(s, chunk, ties) + in_block : 0;
    const uint32_t key = is_ranked ? tare_key_of_loss(s.loss[row]) : 0u;
    if (is_ranked && (key < lowest || (tie && before >= ties))) s.label[row] = TARE_NOT_SELECTED;
  });
}

}  // namespace

cudaError_t launch_select_hard_rows(const selection_call &s, const launch_site &site) {
  const int64_t chunks = (s.rows + block_threads - 1) / block_threads;
  cudaError_t status = cudaMemsetAsync(s.hard, 0, sizeof *s.hard, site.stream);
  for (int shift = 32 - TARE_DIGIT_BITS; shift >= 0 && status == cudaSuccess; shift -= TARE_DIGIT_BITS)
    status = launch(find_digit, chunks, site, s, shift);
  if (status == cudaSuccess) status = launch(count_ties, chunks, site, s);
  return status == cudaSuccess ? launch(drop_rows, chunks, site, s) : status;
}

cudaError_t load_hard_rows() { return load_kernels(find_digit, count_ties, drop_rows); }

}  // namespace tare
