/* SPDX-License-Identifier: Apache-2.0 */
/* GHM-C counts gradient norms, or collects their keys, by the walks of the sigmoid family with nothing to write. */
#ifndef TARE_CUDA_GHM_C_COUNT_CUH
#define TARE_CUDA_GHM_C_COUNT_CUH

#include "ghm.cuh"
#include "sigmoid.cuh"

namespace tare {
namespace sigmoid {

/** g of a target between 0 and 1, which decides the bin; rounded the same in both passes. */
__device__ __forceinline__ float soft_norm(float p, float target) { return fabsf(__fsub_rn(p, target)); }

/** Its key for the exact density: the signed logit that has this g, to the precision of a float. */
__device__ __forceinline__ double key_of_norm(float norm) {
  if (norm < FLT_MIN) return double(-INFINITY);
  if (norm >= 1.0f) return double(INFINITY);
  const exact::log_parts g = exact::log_positive(norm), rest = exact::log_positive(1.0f - norm);
  return (double(g.hi) - double(rest.hi)) + (double(g.lo) - double(rest.lo));
}

/** The bins of such a g, in the call's own memory. */
__device__ __forceinline__ ghm_bins norm_bins(const ghm_call &c) { return {c.ghm.bins, c.ghm_c.norm[1], c.ghm_c.norm}; }

struct counter {
  ghm_bins bins;
  ghm_histogram histogram;
};

/** All threads call it. It ends with a barrier. */
__device__ __forceinline__ counter make_counter(const ghm_call &c) {
  counter n;
  n.bins = make_bins(c);
  n.histogram = make_histogram(c);
  __syncthreads();
  return n;
}

/** A key beyond the first bin. The norm is only a guess, which the bin's own ends put right. */
__device__ __forceinline__ void count_key(counter &n, float key) {
  n.histogram.add(bin_of(n.bins, key, rcp_approx(1.0f + exp2_approx(key * -0x1.715476p+0f))));
}

/** Counts or collects one element. Many parameters: an element is named by level, tile, row and class. */
__device__ __forceinline__ void count_element(const ghm_call &c, const level &l, const tile &t, counter &n, row_role r,
                                              int32_t row, int64_t cls, float x) {
  const bool collects = c.pass == ghm_pass::collect;
  if (r.weight == 0.0f && !collects) return;
  bool hit = cls == r.cls;
  if (c.soft) {
    const float target = target_at(c, l, t, row, cls);
    hit = target == 1.0f;
    if (!hit && target != 0.0f) {
      const float norm = soft_norm(exact::terms_of(x).p, target);
      if (collects)
        collect_key(c, l, t, row, cls, r.weight != 0.0f, key_of_norm(norm), double(-INFINITY));
      else
        n.histogram.add(bin_of(norm_bins(c), norm, norm));
      return;
    }
  }
  const float key = hit ? -x : x;
  if (collects)
    collect_key(c, l, t, row, cls, r.weight != 0.0f, double(key), double(-INFINITY));
  else if (key >= n.bins.second)
    count_key(n, key);
  else
    n.histogram.first++;
}

/** Counts a vector of keys of hard targets. `counted` of them count; the others are NaN. */
template <int size>
__device__ __forceinline__ void count_keys(counter &n, const float (&key)[size], uint32_t counted) {
  bool beyond = false;
#pragma unroll
  for (int k = 0; k < size; k++) beyond |= key[k] >= n.bins.second;
  n.histogram.first += counted;
  if (!beyond) return;
#pragma unroll
  for (int k = 0; k < size; k++)
    if (key[k] >= n.bins.second) {
      n.histogram.first--;
      count_key(n, key[k]);
    }
}

/** Whether flat vectors are counted as such. */
__device__ __forceinline__ bool counts_vectors(const ghm_call &c, const level &l) {
  return l.aligned && !c.soft && c.pass != ghm_pass::collect;
}

/** Counts a vector of a row and, behind `left` elements, of the next one. */
template <typename T>
__device__ __forceinline__ void count_crossing(counter &n, row_role first, row_role second, int32_t left, int32_t cls,
                                               const vector<T> &v) {
  constexpr int size = vector<T>::size;
  const int32_t of_first = min(left, size);
  const uint32_t counted =
      (first.weight != 0.0f ? uint32_t(of_first) : 0) + (second.weight != 0.0f ? uint32_t(size - of_first) : 0);
  float key[size];
#pragma unroll
  for (int k = 0; k < size; k++) {
    const bool hit = k < left ? k == first.cls - cls : k - left == second.cls;
    const float x = to_float(v.at[k]);
    key[k] = (k < left ? first.weight : second.weight) == 0.0f ? NAN : hit ? -x : x;
  }
  count_keys(n, key, counted);
}

template <typename T>
__device__ __forceinline__ void count_flat_tile(const ghm_call &c, const level &l, const tile &t, counter &n,
                                                const row_role *roles, flat_queue<cache::keep, T> &queue) {
  constexpr uint32_t size = vector<T>::size;
  const uint32_t elements = uint32_t(t.rows) * uint32_t(c.classes);
  const T *const logits = logits_of<T>(l, t);
  const bool whole = counts_vectors(c, l) && c.classes >= int32_t(size) - 1;
  const rows_alone alone = find_rows_alone<int32_t(size)>(int32_t(c.classes), whole, false);
  for (uint32_t at = thread_rank() * size; at < elements; at += block_threads * size) {
    int32_t row, cls;
    split(c, l, at, &row, &cls);
    queue.turn_to(int32_t(at));
    if (alone.has(cls)) {
      const row_role r = roles[row];
      if (r.weight != 0.0f) {
        const vector<T> v = queue.vector_of_turn();
        float key[size];
#pragma unroll
        for (int k = 0; k < int(size); k++) key[k] = k == r.cls - cls ? -to_float(v.at[k]) : to_float(v.at[k]);
        count_keys(n, key, size);
      }
    } else if (whole && elements - at >= size) {
      count_crossing(n, roles[row], roles[min(row + 1, t.rows - 1)], int32_t(c.classes) - cls, cls,
                     queue.vector_of_turn());
    } else {
      const uint32_t end = elements - at < size ? elements : at + size;
#pragma unroll 1
      for (uint32_t i = at; i < end; i++) {
        count_element(c, l, t, n, roles[row], row, cls, to_float(logits[i]));
        if (++cls == c.classes) cls = 0, row++;
      }
    }
    queue.end_turn();
  }
}

/** Counts a tile of a map whose rows are not a whole number of vectors: a lane takes a row, some classes at a time. */
template <typename T>
__device__ __forceinline__ void count_rows_of_lanes(const ghm_call &c, const level &l, const tile &t, counter &n) {
  constexpr int many = 8;
  nchw_share p;
  p.step = block_threads / uint32_t(t.rows);
  p.first = thread_rank() / uint32_t(t.rows);
  p.row = int32_t(thread_rank() % uint32_t(t.rows));
  if (p.first >= p.step) return;
  const row_role r = look_at_row(c, l, t, p.row);
  if (r.weight == 0.0f) return;
  nchw_row<T> from(l, t, TARE_ARRAY_LOGITS, p);
  int32_t cls = int32_t(p.first);
  for (; cls + (many - 1) * int32_t(p.step) < c.classes; cls += many * int32_t(p.step)) {
    T x[many];
    from.load(x);
    float key[many];
#pragma unroll
    for (int k = 0; k < many; k++) key[k] = cls + k * int32_t(p.step) == r.cls ? -to_float(x[k]) : to_float(x[k]);
    count_keys(n, key, many);
  }
#pragma unroll 1
  for (; cls < c.classes; cls += int32_t(p.step)) {
    T x[1];
    from.load(x);
    const float key[1] = {cls == r.cls ? -to_float(x[0]) : to_float(x[0])};
    count_keys(n, key, 1);
  }
}

template <typename T>
__device__ __forceinline__ void count_nchw_tile(const ghm_call &c, const level &l, const tile &t, counter &n) {
  constexpr int size = vector<T>::size;
  if (l.allows_lean_way == lean_rows && c.pass != ghm_pass::collect) return count_rows_of_lanes<T>(c, l, t, n);
  const uint32_t across = uint32_t(t.rows + size - 1) / size;
  const uint32_t groups = across < block_threads ? block_threads / across : 1;
  if (thread_rank() >= groups * across) return;
  const int32_t row = int32_t(thread_rank() % across) * size;
  const int rows = t.rows - row < size ? t.rows - row : size;
  const bool whole = l.aligned && rows == size && c.pass != ghm_pass::collect;
  row_role r[size];
  uint32_t counted = 0;
#pragma unroll
  for (int k = 0; k < size; k++) {
    r[k] = k < rows ? look_at_row(c, l, t, row + k) : row_role{row_skipped, 0.0f};
    counted += r[k].weight != 0.0f;
  }
  for (int64_t cls = thread_rank() / across; cls < c.classes; cls += groups) {
    const T *const from =
        static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data) + place(l, t, TARE_ARRAY_LOGITS, row, cls);
    if (whole) {
      const vector<T> v = load_vector(from);
      float key[size];
#pragma unroll
      for (int k = 0; k < size; k++)
        key[k] = r[k].weight == 0.0f ? NAN : r[k].cls == cls ? -to_float(v.at[k]) : to_float(v.at[k]);
      count_keys(n, key, counted);
      continue;
    }
#pragma unroll
    for (int k = 0; k < size; k++)
      if (k < rows) count_element(c, l, t, n, r[k], row + k, cls, to_float(from[k]));
  }
}

template <typename T>
__device__ __forceinline__ void count_row_of_warp(const ghm_call &c, const level &l, const tile &t, counter &n,
                                                  int32_t row, bool reports) {
  const row_role r = c.soft ? look_at_row_of_warp(c, l, t, row, true, reports) : look_at_row(c, l, t, row);
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size)
    count_element(c, l, t, n, is_masked(l, t, row, cls) ? row_role{r.cls, 0.0f} : r, row, cls,
                  to_float(static_cast<const T *>(
                      l.view.array[TARE_ARRAY_LOGITS].data)[place(l, t, TARE_ARRAY_LOGITS, row, cls)]));
}

