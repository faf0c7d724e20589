#!/usr/bin/env python3
"""evpl doctor on pictures of machines: folders with the files of /proc and /sys that it reads, good and bad ones.

usage: doctor_test.py [PATH-OF-EVPL] [unittest arguments]
"""
import errno
import json
import pathlib
import subprocess
import tempfile
import unittest

import support
from support import PATIENCE

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max open files            {files:20} {hard:20} files
Max locked memory         {memlock:20} {memlock:20} bytes
"""


def doctor(*arguments):
    return subprocess.run([support.command(), "doctor", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE)


class Picture(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.root = pathlib.Path(place.name)

    def put(self, path, text=""):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))

    def limits(self, files="20000", hard="20000", memlock="unlimited"):
        self.put("proc/self/limits", LIMITS.format(files=files, hard=hard, memlock=memlock))

    def cpus(self, n, governor=None):
        for i in range(n):
            self.put(f"sys/devices/system/cpu/cpu{i}/online", 1)
            if governor:
                self.put(f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor", governor + "\n")

    def card(self, name="eth0", queues=2, vendor="0x8086"):
        self.put(f"sys/class/net/{name}/device/vendor", vendor + "\n")
        for i in range(queues):
            self.put(f"sys/class/net/{name}/queues/rx-{i}/rps_cpus")

    def look(self):
        answer = doctor("--json", "--root", self.root)
        self.assertEqual(answer.stderr, "")
        document = json.loads(answer.stdout)
        self.assertEqual(answer.returncode, 1 if document["overall"] == "problem" else 0)
        return document

    def item(self, name):
        found = [one for one in self.look()["items"] if one["item"] == name]
        self.assertEqual(len(found), 1, name)
        if found[0]["rating"] in ("could be better", "problem"):
            self.assertTrue(found[0]["why"] and found[0]["command"], found[0])
        return found[0]

    def rated(self, name, rating, command=""):
        one = self.item(name)
        self.assertEqual(one["rating"], rating, one)
        self.assertIn(command, one["command"])

    def test_an_empty_machine_is_not_known_and_not_a_failure(self):
        document = self.look()
        self.assertEqual(document["overall"], "ok")
        self.assertEqual({one["rating"] for one in document["items"]}, {"ok", "not known"})
        self.assertLessEqual({"RDMA", "XLIO"}, {one["item"] for one in document["items"] if one["rating"] == "ok"})

    def test_descriptors(self):
        self.limits(files="1024", hard="524288")
        self.rated("descriptors", "could be better", "ulimit -n 65536")
        self.limits(files="1024", hard="4096")
        self.rated("descriptors", "could be better", "limits.d")
        self.limits(files="256", hard="256")
        self.rated("descriptors", "problem")
        self.assertEqual(self.look()["overall"], "problem")
        self.limits(files="unlimited", hard="unlimited")
        self.rated("descriptors", "ok")
        self.put("proc/self/limits", "Max open files            rubbish\n")
        self.rated("descriptors", "not known")

    def test_memlock(self):
        self.limits(memlock="65536")
        self.rated("memlock", "could be better", "memlock unlimited")
        self.put("sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
        self.rated("memlock", "problem")
        self.limits()
        self.rated("memlock", "ok")

    def test_sysctls(self):
        for name, good, bad, rating in [
            ("net.core.somaxconn", 4096, 128, "could be better"), ("net.core.somaxconn", 65535, 5, "problem"),
            ("net.core.rmem_max", 4194304, 212992, "could be better"), ("net.core.wmem_max", 212992, 65536, "could be better"),
            ("net.ipv4.tcp_rmem", "4096\t131072\t6291456", "4096\t16384\t65536", "could be better"),
            ("net.ipv4.tcp_wmem", "4096 16384 4194304", "4096 16384 65536", "could be better"),
            ("net.ipv4.tcp_congestion_control", "cubic", "bbr", "could be better"),
        ]:
            path = "proc/sys/" + name.replace(".", "/")
            self.put(path, f"{good}\n")
            self.rated(name, "ok")
            self.put(path, f"{bad}\n")
            self.rated(name, rating, "sysctl -w " + name)
        self.put("proc/sys/net/core/somaxconn", "rubbish\n")
        self.rated("net.core.somaxconn", "not known")
        self.put("proc/sys/net/ipv4/tcp_rmem", "4096\n")
        self.rated("net.ipv4.tcp_rmem", "not known")

    def test_busy_poll_matters_with_a_card(self):
        self.put("proc/sys/net/core/busy_poll", "0\n")
        self.rated("net.core.busy_poll", "ok")
        self.card()
        self.rated("net.core.busy_poll", "could be better", "net.core.busy_poll=50")
        self.put("proc/sys/net/core/busy_poll", "50\n")
        self.rated("net.core.busy_poll", "ok")

    def test_huge_pages(self):
        self.put("proc/meminfo", "MemTotal: 1 kB\nHugePages_Total:       0\nHugePages_Free:        0\n")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
        self.rated("huge pages", "could be better", "vm.nr_hugepages")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
        self.rated("huge pages", "ok")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        self.put("proc/meminfo", "HugePages_Free:       64\n")
        self.rated("huge pages", "ok")

    def test_numa(self):
        self.put("sys/devices/system/node/node0/cpulist", "0-3\n")
        self.put("sys/devices/system/node/possible", "0-1\n")
        self.put("proc/sys/kernel/numa_balancing", "1\n")
        self.rated("NUMA", "ok")
        self.put("sys/devices/system/node/node1/cpulist", "4-7\n")
        self.rated("NUMA", "could be better", "kernel.numa_balancing=0")
        self.put("proc/sys/kernel/numa_balancing", "0\n")
        self.rated("NUMA", "ok")

    def test_governor(self):
        self.cpus(2)
        self.rated("governor", "not known")
        self.cpus(2, "powersave")
        self.rated("governor", "could be better", "scaling_governor")
        self.cpus(2, "performance")
        self.rated("governor", "ok")

    def test_queues_and_interrupts_of_a_card(self):
        self.cpus(4)
        self.card(queues=1)
        self.put("sys/class/net/lo/queues/rx-0/rps_cpus")
        self.rated("eth0 queues", "could be better", "ethtool -L eth0 combined 4")
        self.rated("eth0 interrupts", "not known")
        self.card(queues=4)
        self.rated("eth0 queues", "ok")
        self.put("proc/interrupts", "      CPU0\n 24:  5  PCI-MSI 1-edge  eth0-rx-0\n 25:  5  PCI-MSI 2-edge  eth0-rx-1\n 26:  1  x  eth01\nNMI: 0  Non-maskable\n")
        for number in (24, 25):
            self.put(f"proc/irq/{number}/smp_affinity_list", "0\n")
        self.rated("eth0 interrupts", "could be better", "echo 0 > /proc/irq/24/smp_affinity_list; echo 1 > /proc/irq/25/smp_affinity_list")
        self.put("proc/irq/25/smp_affinity_list", "1\n")
        self.rated("eth0 interrupts", "ok")
        self.assertFalse([one for one in self.look()["items"] if one["item"].startswith("lo ")], "the loopback is no card")

    def test_io_uring(self):
        self.put("io_uring_setup", 0)
        self.rated("io_uring", "ok")
        self.put("io_uring_setup", errno.EPERM)
        self.rated("io_uring", "could be better", "seccomp")
        self.put("proc/sys/kernel/io_uring_disabled", "2\n")
        self.rated("io_uring", "could be better", "sysctl -w kernel.io_uring_disabled=0")
        self.put("io_uring_setup", errno.ENOSYS)
        self.rated("io_uring", "could be better", "uname")

    def test_rdma(self):
        self.put("sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
        self.put("dev/infiniband/rdma_cm")
        self.rated("RDMA mlx5_0 port 1", "ok")
        self.put("sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN\n")
        self.put("sys/class/infiniband/mlx5_0/device/net/ens1/mtu")
        self.rated("RDMA mlx5_0 port 1", "could be better", "ip link set ens1 up")
        (self.root / "dev/infiniband/rdma_cm").unlink()
        self.rated("RDMA connections", "problem", "modprobe rdma_ucm")

    def test_xlio(self):
        self.card()
        self.rated("XLIO", "ok")
        self.card(vendor="0x15b3")
        self.rated("XLIO", "could be better", "libxlio")
        self.put("usr/lib/x86_64-linux-gnu/libxlio.so.9")
        self.rated("XLIO", "ok")


class Here(unittest.TestCase):
    def test_this_machine_is_rated(self):
        document = json.loads(doctor("--json").stdout)
        self.assertEqual(list(document), ["overall", "items"])
        items = {one["item"]: one for one in document["items"]}
        self.assertLessEqual({"descriptors", "memlock", "net.core.somaxconn", "io_uring", "RDMA", "XLIO"} - {"RDMA"}, set(items))
        for one in items.values():
            self.assertEqual(list(one), ["topic", "item", "value", "rating", "why", "command"])
            self.assertIn(one["rating"], ("ok", "could be better", "problem", "not known"))
        self.assertIn(items["io_uring"]["rating"], ("ok", "could be better"), "the kernel was asked")

    def test_text_says_the_same(self):
        text, document = doctor().stdout, json.loads(doctor("--json").stdout)
        self.assertIn(f"overall: {document['overall']} (", text)
        for one in document["items"]:
            self.assertIn(one["item"], text)
            self.assertIn(one["command"], text)


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
