include(EvplXlioDouble)

# What scripts/profile.sh runs. RDMA is left out where its headers are missing.
add_custom_target(evpl_traffic)
foreach(program evpl-command xlio_pair rdma_double)
  if(TARGET ${program})
    add_dependencies(evpl_traffic ${program})
  endif()
endforeach()