/** Counts or collects every element once. Rows without a valid label are reported by a histogram that is a call of its
 *  own; else by what evaluates. */
template <typename T, int32_t walk, int slots>
__device__ __forceinline__ void count_pass(const ghm_call &c, counter &n, row_role *roles, vector<T> (&room)[slots]) {
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const bool reports = c.pass == ghm_pass::count && !c.updates;
    if (reports)
      for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) report_if_invalid(c, l, t, row);
    if constexpr (walk == walk_flat) {
      const int32_t whole = counts_vectors(c, l) ? t.rows * int32_t(c.classes) : 0;
      flat_queue<cache::keep, T> queue(room, logits_of<T>(l, t), whole);
      for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads)
        roles[row] = look_at_row(c, l, t, row);
      __syncthreads();
      if (c.soft) skip_invalid_rows<T>(c, l, t, roles, reports);
      count_flat_tile<T>(c, l, t, n, roles, queue);
    } else if (walk == walk_nchw) {
      count_nchw_tile<T>(c, l, t, n);
    } else {
      for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / warp_size)
        count_row_of_warp<T>(c, l, t, n, row, reports);
    }
  });
}

template <typename T, int32_t walk>
__global__ void __launch_bounds__(block_threads, walk == walk_nchw ? 3 : 4)
    ghm_c_histogram(const TARE_GRID_CONSTANT ghm_call c) {
  TARE_SHARED(row_role[walk == walk_flat ? most_flat_rows : 1], roles);
  TARE_SHARED(vector<T>[walk == walk_flat ? queue_slots : 1], room);
  counter n = make_counter(c);
  count_pass<T, walk>(c, n, roles, room);
  if (c.pass == ghm_pass::count) finish_histogram(c, n.histogram);
}

}  // namespace sigmoid
}  // namespace tare

#endif
