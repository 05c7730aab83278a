# SPDX-License-Identifier: Apache-2.0
# The CUDA backend: cuda/*.cu, when there are any and nvcc is here. cudart is linked statically, so that one library
# runs with and without a driver.

file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/*.cu")
set(missing "")
if(NOT cuda_sources)
  set(missing "this version of Tare has no CUDA kernels (no cuda/*.cu)")
elseif(TARE_CUDA STREQUAL "AUTO" OR TARE_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  tare_missing(missing "nvcc" "${CMAKE_CUDA_COMPILER}" "nvidia-cuda-toolkit, or NVIDIA's own")
endif()
tare_decide(CUDA "${missing}" "nvcc ${CMAKE_CUDA_COMPILER}")

if(TARE_BUILD_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES all-major)
  endif()
  enable_language(CUDA)
  add_library(tare_cuda OBJECT ${cuda_sources})
  set_target_properties(tare_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
                                             CUDA_RUNTIME_LIBRARY Static)
  target_include_directories(tare_cuda PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(tare_objects PRIVATE TARE_WITH_CUDA=1)
  foreach(library IN ITEMS tare tare_static)
    target_sources(${library} PRIVATE $<TARGET_OBJECTS:tare_cuda>)
    set_target_properties(${library} PROPERTIES CUDA_RUNTIME_LIBRARY Static
                                                CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  endforeach()
endif()
