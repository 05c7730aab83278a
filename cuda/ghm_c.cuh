/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM-C: cross-entropy over the density of its own gradient norm. Norms are counted first (or their keys collected, for
 * the exact density), by the three walks of the sigmoid family with nothing to write; then the family's own kernels
 * evaluate, from the last tile to the first, so that they begin with what the second-level cache still holds. What fits
 * there as a whole is counted and evaluated in one cooperative launch.
 */
#ifndef TARE_CUDA_GHM_C_CUH
#define TARE_CUDA_GHM_C_CUH

#include "ghm_c_count.cuh"

namespace tare {
namespace sigmoid {

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
