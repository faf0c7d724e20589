# A stand-in for libibverbs and librdmacm, with two devices of its own; loaded at run time like the real ones, by tests and a benchmark.
if(EVPL_HAS_RDMA_HEADERS)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/verbs_double/*.cpp)
  add_library(verbs_double MODULE ${sources})
  if(EVPL_SANITIZE)
    evpl_compile_as_check(verbs_double)
  else()
    evpl_compile_like_us(verbs_double)  # its instructions are counted
  endif()
  set_target_properties(verbs_double PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests LINK_DEPENDS ${PROJECT_SOURCE_DIR}/tests/verbs_double/exports.map)
  target_link_options(verbs_double PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/tests/verbs_double/exports.map)
  target_link_libraries(verbs_double PRIVATE Threads::Threads)
  set(evpl_verbs_double ${PROJECT_BINARY_DIR}/tests/libverbs_double.so)

  # What our loop costs on it, counted. Also a test: what it counts does not depend on the machine. Its malloc counts, which sanitizers would not survive.
  if(NOT EVPL_SANITIZE)
    add_executable(rdma_double ${PROJECT_SOURCE_DIR}/bench/rdma_double/main.cpp)
    evpl_compile_like_us(rdma_double)
    set_target_properties(rdma_double PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin/bench)
    target_compile_definitions(rdma_double PRIVATE VERBS_DOUBLE_PATH="${evpl_verbs_double}")
    target_link_libraries(rdma_double PRIVATE evpl_static Threads::Threads ${CMAKE_DL_LIBS})
    add_dependencies(rdma_double verbs_double)
  endif()
endif()
