# SPDX-License-Identifier: Apache-2.0
# Whether the CUDA backend is built, and for which GPUs: cuda/*.cu, when there are any and nvcc is here. Comes before
# the first target: a target takes CMAKE_CUDA_ARCHITECTURES when it is made, and cannot be generated without.

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
  tare_missing(missing "nvcc of CUDA 12.1 or newer" "${CMAKE_CUDA_COMPILER}" "cuda-toolkit, from NVIDIA")
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit 12.1) # the first that takes more than 4,352 bytes of kernel parameters
    tare_missing(missing "CUDA 12.1 or newer with its static runtime" "${CUDA_cudart_static_LIBRARY}"
                 "cuda-toolkit, from NVIDIA")
  endif()
endif()

# CMake's own variable for this comes too late here.
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT "$ENV{CUDAARCHS}" STREQUAL "")
  set(CMAKE_CUDA_ARCHITECTURES "$ENV{CUDAARCHS}")
endif()

# Without a choice of the caller's: every generation from 7.5 on that this toolkit knows, and PTX for later ones. CUDA
# 12 has generations before 7.0 in all-major, whose parameters are too small for our kernels.
if(CUDAToolkit_VERSION AND CUDAToolkit_VERSION VERSION_LESS 13)
  set(tare_architectures 75-real 80-real 90)
  if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND tare_architectures 100-real 120-real)
  endif()
  if(CMAKE_CUDA_ARCHITECTURES MATCHES "^all(-major)?$")
    message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES=${CMAKE_CUDA_ARCHITECTURES} has generations before 7.0 with CUDA "
                        "${CUDAToolkit_VERSION}, which cannot run Tare; leave it out, or name generations from 75 on")
  endif()
else()
  set(tare_architectures all-major)
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${tare_architectures})
endif()
tare_decide(CUDA "${missing}" "nvcc ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
if(TARE_BUILD_CUDA)
  enable_language(CUDA)
endif()
