/* SPDX-License-Identifier: Apache-2.0 */
/* The emulator's own test kernels, each behind a host function that launches it. Pointers are device memory. */
#ifndef TARE_EMULATOR_KERNELS_H
#define TARE_EMULATOR_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

/* kernels.cu: right ones */
cudaError_t launch_sum(const float *x, int64_t size, double *partials, uint32_t *ticket, double *total, unsigned blocks,
                       cudaStream_t stream);
cudaError_t launch_focal(float *logits, const int32_t *labels, unsigned rows, unsigned classes, double *partials,
                         uint32_t *ticket, double *loss, unsigned blocks, cudaStream_t stream);
cudaError_t launch_rotate(uint32_t *values, uint32_t *state, unsigned rounds, unsigned blocks, bool cooperative);
int most_rotate_blocks();
constexpr int lane_results = 12;
cudaError_t launch_lanes(const float *x, float *results); /* 64 threads; results [lane_results][64] */
cudaError_t launch_halves(float *from_half, float *from_bf16, uint16_t *half_again, uint16_t *bf16_again);
cudaError_t launch_round(const float *x, uint16_t *half, uint16_t *bf16, unsigned size);
cudaError_t launch_functions(const float *x, float *results, unsigned size); /* results [4][size] */
cudaError_t launch_high(const uint64_t *a, const uint64_t *b, uint64_t *high64, uint32_t *high32, unsigned size);
cudaError_t launch_increment(uint32_t *values, unsigned size, uint32_t by, cudaStream_t stream);
cudaError_t launch_histogram(const uint32_t *keys, unsigned size, uint64_t *counts, unsigned bins, size_t shared);
cudaError_t allow_histogram(int shared);
cudaError_t launch_indices(uint32_t *out, dim3 grid, dim3 block);
cudaError_t launch_indices_by_address(uint32_t *out, dim3 grid, dim3 block);
cudaError_t launch_far(float *base, int64_t stride, unsigned count);

/* planted.cu: wrong ones */
cudaError_t launch_planted(const char *name, float *x, unsigned size);

#endif
