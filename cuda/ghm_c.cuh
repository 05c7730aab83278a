/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM-C: cross-entropy over the density of its own gradient norm. Norms are counted first (or their keys collected, for
 * the exact density), by the three walks of the sigmoid family with nothing to write; then the family's own kernels
 * evaluate, from the last tile to the first, so that they begin with what the second-level cache still holds. What fits
 * there as a whole is counted and evaluated in one cooperative launch.
 */
#ifndef TARE_CUDA_GHM_C_CUH
#define TARE_CUDA_GHM_C_CUH

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

/* ---- Evaluating -------------------------------------------------------------------------------------------------- */

/** 1/GD of an element: by its bin, from shared memory, or by its place among the sorted keys. */
struct density_weights {
  ghm_bins bins;
  float of_first;
  const float *of_bin;
  const double *keys, *of_key; /* exact density */
  uint64_t key_count;

  __device__ __forceinline__ float at(float key, float norm) const {
    if (keys) return at_key(double(key));
    if (!(key >= bins.second)) return of_first;
    return of_bin[bin_of(bins, key, norm)];
  }
  /** The same of a target between 0 and 1. */
  __device__ __forceinline__ float at_norm(const ghm_call &c, float norm) const {
    return keys ? at_key(key_of_norm(norm)) : of_bin[bin_of(norm_bins(c), norm, norm)];
  }
  __device__ __forceinline__ float at_key(double key) const {
    return key_count ? float(of_key[place_of_key(keys, key_count, key)]) : 0.0f;
  }
};

__device__ __forceinline__ density_weights make_weights(const ghm_call &c, const ghm_bins &bins) {
  TARE_SHARED(float[TARE_MAX_BINS], of_bin);
  const bool exact = c.ghm.density == TARE_GHM_DENSITY_EXACT;
  for (int32_t k = int32_t(thread_rank()); !exact && k < c.ghm.bins; k += block_threads)
    of_bin[k] = float(__ldcg(c.state.inverse_density + k)); /* another block may have written it in this launch */
  __syncthreads();
  density_weights w;
  w.bins = bins;
  w.of_first = of_bin[0];
  w.of_bin = of_bin;
  w.keys = exact ? c.keys : nullptr;
  w.of_key = c.key_weights;
  w.key_count = w.keys ? *c.key_count : 0; /* without elements there are no keys either */
  return w;
}

/** An element whose 1/GD is 0 adds nothing, whatever its logit is. */
__device__ __forceinline__ exact::pair by_density(float weight, float loss, float derivative) {
  if (weight == 0.0f) return {0.0f, 0.0f};
  return {weight * loss, weight * derivative};
}

/** The loss, for the kernels of the family. */
struct ghm_c {
  using call_type = ghm_call;
  struct setting_type : setting {
    density_weights density;
  };
  static constexpr bool uses_base_weight = false, backwards = true, scored = false;
  static constexpr bool is_hot = true, goes_by_score_rows = false;

  __device__ __forceinline__ static setting_type make(const ghm_call &c, const ghm_bins &bins) {
    setting_type s;
    static_cast<setting &>(s) = make_common_setting(c);
    s.density = make_weights(c, bins);
    return s;
  }
  __device__ __forceinline__ static setting_type make(const ghm_call &c) { return make(c, make_bins(c)); }

  /** The first bin holds NaN, and the -inf that take_hit leaves in place of a label's logit. 1/GD must neither turn the
   *  loss of 0 into a NaN nor hide a NaN. */
  __device__ __forceinline__ static bool has_lean_way(const setting_type &s) {
    return s.density.keys || (s.density.of_first > 0.0f && s.density.of_first <= FLT_MAX);
  }
  __device__ __forceinline__ static constexpr int power_of(const setting_type &) { return TARE_POWER_0; }
  __device__ __forceinline__ static float nothing() { return -INFINITY; }

  /** q is the gradient norm, x its key. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting_type &s, float x, float weight, int) {
    float loss, norm;
    if (rough) {
      const approximate::terms t = approximate::terms_of(-x);
      loss = t.l, norm = t.q;
    } else {
      const exact::terms t = exact::terms_of(-x);
      loss = t.l, norm = t.q;
    }
    float density = s.density.of_first; /* positive and finite: has_lean_way */
    if (s.density.keys) {
      density = s.density.at_key(double(x));
      if (density == 0.0f) loss = 0.0f; /* it may be infinite */
    } else if (x >= s.density.bins.second) {
      density = s.density.of_bin[bin_of(s.density.bins, x, norm)];
      if (density == 0.0f) loss = 0.0f; /* it may be infinite */
    }
    const float w = weight * density;
    return {w * loss, w * norm};
  }

  template <bool rough>
  __device__ __forceinline__ static exact::pair hard(const setting_type &s, float x, bool hit, float weight) {
    const float key = hit ? -x : x;
    const exact::terms t = exact::terms_of(-key);
    return by_density(weight * s.density.at(key, t.q), t.l, rough && !hit ? approximate::terms_of(-key).q : t.q);
  }

  __device__ __forceinline__ static exact::pair soft(const ghm_call &c, const setting_type &s, float x, float target,
                                                     float weight) {
    const exact::soft_terms t = exact::soft_terms_of(x, target);
    return by_density(weight * s.density.at_norm(c, soft_norm(t.p, target)), t.ce, t.p - target);
  }
};

