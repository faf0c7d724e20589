# The list of the lab: what runs in its guest. Time there is ten times as long as on the machine itself, and all of it must fit into
# ten minutes; what takes longer is NIGHT.

# Soft-RoCE itself, with programs we did not write: what our own tests stand on.
foreach(what rc ud multicast)
  evpl_add_lab_test(soft_roce.${what}.dummy DEVICES dummy SECONDS 60 COMMAND "bash tests/lab/soft_roce.sh ${what}")
endforeach()
foreach(what rc ud loss link_down removal)  # multicast does not cross the cable
  evpl_add_lab_test(soft_roce.${what}.veth DEVICES veth SECONDS 60 COMMAND "bash tests/lab/soft_roce.sh ${what}")
endforeach()

# io_uring of the oldest kernel that the backend takes, and of a later one: sockets there are the kernel's, not a tier's of a newer one.
foreach(kernel 6.1 6.12)
  string(REPLACE . _ name linux_${kernel})
  evpl_add_lab_test(uring.ring.${name} KERNEL ${kernel} DEVICES none SECONDS 60
    COMMAND "$<TARGET_FILE:unit_tests> --gtest_filter='RingTest.*'")
  evpl_add_lab_test(uring.fault.${name} KERNEL ${kernel} DEVICES none SECONDS 90
    COMMAND "$<TARGET_FILE:fault_tests> --gtest_filter='*UringTest.*'")
  evpl_add_lab_test(uring.conformance.${name}.all KERNEL ${kernel} DEVICES none SECONDS 900 NIGHT
    COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/uring*-*_10000'")
endforeach()
evpl_add_lab_test(uring.conformance.linux_6_1 KERNEL 6.1 DEVICES none SECONDS 300
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/uring:*/uring_unix:*/uring_udp'")
evpl_add_lab_test(uring.conformance.linux_6_12 KERNEL 6.12 DEVICES none SECONDS 200
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/uring'")

# RDMA, by the same suite as every transport. A listener binds to one device, and so server and client share it; with veth, that is an end of
# the cable, and a part of the suite shows that it works there.
evpl_add_lab_test(rdma.conformance.dummy DEVICES dummy SECONDS 300
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/rdma*-*_10000:*/rdma_raw'")
# A raw message is one SEND, as large as a receive block: tests whose single sends are larger do not apply to that row.
set(no_raw "*TransferTest*/rdma_raw:*DrainsBeforeItStops/rdma_raw")
evpl_add_lab_test(rdma.conformance.raw DEVICES dummy SECONDS 100
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*ConnectTest*/rdma_raw:*NativeMessageTest*/rdma_raw:*RemoteTest*/rdma_raw'")
evpl_add_lab_test(rdma.conformance.raw.all DEVICES dummy SECONDS 300 NIGHT
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/rdma_raw-${no_raw}'")
evpl_add_lab_test(rdma.conformance.veth DEVICES veth SECONDS 200
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*TransferTest*/rdma*:*RemoteTest*/rdma*:*PacketTest*/rdma*-${no_raw}'")
evpl_add_lab_test(rdma.conformance.veth.all DEVICES veth SECONDS 600 NIGHT
  COMMAND "$<TARGET_FILE:conformance_tests> --gtest_filter='*/rdma*-*_10000:${no_raw}'")

# What the wire and the device do to connections, and peers that are not ours.
evpl_add_lab_test(rdma.faults.veth DEVICES veth SECONDS 180 COMMAND "$<TARGET_FILE:rdma_tests> --gtest_filter=CableTest.*:RawTest.*")

# Programs that know nothing of evpl.
evpl_add_lab_test(rdma.interop.veth DEVICES veth SECONDS 120 COMMAND "$<TARGET_FILE:rdma_tests> --gtest_filter=InteropTest.*")
evpl_add_lab_test(rdma.interop.dummy DEVICES dummy SECONDS 120 NIGHT COMMAND "$<TARGET_FILE:rdma_tests> --gtest_filter=InteropTest.*")

# Timers, deadlines and limits while the time of day jumps by a year.
string(JOIN ":" by_the_clock "*LoopTest*Timer*" "*LoopTest*Periods*" "*PressureTest.Notices*/tcp" "*PressureTest.Notices*/uring" "*PressureTest.CountsIdle*/tcp"
  "*EndTest.GivesUp*/tcp" "*LifetimeTest.Stops*/tcp")
evpl_add_lab_test(clock.jumps DEVICES none SECONDS 120
  COMMAND "bash tests/lab/clock_jumps.sh $<TARGET_FILE:conformance_tests> --gtest_filter='${by_the_clock}'")
