# SPDX-License-Identifier: Apache-2.0
# The CUDA backend: cuda/*.cu, when there are any and nvcc is here. cudart is linked statically and finds the driver at
# run time, so that one library runs with and without one. Nothing of C++'s runtime is used, so C links everything.

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
  add_library(tare_cuda OBJECT ${cuda_sources})
  set_target_properties(tare_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                             CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY None)
  target_compile_options(tare_cuda PRIVATE
    -fmad=false # a fused multiply-add is written as one: kernels that share a formula share its rounding
    -Xcompiler=-Wall,-Wextra,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
    $<$<BOOL:${TARE_WERROR}>:-Werror=all-warnings>)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    target_compile_options(tare_cuda PRIVATE --compress-mode=size) # six generations in a sixth of the space
  endif()
  target_include_directories(tare_cuda PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}")
  # CUB includes <iostream> and uses nothing of it, but libstdc++'s makes an object in every file that does.
  set_source_files_properties("${PROJECT_SOURCE_DIR}/cuda/sort.cu" PROPERTIES COMPILE_DEFINITIONS _GLIBCXX_IOSTREAM=1)
  target_compile_definitions(tare_objects PRIVATE TARE_WITH_CUDA=1)
  foreach(library IN ITEMS tare tare_static)
    target_sources(${library} PRIVATE $<TARGET_OBJECTS:tare_cuda>)
    target_link_libraries(${library} PRIVATE CUDA::cudart_static)
    set_target_properties(${library} PROPERTIES LINKER_LANGUAGE C)
  endforeach()
  target_link_options(tare PRIVATE "LINKER:--exclude-libs,ALL")
endif()
