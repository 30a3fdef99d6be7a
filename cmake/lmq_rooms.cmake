# Rooms are targets; cmake/layers.txt says which room may use which.
set(LMQ_LAYERS ${CMAKE_SOURCE_DIR}/cmake/layers.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${LMQ_LAYERS})
file(STRINGS ${LMQ_LAYERS} layer_lines REGEX "^[a-z0-9_]+:")  # folders of a room are one target
foreach(line IN LISTS layer_lines)
  string(REGEX MATCH "^([a-z0-9_]+):(.*)$" matched "${line}")
  separate_arguments(below UNIX_COMMAND "${CMAKE_MATCH_2}")
  set(LMQ_BELOW_${CMAKE_MATCH_1} ${below})
  list(APPEND LMQ_ROOMS ${CMAKE_MATCH_1})
endforeach()

add_library(lmq_options INTERFACE)
target_include_directories(lmq_options INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
# Same bits everywhere: no fused multiply-add unless the source says so. That holds for users of the headers, too, since the
# linker may keep their copy of an inline function; warnings are ours.
target_compile_options(lmq_options INTERFACE -ffp-contract=off
  $<BUILD_INTERFACE:-Wall> $<BUILD_INTERFACE:-Wextra> $<BUILD_INTERFACE:-Wshadow> $<BUILD_INTERFACE:$<$<BOOL:${LMQ_WERROR}>:-Werror>>)
target_compile_features(lmq_options INTERFACE cxx_std_20)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(lmq_options INTERFACE $<BUILD_INTERFACE:-Wno-restrict>)  # false alarms on "text" + string (GCC bug 105651)
endif()
if(LMQ_SANITIZE)
  # With sanitizers GCC sees uninitialized members in std::regex (GCC bug 105562).
  target_compile_options(lmq_options INTERFACE -fsanitize=${LMQ_SANITIZE} -fno-omit-frame-pointer -g -Wno-maybe-uninitialized)
  target_link_options(lmq_options INTERFACE -fsanitize=${LMQ_SANITIZE})
endif()

# lmq_add_room(NAME SOURCES a.cpp ... [LINKS other targets ...])
function(lmq_add_room room)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(lmq_${room} STATIC ${ARG_SOURCES})
  target_link_libraries(lmq_${room} PUBLIC lmq_options PRIVATE ${ARG_LINKS})
  foreach(below IN LISTS LMQ_BELOW_${room})
    target_link_libraries(lmq_${room} PUBLIC lmq_${below})
  endforeach()
endfunction()