/* ---- Counting ---------------------------------------------------------------------------------------------------- */

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

template <typename T>
__device__ __forceinline__ void count_flat_tile(const ghm_call &c, const level &l, const tile &t, counter &n,
                                                const row_role *roles, flat_queue<cache::keep, T> &queue) {
  constexpr uint32_t size = vector<T>::size;
  const uint32_t elements = uint32_t(t.rows) * uint32_t(c.classes);
  const T *const logits = logits_of<T>(l, t);
  const bool whole = counts_vectors(c, l);
  for (uint32_t at = thread_rank() * size; at < elements; at += block_threads * size) {
    int32_t row, cls;
    split(c, l, at, &row, &cls);
    queue.turn_to(int32_t(at));
    if (whole && elements - at >= size && cls + int32_t(size) <= c.classes) {
      const row_role r = roles[row];
      if (r.weight != 0.0f) {
        const vector<T> v = queue.vector_of_turn();
        float key[size];
#pragma unroll
        for (int k = 0; k < int(size); k++) key[k] = k == r.cls - cls ? -to_float(v.at[k]) : to_float(v.at[k]);
        count_keys(n, key, size);
      }
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

template <typename T>
__device__ __forceinline__ void count_nchw_tile(const ghm_call &c, const level &l, const tile &t, counter &n) {
  constexpr int size = vector<T>::size;
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
    count_element(c, l, t, n, r, row, cls,
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
      if (c.soft) skip_invalid_rows(c, l, t, roles, reports);
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

/* ---- Both -------------------------------------------------------------------------------------------------------- */

/** Cooperative: no block goes on before all have counted. */
template <typename T, typename Loss, int32_t walk>
__global__ void __launch_bounds__(block_threads, walk == walk_flat ? 4 : 2)
    ghm_c_fused(const TARE_GRID_CONSTANT ghm_call c) {
  TARE_SHARED(row_role[walk == walk_flat ? most_flat_rows : 1], roles);
  TARE_SHARED(vector<T>[queue_slots], room);
  counter n = make_counter(c);
  count_pass<T, walk>(c, n, roles, room);
  finish_histogram(c, n.histogram);
  const setting_of<Loss> s = Loss::make(c, n.bins);
  if constexpr (walk == walk_flat)
    flat_pass<T, Loss, false>(c, s, roles, room, false);
  else
    nchw_pass<T, Loss>(c, s, room);
  finish_loss(c);
}

template <typename T, typename Loss>
cudaError_t launch_fused(const ghm_call &c, const launch_site &site) {
  return c.levels[0].walk == walk_flat ? launch_together(ghm_c_fused<T, Loss, walk_flat>, c.tile_count, site, c)
                                       : launch_together(ghm_c_fused<T, Loss, walk_nchw>, c.tile_count, site, c);
}

template <typename T>
cudaError_t launch_norms(const ghm_call &c, const launch_site &site) {
  switch (c.levels[0].walk) {
    case walk_flat:
      return launch(ghm_c_histogram<T, walk_flat>, c.tile_count, site, c);
    case walk_nchw:
      return launch(ghm_c_histogram<T, walk_nchw>, c.tile_count, site, c);
    default:
      return launch(ghm_c_histogram<T, walk_rows>, c.tile_count, site, c);
  }
}

/** The type that computes a loss from the density of its gradient norm. A loss without one does not compile. */
template <typename Loss>
struct by_density_of;
template <>
struct by_density_of<losses::GHM_C> {
  using type = ghm_c;
};

template <typename T>
cudaError_t load_ghm_type() {
  const cudaError_t status = for_each_loss<TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_DENSITY>([](auto loss) {
    using Loss = typename by_density_of<decltype(loss)>::type;
    const cudaError_t loaded = load_kernels(ghm_c_fused<T, Loss, walk_flat>, ghm_c_fused<T, Loss, walk_nchw>);
    return loaded == cudaSuccess ? load_loss<T, Loss>() : loaded;
  });
  if (status != cudaSuccess) return status;
  return load_kernels(ghm_c_histogram<T, walk_flat>, ghm_c_histogram<T, walk_nchw>, ghm_c_histogram<T, walk_rows>);
}

template <typename T>
cudaError_t launch_ghm_type(const ghm_call &c, const launch_site &site) {
  return with_loss<TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_DENSITY>(c.kind, [&](auto loss) {
    using Loss = typename by_density_of<decltype(loss)>::type;
    if (c.pass == ghm_pass::fused) return launch_fused<T, Loss>(c, site);
    return c.pass == ghm_pass::evaluate ? launch_loss<T, Loss>(c, site) : launch_norms<T>(c, site);
  });
}

}  // namespace sigmoid
}  // namespace tare

#endif
