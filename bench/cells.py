"""The matrix: what is run, against whom, and which bars the library has to clear."""
from dataclasses import dataclass, field

CPU, RATE, MB, P50 = "server_cpu_us_per_request", "requests_per_s", "mb_per_s", "p50_us"
MEMORY = "private_bytes_per_connection"
HIGHER_IS_BETTER = {RATE, MB}

# Worst ratio evpl/floor that passes. For costs (CPU, latency) it is an upper bound, else a lower one.
ECHO_BARS = {CPU: 1 / 0.96, RATE: 0.95, P50: 1 / 0.95}
STREAM_BARS = {CPU: 1 / 0.96, MB: 0.95}
CONNECT_BARS = {CPU: 1 / 0.93, RATE: 0.93}
UDP_BARS = {CPU: 1 / 0.96, RATE: 0.96}


@dataclass(frozen=True)
class Server:
    """One row of a cell: a program and how it waits."""
    name: str
    program: str            # epoll_echo, udp_echo, uv_echo, asio_echo, uring_echo or evpl
    arguments: tuple = ()
    scheme: str = ""        # evpl: instead of what the command line says


@dataclass(frozen=True)
class Claim:
    """One row against the best of others; against none, the figure itself."""
    server: str
    against: tuple
    metric: str
    bar: float


@dataclass(frozen=True)
class Cell:
    name: str
    wait: str               # sleep, spin, or mixed
    load: tuple             # mode and options of the load generator
    servers: tuple
    bars: dict = field(default_factory=dict)
    shown: tuple = (RATE, P50, "p99_us", CPU, "server_cpu_percent")
    udp: bool = False
    seconds: float = 0      # at least this long per run
    rounds: int = 0         # instead of --rounds
    claims: tuple = ()


def tcp_servers(wait):
    spin = ("--spin",) if wait == "spin" else ()
    evpl = ([Server("evpl", "evpl", ("--mode", "poll"))] if wait == "spin" else
            [Server("evpl", "evpl", ("--mode", "event")), Server("evpl-hybrid", "evpl", ("--mode", "hybrid"))])
    return (Server("floor-A", "epoll_echo", spin), *evpl, Server("floor-B", "epoll_echo", spin),
            Server("libuv", "uv_echo", spin), Server("asio", "asio_echo", spin), Server("liburing", "uring_echo", spin))


def uring_servers(wait):
    """Both of our engines, and both by hand, in one round."""
    spin = ("--spin",) if wait == "spin" else ()
    mode = ("--mode", "poll" if wait == "spin" else "event")
    return (Server("floor-A", "epoll_echo", spin), Server("uring", "evpl", mode, "uring"), Server("epoll", "evpl", mode, "tcp"),
            Server("liburing", "uring_echo", spin), Server("floor-B", "epoll_echo", spin))


def uring(name, wait, load, metric, bar, shown=(RATE, P50, "p99_us", CPU, "server_cpu_percent")):
    """io_uring against epoll, ours or by hand, whichever is better there, and against liburing by hand."""
    claims = (Claim("uring", ("floor-A", "floor-B", "epoll"), metric, bar),
              Claim("uring", ("liburing",), metric, 0.97 if metric in HIGHER_IS_BETTER else 1 / 0.97))
    return Cell(f"uring-{name}", wait, load, uring_servers(wait), {}, shown, claims=claims)


def udp_servers(wait, gso):
    floor = (("--spin",) if wait == "spin" else ()) + (("--gso",) if gso else ())
    evpl = ([Server("evpl", "evpl", ("--mode", "poll"))] if wait == "spin" else
            [Server("evpl", "evpl", ("--mode", "event")), Server("evpl-hybrid", "evpl", ("--mode", "hybrid"))])
    return (Server("floor-A", "udp_echo", floor), *evpl, Server("floor-B", "udp_echo", floor))


GAP_SERVERS = (Server("floor-sleep", "epoll_echo"), Server("evpl-event", "evpl", ("--mode", "event")),
               Server("evpl-hybrid", "evpl", ("--mode", "hybrid")), Server("evpl-poll", "evpl", ("--mode", "poll")),
               Server("floor-spin", "epoll_echo", ("--spin",)))


# One echo through another interface, the row that is judged; C++ callbacks are the floor.
CO_BARS = {CPU: 1 / 0.96, P50: 1.05}


