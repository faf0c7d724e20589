# bench/CMakeLists.txt, where present, builds the end-to-end programs; bench/**/*_bench.cpp are Google Benchmarks.
# All land in bin/bench.

file(GLOB_RECURSE bench_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/*_bench.cpp)
if(bench_sources)
  find_package(benchmark REQUIRED)
endif()
foreach(source IN LISTS bench_sources)
  cmake_path(GET source STEM program)
  add_executable(${program} ${source})
  evpl_compile_like_us(${program})
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin/bench)
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/bench)
  target_link_libraries(${program} PRIVATE evpl_static benchmark::benchmark benchmark::benchmark_main Threads::Threads)
endforeach()
if(EXISTS ${PROJECT_SOURCE_DIR}/bench/CMakeLists.txt)
  add_subdirectory(bench)
endif()
include(EvplXlioDouble)
