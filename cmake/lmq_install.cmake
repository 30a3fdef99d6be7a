# What cmake --install makes beside the program and the plug-in (their own folders say so): libraries and headers as a CMake
# package and for pkg-config, manual pages, completion, settings for shells and for environment modules, jobs, docs.
include(CMakePackageConfigHelpers)
set(LMQ_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/lmq)
set(LMQ_INSTALL_SHAREDIR ${CMAKE_INSTALL_DATADIR}/lmq)

set(libraries lmq_options)
set(archives "")
foreach(room IN LISTS LMQ_ROOMS)
  if(NOT room MATCHES "^(app|h5filter)$")  # the door, and the plug-in's part
    list(APPEND libraries lmq_${room})
    list(PREPEND archives -llmq_${room})
    set_target_properties(lmq_${room} PROPERTIES EXPORT_NAME ${room})
  endif()
endforeach()
set_target_properties(lmq_options PROPERTIES EXPORT_NAME options)
list(APPEND libraries lmq_xxhash)
set_target_properties(lmq_xxhash PROPERTIES EXPORT_NAME xxhash)
install(TARGETS ${libraries} EXPORT lmqTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT lmqTargets NAMESPACE lmq:: DESTINATION ${LMQ_INSTALL_CMAKEDIR})
install(DIRECTORY include/lmq DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp" PATTERN "*.inc")

configure_package_config_file(cmake/lmqConfig.cmake.in ${CMAKE_BINARY_DIR}/install/lmqConfig.cmake
  INSTALL_DESTINATION ${LMQ_INSTALL_CMAKEDIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/install/lmqConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/install/lmqConfig.cmake ${CMAKE_BINARY_DIR}/install/lmqConfigVersion.cmake
  DESTINATION ${LMQ_INSTALL_CMAKEDIR})

# For pkg-config: every room but the one with MPI.
list(REMOVE_ITEM archives -llmq_run_mpi)
list(JOIN archives " " LMQ_PC_ARCHIVES)
set(LMQ_PC_OTHERS "")
foreach(library IN LISTS HDF5_C_LIBRARIES)
  if(IS_ABSOLUTE "${library}" OR library MATCHES "^-")
    string(APPEND LMQ_PC_OTHERS " ${library}")
  else()
    string(APPEND LMQ_PC_OTHERS " -l${library}")
  endif()
endforeach()
string(APPEND LMQ_PC_OTHERS " ${XXHASH_LIBRARY} ${OpenMP_CXX_FLAGS} -pthread")

# Settings name the folder that is installed into, which is known then only.
set(settings ${CMAKE_BINARY_DIR}/install/settings.cmake)
configure_file(cmake/install_settings.cmake.in ${settings} @ONLY)
install(SCRIPT ${settings})

install(PROGRAMS jobs/quantize.sbatch jobs/quantize-mpirun.sh jobs/quantize-array.sbatch jobs/calibrate.sbatch
  DESTINATION ${LMQ_INSTALL_SHAREDIR}/jobs)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY tests/install/ DESTINATION ${LMQ_INSTALL_SHAREDIR}/example)

# Manual pages and completion are written by the program itself.
if(CMAKE_CROSSCOMPILING AND NOT CMAKE_CROSSCOMPILING_EMULATOR)
  message(STATUS "cross compiling: no manual pages and no completion, since the program cannot run here")
else()
  set(pages "")
  set(run lmq)
  if(LMQ_SANITIZE)
    set(run ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0 $<TARGET_FILE:lmq>)  # of MPI, before anything has begun
  endif()
  file(STRINGS src/app/option_table.cpp commands REGEX "^ *\\{Command::[a-z_]+, \"")
  list(TRANSFORM commands REPLACE "^ *\\{Command::[a-z_]+, \"([a-z]+)\".*$" "\\1")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/app/option_table.cpp)
  foreach(command "" ${commands})
    set(page ${CMAKE_BINARY_DIR}/install/lmq-${command}.1)
    if(NOT command)
      set(page ${CMAKE_BINARY_DIR}/install/lmq.1)
    endif()
    add_custom_command(OUTPUT ${page} COMMAND ${run} --man ${command} > ${page} DEPENDS lmq VERBATIM)
    list(APPEND pages ${page})
  endforeach()
  set(completion ${CMAKE_BINARY_DIR}/install/lmq.bash)
  add_custom_command(OUTPUT ${completion} COMMAND ${run} --completion bash > ${completion} DEPENDS lmq VERBATIM)
  add_custom_target(lmq_manual ALL DEPENDS ${pages} ${completion})
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${completion} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME lmq)
endif()

add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -DMANIFEST=${CMAKE_BINARY_DIR}/install_manifest.txt
  -DPREFIX_FILE=${CMAKE_BINARY_DIR}/install/prefix.txt
  -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/uninstall.cmake VERBATIM)
