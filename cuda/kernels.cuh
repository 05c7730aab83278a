/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of the backend as the host sees them. */
#ifndef TARE_CUDA_KERNELS_CUH
#define TARE_CUDA_KERNELS_CUH

#include "tiles.cuh"

#include "core/class_balance.h"
#include "core/gradient_balance.h"
#include "core/scale_gradients.h"

namespace tare {

/** Where to launch: the stream, and how many blocks the device runs at a time. */
struct launch_site {
  cudaStream_t stream;
  int multiprocessors;
};

/** Launches `kernel` with a block for each piece of work, as many as can be resident; `together`: cooperatively. */
template <typename... P, typename... A>
cudaError_t launch_as(bool together, void (*kernel)(P...), int64_t work, const launch_site &site,
                      const A &...arguments) {
  int resident = 0;
  const cudaError_t status =
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, TARE_KERNEL(kernel), block_threads, 0);
  if (status != cudaSuccess) return status;
  const int64_t most = int64_t(resident > 0 ? resident : 1) * site.multiprocessors;
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(work < 1 ? 1 : work < most ? work : most));
  config.blockDim = dim3(block_threads);
  config.stream = site.stream;
  config.attrs = &cooperative;
  config.numAttrs = together ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <typename... P, typename... A>
cudaError_t launch(void (*kernel)(P...), int64_t work, const launch_site &site, const A &...arguments) {
  return launch_as(false, kernel, work, site, arguments...);
}

/** Launches all blocks at the same time, as tare::grid_barrier needs it. */
template <typename... P, typename... A>
cudaError_t launch_together(void (*kernel)(P...), int64_t work, const launch_site &site, const A &...arguments) {
  return launch_as(true, kernel, work, site, arguments...);
}

/** Loads kernels, which CUDA otherwise does at the first launch: that may be in a capture, or while others run. */
template <typename... Kernel>
cudaError_t load_kernels(Kernel... kernels) {
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSuccess;
  (void)((status = cudaFuncGetAttributes(&attributes, TARE_KERNEL(kernels)), status == cudaSuccess) && ...);
  return status;
}

/** Counts labels; `reports`: remembers invalid rows for tare_context_synchronize. */
cudaError_t launch_count(const call &c, const launch_site &site, bool reports);

/** Sums targets, and forms the divisor that depends on them, after launch_count. `sums`: receives what all normalizers
 *  give; or NULL. */
cudaError_t launch_target_sums(const call &c, tare_normalizer_sums *sums, const launch_site &site);

/** Sets the flags, or one of them, if what the call has written is not finite. */
cudaError_t launch_flags(const call &c, float *gradient_flag, float *loss_flag, const launch_site &site);

/** Adds a step to running counts, and forms the weights of classes. */
cudaError_t launch_balance_classes(const tare_balance_step &step, const launch_site &site);

/** Weighs, collects or steps: see tare_gradient_action. */
cudaError_t launch_balance_gradients(const tare_gradient_step &step, const launch_site &site);

/** Multiplies arrays by a number in device memory. */
cudaError_t launch_scale_gradients(const tare_scaling &scaling, const launch_site &site);

/** Load all kernels of a file, or of a family on one type of logits. A new kernel goes into the list of its file. */
cudaError_t load_class_balance();
cudaError_t load_class_sums();
cudaError_t load_count();
cudaError_t load_density();
cudaError_t load_flags();
cudaError_t load_gradient_balance();
cudaError_t load_hard_rows();
cudaError_t load_level_losses();
cudaError_t load_linear();
cudaError_t load_norms();
cudaError_t load_scale_gradients();
cudaError_t load_selection();
cudaError_t load_sigmoid_f32();
cudaError_t load_sigmoid_f16();
cudaError_t load_sigmoid_bf16();
cudaError_t load_softmax_f32();
cudaError_t load_softmax_f16();
cudaError_t load_softmax_bf16();
cudaError_t load_target_sums();
cudaError_t load_ghm_f32();
cudaError_t load_ghm_f16();
cudaError_t load_ghm_bf16();

/** Loss and gradient of the sigmoid family, or the softmax family, in one launch; a file for each type of logits, so
 *  that they compile side by side. */
cudaError_t launch_sigmoid_f32(const call &c, const launch_site &site);
cudaError_t launch_sigmoid_f16(const call &c, const launch_site &site);
cudaError_t launch_sigmoid_bf16(const call &c, const launch_site &site);
cudaError_t launch_softmax_f32(const call &c, const launch_site &site);
cudaError_t launch_softmax_f16(const call &c, const launch_site &site);
cudaError_t launch_softmax_bf16(const call &c, const launch_site &site);

/** One pass of a GHM loss, or all of it. */
cudaError_t launch_ghm_f32(const ghm_call &c, const launch_site &site);
cudaError_t launch_ghm_f16(const ghm_call &c, const launch_site &site);
cudaError_t launch_ghm_bf16(const ghm_call &c, const launch_site &site);

/** Computes momentum sums and 1/GD from the counts in a state, and counts the step. */
cudaError_t launch_density_update(const tare_ghm_parameters &ghm, tare_ghm_state state, const launch_site &site);

/** The exact density of the `most` keys collected: sorts them into `sorted`, finds 1/GD of each, and how many they are;
 *  c.keys is lost. */
cudaError_t launch_exact_density(const ghm_call &c, double *sorted, void *sort_room, size_t sort_bytes, int64_t most,
                                 const launch_site &site);

/** Sorts `n` keys; with room NULL only says how many bytes of it are needed. The one function of the backend that the
 *  emulator does not run: it has a twin there. */
cudaError_t sort_keys(void *room, size_t *bytes, const double *from, double *to, int64_t n, cudaStream_t stream);

}  // namespace tare

#endif
