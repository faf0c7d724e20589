#pragma once

// The endpoints that the conformance suite runs over. Which of them this library knows, and which are present on this
// machine, evpl::transports() tells: an absent one is listed and skipped with its reason.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "evpl/endpoint.hpp"
#include "evpl/loop.hpp"
#include "evpl/transport_info.hpp"

namespace evpl::test {

struct Row {
    const char* name;    ///< the last part of the test's name
    const char* scheme;  ///< as transports() lists it
    const char* url;     ///< # becomes a fresh number, % a directory, $ the address of an RDMA device
    Kind kind;
};

inline constexpr std::array rows{
    Row{"tcp", "tcp", "tcp://127.0.0.1:0", Kind::stream},
    Row{"tcp6", "tcp", "tcp://[::1]:0", Kind::stream},
    Row{"tcp_zero_copy", "tcp", "tcp://127.0.0.1:0?zerocopy=true", Kind::stream},
    Row{"unix", "unix", "unix://%/#.sock", Kind::stream},
    Row{"unix_abstract", "unix", "unix://@evpl-test-#", Kind::stream},
    Row{"unix_msg", "unix", "unix://%/#.sock?mode=msg", Kind::message},
    Row{"inproc", "inproc", "inproc://test-#", Kind::stream},
    Row{"inproc_msg", "inproc", "inproc://test-#?mode=msg", Kind::message},
    Row{"uring", "uring", "uring://127.0.0.1:0", Kind::stream},
    Row{"uring6", "uring", "uring://[::1]:0", Kind::stream},
    Row{"uring_linux_6_1", "uring", "uring://127.0.0.1:0?tier=0", Kind::stream},
    Row{"uring_small", "uring", "uring://127.0.0.1:0?tier=1&entries=8", Kind::stream},
    Row{"uring_zero_copy", "uring", "uring://127.0.0.1:0?zerocopy=true", Kind::stream},
    Row{"uring_unix", "uring-unix", "uring-unix://%/#.sock", Kind::stream},
    Row{"uring_unix_msg", "uring-unix", "uring-unix://%/#.sock?mode=msg", Kind::message},
    Row{"xlio", "xlio", "xlio://127.0.0.1:0", Kind::stream},
    Row{"rdma", "rdma", "rdma://$:0", Kind::stream},
    Row{"rdma_msg", "rdma", "rdma://$:0?mode=msg", Kind::message},
    Row{"rdma_raw", "rdma", "rdma://$:0?wire=raw&block=32k&receives=14&depth=16", Kind::message},
    Row{"udp", "udp", "udp://127.0.0.1:0", Kind::datagram},
    Row{"udp6", "udp", "udp://[::1]:0", Kind::datagram},
    Row{"uring_udp", "uring-udp", "uring-udp://127.0.0.1:0", Kind::datagram},
    Row{"rdma_ud", "rdma-ud", "rdma-ud://$:0", Kind::datagram},
};

inline std::ostream& operator<<(std::ostream& out, const Row& row) { return out << row.url; }

inline const TransportInfo* info_of(std::string_view scheme) {
    for (const TransportInfo& info : transports())
        if (info.scheme == scheme) return &info;
    return nullptr;
}

/// Rows of these kinds whose scheme this library knows, present or not.
inline std::vector<Row> rows_of(std::initializer_list<Kind> kinds) {
    std::vector<Row> chosen;
    for (const Row& row : rows)
        if (std::find(kinds.begin(), kinds.end(), row.kind) != kinds.end() && info_of(row.scheme) != nullptr) chosen.push_back(row);
    return chosen;
}
inline auto connection_rows() { return testing::ValuesIn(rows_of({Kind::stream, Kind::message})); }
inline auto stream_rows() { return testing::ValuesIn(rows_of({Kind::stream})); }
inline auto message_rows() { return testing::ValuesIn(rows_of({Kind::message})); }
inline auto datagram_rows() { return testing::ValuesIn(rows_of({Kind::datagram})); }

inline std::string name_of_row(const testing::TestParamInfo<Row>& info) { return info.param.name; }

inline bool machine_has_ipv6() {
    static const bool has = [] {
        sockaddr_in6 address{};
        address.sin6_family = AF_INET6;
        address.sin6_addr = in6addr_loopback;
        const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        const bool ok = fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        if (fd >= 0) ::close(fd);
        return ok;
    }();
    return has;
}

/// Why this row cannot run here; nothing when it can.
inline std::optional<std::string> absence(const Row& row) {
    const TransportInfo* info = info_of(row.scheme);
    if (info == nullptr) return std::string("this library has no transport ") + row.scheme;
    if (!info->present) return std::string(row.scheme) + " is absent: " + std::string(info->reason);
    const std::string_view url = row.url;
    if (url.find("[::1]") != url.npos && !machine_has_ipv6()) return "this machine has no IPv6 loopback";
    if (url.find('$') != url.npos && std::getenv("EVPL_TEST_RDMA_ADDRESS") == nullptr) return "EVPL_TEST_RDMA_ADDRESS names no address of an RDMA device";
    return std::nullopt;
}

/// A directory of this process for socket files; removed at exit.
inline const std::string& scratch_directory() {
    struct Directory {
        std::string path = "/tmp/evpl-test-XXXXXX";
        pid_t owner = getpid();
        Directory() {
            if (mkdtemp(path.data()) == nullptr) path = "/tmp";
        }
        ~Directory() {
            if (owner == getpid() && path != "/tmp") rmdir(path.c_str());
        }
    };
    static const Directory directory;
    return directory.path;
}

inline std::string with_option(const std::string& url, std::string_view option) { return url + (url.find('?') == url.npos ? "?" : "&") + std::string(option); }

/// A fresh endpoint to listen at. `query`: more options, "a=1&b=2".
inline std::string fresh_url(const Row& row, std::string_view query = {}) {
    static std::atomic<unsigned> next{0};
    std::string url;
    for (const char c : std::string_view(row.url)) {
        if (c == '#') url += std::to_string(getpid()) + "-" + std::to_string(next++);
        else if (c == '%') url += scratch_directory();
        else if (c == '$') url += std::getenv("EVPL_TEST_RDMA_ADDRESS");
        else url += c;
    }
    return query.empty() ? url : with_option(url, query);
}

/// Where to connect to for a listener that was opened at `asked` and is bound at `bound`: the options come from
/// `asked`.
inline std::string dial_url(std::string_view asked, std::string_view bound) {
    const std::size_t query = asked.find('?');
    return std::string(bound.substr(0, bound.find('?'))) + (query == asked.npos ? "" : std::string(asked.substr(query)));
}

}  // namespace evpl::test
