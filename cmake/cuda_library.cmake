# SPDX-License-Identifier: Apache-2.0
# The CUDA backend in the library. cudart is linked statically and finds the driver at run time, so that one library
# runs with and without one. Nothing of C++'s runtime is used, so C links everything.

if(TARE_BUILD_CUDA)
  add_library(tare_cuda OBJECT ${cuda_sources})
  set_target_properties(tare_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                             CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY None)
  target_compile_options(tare_cuda PRIVATE
    -fmad=false # a fused multiply-add is written as one: kernels that share a formula share its rounding
    -Xcompiler=-Wall,-Wextra,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
    $<$<BOOL:${TARE_WERROR}>:-Werror=all-warnings>)
  # Six generations in a sixth of the space. CUDA 12.8 and 12.9 know it too, but their library then asks for driver 550
  # where 530 would do; that of CUDA 13 asks for 580 anyway.
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
    target_compile_options(tare_cuda PRIVATE --compress-mode=size)
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
