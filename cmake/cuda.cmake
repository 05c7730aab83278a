# SPDX-License-Identifier: Apache-2.0
# Whether the CUDA backend is built, and for which GPUs: cuda/*.cu, when there are any and nvcc is here. Comes before the
# first target: a target takes CMAKE_CUDA_ARCHITECTURES when it is made, and cannot be generated without.

file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/*.cu")
set(missing "")
if(NOT cuda_sources)
  set(missing "this version of Tare has no CUDA kernels (no cuda/*.cu)")
elseif(TARE_CUDA STREQUAL "AUTO" OR TARE_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE) # it may have been installed since
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  tare_missing(missing "nvcc of CUDA 12 or newer" "${CMAKE_CUDA_COMPILER}" "cuda-toolkit, from NVIDIA")
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit 12)
    tare_missing(missing "CUDA 12 or newer with its static runtime" "${CUDA_cudart_static_LIBRARY}"
                 "cuda-toolkit, from NVIDIA")
  endif()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES all-major)
endif()
tare_decide(CUDA "${missing}" "nvcc ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
if(TARE_BUILD_CUDA)
  enable_language(CUDA)
endif()