def interface(name, program, connections, bars):
    servers = (Server("floor-A", "evpl_echo_cpp"), Server("evpl", program), Server("floor-B", "evpl_echo_cpp"))
    return Cell(name, "sleep", ("closed", "--connections", connections, "--size", 64, "--depth", 1), servers, bars)


def echo(name, wait, connections, size, depth=1):
    load = ("closed", "--connections", connections, "--size", size, "--depth", depth)
    return Cell(name, wait, load, tcp_servers(wait), ECHO_BARS)


def udp(name, wait, size, gso):
    load = ("udp", "--size", size, "--depth", 64) + (("--gso",) if gso else ())
    return Cell(name, wait, load, udp_servers(wait, gso), UDP_BARS, udp=True, shown=(RATE, MB, P50, CPU, "server_cpu_percent", "lost"))


def hold(name, connections, seconds, shown):
    return Cell(name, "sleep", ("hold", "--connections", connections), tcp_servers("sleep"), {}, shown, seconds=seconds, rounds=3)


def all_cells():
    cells = []
    for wait in ("sleep", "spin"):
        cells += [
            echo("echo-1x64", wait, 1, 64),
            echo("echo-64x64", wait, 64, 64),
            echo("echo-1000x64", wait, 1000, 64),
            echo("echo-64x64-depth16", wait, 64, 64, 16),
            echo("echo-64x4096", wait, 64, 4096),
            Cell("stream-8x262144", wait, ("stream", "--connections", 8, "--size", 262144), tcp_servers(wait), STREAM_BARS,
                 (MB, CPU, "server_cpu_percent")),
            Cell("connect", wait, ("connect", "--connections", 16), tcp_servers(wait), CONNECT_BARS),
            udp("udp-64", wait, 64, False),
            udp("udp-1400", wait, 1400, False),
            udp("udp-64-gso", wait, 64, True),
            udp("udp-1400-gso", wait, 1400, True),
        ]
    # Below saturation: 30 % of what 64 connections reach on the machine of the README, and the same spread over 1000, few of them busy at once.
    for connections in (64, 1000):
        cells.append(Cell(f"open-{connections}x64", "sleep", ("open", "--connections", connections, "--size", 64, "--rate", 45000, "--poisson"),
                          tcp_servers("sleep"), {CPU: 1 / 0.96}, (P50, "p99_us", CPU, "server_cpu_percent")))
    for gap_us in (20, 200, 2000, 20000):
        cells.append(Cell(f"hybrid-gaps-{gap_us}us", "mixed", ("open", "--gap-us", gap_us), GAP_SERVERS, {},
                          (P50, "p99_us", "server_cpu_percent", CPU), seconds=gap_us * 200 / 1e6, rounds=3))
    cells.append(interface("echo-c-64x64", "evpl_echo_c", 64, ECHO_BARS))
    cells.append(interface("echo-co-64x64", "evpl_echo_co", 64, CO_BARS))
    cells.append(interface("echo-co-1x64", "evpl_echo_co", 1, CO_BARS))
    cells.append(hold("idle-1000", 1000, 10, ("server_cpu_percent", "server_voluntary_switches")))
    cells.append(hold("memory-5000", 5000, 0.5, (MEMORY, "rss_bytes_per_connection")))
    return cells + uring_cells()


def uring_cells():
    closed = lambda connections: ("closed", "--connections", connections, "--size", 64)
    cells = [
        uring("open-64x64", "sleep", ("open", "--connections", 64, "--size", 64, "--rate", 45000, "--poisson"), CPU, 0.95),
        uring("64x64", "sleep", closed(64), CPU, 1.03),
        uring("1x64", "sleep", closed(1), P50, 1.05),
        uring("1x64", "spin", closed(1), P50, 1.05),
        uring("stream-8x65536", "sleep", ("stream", "--connections", 8, "--size", 65536), MB, 0.95, (MB, CPU, "server_cpu_percent")),
        uring("turns-1000x64", "sleep", ("turns", "--connections", 1000, "--size", 64, "--active", 10), CPU, 1.0),
    ]
    cells.append(Cell("uring-memory-5000", "sleep", ("hold", "--connections", 5000), uring_servers("sleep"), {}, (MEMORY, "rss_bytes_per_connection"),
                      seconds=0.5, rounds=3, claims=(Claim("uring", (), MEMORY, 2048),)))
    return cells
