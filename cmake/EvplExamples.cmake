# One program per file of examples/; those in C are called <name>_c.

file(GLOB evpl_example_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.cpp ${PROJECT_SOURCE_DIR}/examples/*.c)
foreach(source IN LISTS evpl_example_sources)
  cmake_path(GET source STEM name)
  cmake_path(GET source EXTENSION LAST_ONLY language)
  if(language STREQUAL ".c")
    set(name ${name}_c)
  endif()
  add_executable(example_${name} ${source})
  evpl_compile_as_check(example_${name})
  # The objects hold machine code too: linking that is quick, and an example gains nothing from more.
  set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name} C_STANDARD 11 C_EXTENSIONS OFF LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples INTERPROCEDURAL_OPTIMIZATION OFF)
  if(evpl_lto AND evpl_gcc)
    target_link_options(example_${name} PRIVATE -fno-lto)
  endif()
  target_link_libraries(example_${name} PRIVATE evpl_static Threads::Threads)
endforeach()
