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

/** What is loaded at once for a bin: its first key, and its 1/GD times `shrink`, as every 1/GD is here: so it weighs a
 *  loss and shrinks it at once. The alpha of both targets is 1/shrink. */
struct alignas(8) weighted_bin {
  float begin, weight;
};

/** 1/GD of an element: by its bin, from shared memory, or by its place among the sorted keys. */
struct density_weights {
  float bins_in_units, of_first; /* the number of bins, for nearest_bin */
  float most_loss;             /* FLT_MAX where the last bin's 1/GD is 0: of an infinite loss nothing is left either */
  shared_place of_bin;         /* where bin 0 would lie, if they were counted from 0: see nearest_bin */
  const double *keys, *of_key; /* exact density */
  uint64_t key_count;
  bool by_key; /* exact density */

  /** Of a hard target, by the bins. The norm only finds the nearest of them. */
  __device__ __forceinline__ float of_bins(float key, float norm) const {
    const shared_place at = of_bin + nearest_bin(bins_in_units, norm) * uint32_t(sizeof(weighted_bin));
    const uint2 bin = load_8_bytes(at);
    return key >= __uint_as_float(bin.x) ? __uint_as_float(bin.y) : load_float(at - sizeof(float));
  }
  __device__ __forceinline__ float at(float key, float norm) const {
    return keys ? at_key(double(key)) : of_bins(key, norm);
  }
  /** The same of a target between 0 and 1. */
  __device__ __forceinline__ float at_norm(const ghm_call &c, float norm) const {
    if (keys) return at_key(key_of_norm(norm));
    const uint32_t bin = first_nearest + uint32_t(bin_of(norm_bins(c), norm, norm));
    return __uint_as_float(load_8_bytes(of_bin + bin * uint32_t(sizeof(weighted_bin))).y);
  }
  __device__ __forceinline__ float at_key(double key) const {
    return key_count ? float(of_key[place_of_key(keys, key_count, key)]) * shrink : 0.0f;
  }
};

/** The bins and their 1/GD in shared memory. The first 1/GD lies before them as well, and in the place before the last:
 *  there NaN looks for it. */
__device__ __forceinline__ density_weights make_weights(const ghm_call &c) {
  constexpr int32_t places = TARE_MAX_BINS + 3;
  TARE_SHARED(weighted_bin[places], table);
  const bool exact = c.ghm.density == TARE_GHM_DENSITY_EXACT;
  const int32_t bins = c.ghm.bins;
  for (int32_t k = int32_t(thread_rank()) - 1; !exact && k < places - 1; k += block_threads) {
    const bool is_bin = k >= 0 && k < bins;
    /* another block may have written it in this launch */
    table[k + 1] = {is_bin ? c.ghm_c.lower[k] : NAN,
                    float(__ldcg(c.state.inverse_density + (is_bin ? k : 0))) * shrink};
  }
  __syncthreads();
  return {float(bins) * unit_of_nearest,
          table[0].weight,
          table[bins].weight == 0.0f ? FLT_MAX : INFINITY,
          held_place(place_in_shared(table + 1) - first_nearest * uint32_t(sizeof(weighted_bin))),
          exact ? c.keys : nullptr,
          c.key_weights,
          exact && c.keys ? *c.key_count : 0, /* without elements there are no keys either */
          exact};
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

  __device__ __forceinline__ static setting_type make(const ghm_call &c) {
    setting_type s;
    static_cast<setting &>(s) = make_common_setting(c);
    s.at_0 = s.at_1 = 1.0f / shrink; /* GHM-C has no other alpha */
    s.density = make_weights(c);
    return s;
  }

  /** The first bin holds NaN, and the -inf that take_hit leaves in place of a label's logit. 1/GD must neither turn the
   *  loss of 0 into a NaN nor hide a NaN. */
  __device__ __forceinline__ static bool has_lean_way(const setting_type &s) {
    return s.density.keys || (s.density.of_first > 0.0f && s.density.of_first <= FLT_MAX);
  }
  /** Stands for the source of the density, which a vector looks up once. */
  __device__ __forceinline__ static int power_of(const setting_type &s) {
    return s.density.by_key ? TARE_POWER_GENERAL : TARE_POWER_0;
  }
  __device__ __forceinline__ static float nothing() { return -INFINITY; }

  struct parts {
    float density, loss, norm;
  };

  /** q is the gradient norm, x its key. 1/GD of 0 leaves nothing even of an infinite loss. */
  template <bool rough>
  __device__ __forceinline__ static parts parts_of_negative(const setting_type &s, float x, int source) {
    float log1p_e, norm;
    if (rough) {
      const approximate::terms t = approximate::terms_of(-x);
      log1p_e = t.log1p_e, norm = t.q;
    } else {
      const exact::terms t = exact::terms_of(-x);
      log1p_e = t.log1p_e, norm = t.q;
    }
    float density, loss;
    if (source == TARE_POWER_GENERAL) {
      density = s.density.at_key(double(x));
      loss = density == 0.0f ? 0.0f : log1p_e + positive_part(x, INFINITY);
    } else {
      density = s.density.of_bins(x, norm);
      loss = log1p_e + positive_part(x, s.density.most_loss);
    }
    return {density, loss, norm};
  }
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting_type &s, float x, float weight, int source) {
    const parts of = parts_of_negative<rough>(s, x, source);
    const float w = weight * of.density;
    return {w * of.loss, w * of.norm};
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
  TARE_SHARED(row_role[most_rows_counted<walk>], roles);
  TARE_SHARED(vector<T>[queue_slots], room);
  counter n = make_counter(c);
  count_pass<T, walk>(c, n, roles);
  finish_histogram(c, n.histogram);
  const setting_of<Loss> s = Loss::make(c);
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
