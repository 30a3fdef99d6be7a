# Everything the build needs, from system packages; nothing is downloaded.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.9 REQUIRED)
find_package(hwy REQUIRED)
find_package(ZLIB 1.2.9 REQUIRED)
find_package(Boost 1.70 REQUIRED COMPONENTS program_options)

set(MPI_CXX_SKIP_MPICXX TRUE)
find_package(MPI REQUIRED COMPONENTS C CXX)

# The C API only: asking for CXX may silently give another library. Either build serves; no call of ours is collective.
if(LMQ_HDF5 STREQUAL "parallel")
  set(HDF5_PREFER_PARALLEL TRUE)
endif()
find_package(HDF5 1.10 REQUIRED COMPONENTS C)
if(LMQ_HDF5 STREQUAL "parallel" AND NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "LMQ_HDF5=parallel, but the HDF5 that was found (${HDF5_C_LIBRARIES}) is serial")
endif()

find_path(HWY_INCLUDE_DIR hwy/highway.h REQUIRED)
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
find_library(XXHASH_LIBRARY xxhash REQUIRED)
add_library(lmq_xxhash INTERFACE)
target_include_directories(lmq_xxhash SYSTEM INTERFACE $<BUILD_INTERFACE:${XXHASH_INCLUDE_DIR}>)
target_link_libraries(lmq_xxhash INTERFACE ${XXHASH_LIBRARY})
