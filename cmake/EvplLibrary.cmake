# The library: every source is compiled once, position independent, and goes into both evpl (shared) and evpl_static.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
set(evpl_private_libraries Threads::Threads ${CMAKE_DL_LIBS})
set(evpl_private_packages "")
if(EVPL_WITH_CARES)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(CARES REQUIRED libcares)
  # By name: the exported targets must not hold this machine's paths.
  list(APPEND evpl_private_libraries ${CARES_LIBRARIES})
  link_directories(${CARES_LIBRARY_DIRS})
  set(evpl_private_packages libcares)
endif()

# The headers of rdma-core declare what is loaded at run time; without them the backend reports itself absent.
include(CheckIncludeFileCXX)
check_include_file_cxx(rdma/rdma_cma.h EVPL_HAS_RDMA_HEADERS)

file(GLOB_RECURSE evpl_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/*.cpp)
file(GLOB evpl_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/evpl/*.hpp ${PROJECT_SOURCE_DIR}/include/evpl/*.h)
if(EVPL_HAS_RDMA_HEADERS)
  list(FILTER evpl_sources EXCLUDE REGEX "/transport/rdma/absent\\.cpp$")
else()
  list(FILTER evpl_sources EXCLUDE REGEX "/transport/rdma/(control|control_datagrams|control_path|datagrams|datapath|device|options|port|raw|remote|setup|transport|verbs)\\.cpp$")
endif()
if(NOT evpl_sources)
  message(FATAL_ERROR "no sources below ${PROJECT_SOURCE_DIR}/src")
endif()

# Symbols are hidden, except what the public headers declare between `#pragma GCC visibility` push and pop.
# Where evpl-xlio-probe is looked for, which tries NVIDIA's library before a program does.
include(GNUInstallDirs)
set(evpl_xlio_probe_path ${CMAKE_INSTALL_FULL_LIBDIR}/evpl/evpl-xlio-probe)

add_library(evpl_objects OBJECT ${evpl_sources})
evpl_compile_like_us(evpl_objects)
evpl_compile_together(evpl_objects ${evpl_sources})
evpl_profile(evpl_objects)
set_target_properties(evpl_objects PROPERTIES POSITION_INDEPENDENT_CODE ON VISIBILITY_INLINES_HIDDEN ON CXX_VISIBILITY_PRESET hidden)
target_compile_definitions(evpl_objects PRIVATE
  EVPL_VERSION_STRING="${PROJECT_VERSION}" EVPL_XLIO_PROBE="${evpl_xlio_probe_path}"
  $<$<BOOL:${EVPL_WITH_CARES}>:EVPL_WITH_CARES=1>)
target_include_directories(evpl_objects PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_include_directories(evpl_objects SYSTEM PRIVATE ${CARES_INCLUDE_DIRS})
# fmt is compiled in: users neither see it nor need it.
target_link_libraries(evpl_objects PRIVATE fmt::fmt-header-only Threads::Threads)

if(EVPL_XLIO_STATIC)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/src/transport/xlio/table.cpp PROPERTIES COMPILE_DEFINITIONS EVPL_XLIO_STATIC=1)
  list(APPEND evpl_private_libraries ${EVPL_XLIO_STATIC})
endif()

add_library(evpl SHARED $<TARGET_OBJECTS:evpl_objects>)
add_library(evpl_static STATIC $<TARGET_OBJECTS:evpl_objects>)
add_library(evpl::evpl ALIAS evpl)
add_library(evpl::evpl_static ALIAS evpl_static)
set_target_properties(evpl PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
set_target_properties(evpl_static PROPERTIES OUTPUT_NAME evpl)
if(NOT EVPL_SANITIZE)
  target_link_options(evpl PRIVATE LINKER:--no-undefined)
endif()
# What belongs to the process, and to threads that may end later, stays loaded.
target_link_options(evpl PRIVATE LINKER:-z,nodelete)
# Symbol versions: the C interface under its own node, which only ever grows.
set(evpl_version_script ${PROJECT_SOURCE_DIR}/cmake/evpl.map)
target_link_options(evpl PRIVATE LINKER:--version-script=${evpl_version_script})
set_target_properties(evpl PROPERTIES LINK_DEPENDS ${evpl_version_script})

foreach(library evpl evpl_static)
  target_compile_features(${library} PUBLIC cxx_std_20)
  set_target_properties(${library} PROPERTIES LINKER_LANGUAGE CXX INTERPROCEDURAL_OPTIMIZATION ${evpl_lto})
  target_include_directories(${library} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_link_libraries(${library} PRIVATE ${evpl_private_libraries})
endforeach()
if(EVPL_DEBUG)
  target_compile_definitions(evpl_objects PRIVATE EVPL_DEBUG=1)
  target_compile_definitions(evpl INTERFACE EVPL_DEBUG=1)
  target_compile_definitions(evpl_static INTERFACE EVPL_DEBUG=1)
endif()

# Modules that are headers on top of the library: evpl::<name> for include/evpl/<name>.hpp, where it exists.
set(evpl_modules "")
foreach(module co)
  if(EXISTS ${PROJECT_SOURCE_DIR}/include/evpl/${module}.hpp)
    add_library(evpl_${module} INTERFACE)
    add_library(evpl::${module} ALIAS evpl_${module})
    set_target_properties(evpl_${module} PROPERTIES EXPORT_NAME ${module})
    target_link_libraries(evpl_${module} INTERFACE evpl)
    list(APPEND evpl_modules evpl_${module})
  endif()
endforeach()
