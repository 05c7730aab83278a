/* SPDX-License-Identifier: Apache-2.0 */
/* Force-included in front of a .cu file that a host C++ compiler compiles (g++ -x c++ -include emulator.h): the
 * toolkit's own headers, and after them twins of what only nvcc knows. The file itself stays unchanged. Test code: the
 * library never contains it. README.md says how it works and what it cannot show. */
#ifndef TARE_EMULATOR_H
#define TARE_EMULATOR_H

#ifdef __CUDACC__
#error "the emulator is for a host compiler; nvcc compiles the same file without it"
#endif
#define TARE_EMULATED 1

#include <math.h>
#include <stdint.h>

#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

/* The toolkit's template hands on the kernel as `const void *` and its type is lost; launch.h brings our own. */
#define cudaLaunchKernelEx tare_toolkit_cudaLaunchKernelEx
#include <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* Not known to a host compiler. Register limits mean nothing here. */
#define __launch_bounds__(...)

/* Silently an ordinary variable for a host compiler, so refused: use TARE_SHARED (cuda/device.cuh). */
#undef __shared__
#define __shared__ static_assert(false, "use TARE_SHARED or TARE_SHARED_DYNAMIC from cuda/device.cuh");

#include "blas.h"
#include "builtins.h"
#include "copies.h"
#include "intrinsics.h"
#include "launch.h"
#include "shared.h"

#endif
