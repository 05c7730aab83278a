# SPDX-License-Identifier: Apache-2.0
# What is installed: the header, both libraries, tare.pc, and what find_package(tare) reads. The tool installs itself
# in tool/CMakeLists.txt.
include(CMakePackageConfigHelpers)

install(FILES "${PROJECT_SOURCE_DIR}/include/tare.h" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/NOTICE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")

# Two files of targets: the static library needs the OpenMP and CUDA runtimes that it was compiled for, the shared one
# brings them.
set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/tare")
install(TARGETS tare EXPORT tareTargets)
install(TARGETS tare_static EXPORT tareStaticTargets)
install(EXPORT tareTargets NAMESPACE tare:: DESTINATION "${package_folder}")
install(EXPORT tareStaticTargets NAMESPACE tare:: DESTINATION "${package_folder}")
configure_package_config_file(cmake/tareConfig.cmake.in tareConfig.cmake INSTALL_DESTINATION "${package_folder}")
write_basic_package_version_file(tareConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/tareConfig.cmake" "${PROJECT_BINARY_DIR}/tareConfigVersion.cmake"
        DESTINATION "${package_folder}")

set(pc_private_libraries "-lm -ldl -Wl,-z,nodelete") # see library.cmake
if(TARE_BUILD_OPENMP)
  foreach(name IN LISTS OpenMP_C_LIB_NAMES)
    cmake_path(GET OpenMP_${name}_LIBRARY PARENT_PATH folder)
    if(NOT folder IN_LIST CMAKE_C_IMPLICIT_LINK_DIRECTORIES)
      string(APPEND pc_private_libraries " -L${folder}")
    endif()
    string(APPEND pc_private_libraries " -l${name}")
  endforeach()
endif()
if(TARE_BUILD_CUDA)
  cmake_path(GET CUDA_cudart_static_LIBRARY PARENT_PATH folder)
  string(APPEND pc_private_libraries " -L${folder} -lcudart_static -lrt -lpthread")
endif()
# Relative to the .pc file, so that an installed tree can be moved; GNUInstallDirs may give absolute folders instead.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR BASE_DIRECTORY "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig"
           OUTPUT_VARIABLE pc_includedir)
configure_file(cmake/tare.pc.in tare.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/tare.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# Inside the Python package there is the shared library alone, once: a wheel keeps no links.
if(SKBUILD)
  install(FILES $<TARGET_FILE:tare> DESTINATION lib RENAME libtare.so COMPONENT python)
endif()
