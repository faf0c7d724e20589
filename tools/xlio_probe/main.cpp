// A process of its own for what libxlio may do to whoever loads it.
//   evpl-xlio-probe LIBRARY                        loads it, recognises its table, starts it, makes a group and a socket. Status 0: go on;
//                                                  100 + errno: it does not start. What it does not survive, its parent sees.
//   evpl-xlio-probe --rules LIBRARY ADDRESS PORT   asks the rules against the echo server there, for `evpl selftest --xlio`
//   evpl-xlio-probe --list                         the rules as a table
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "rules.hpp"
#include "transport/xlio/table.hpp"

namespace {

namespace xlio = evpl::transport::xlio;
namespace abi = xlio::abi;

constexpr unsigned limit_s = 30;  // of a library that hangs

int try_library(const char* path) {
    abi::Calls calls;
    const char* layout = "";
    if (xlio::open_library(path, calls, layout)) return 0;  // the loader says why itself, in words
    const abi::InitAttr init = xlio::init_attributes(nullptr);
    if (calls.init(&init) != 0) return xlio::probe_errno_base + (errno < xlio::probe_errno_most ? errno : 0);
    const abi::GroupAttr attr{0, [](abi::Socket, std::uintptr_t, int, int) {}, nullptr, nullptr, nullptr};
    abi::Group group = 0;
    if (calls.group_create(&attr, &group) != 0) return 0;
    const abi::SocketAttr socket_attr{0, AF_INET, group, 0};
    abi::Socket socket = 0;
    if (calls.socket_create(&socket_attr, &socket) == 0) calls.socket_destroy(socket);
    calls.group_poll(group);
    return 0;
}

void list() {
    std::puts("| Rule | What | State | Kept by | Asked in the field |\n|---|---|---|---|---|");
    for (unsigned i = 0; i < probe::rule_count; ++i) {
        const probe::Rule& rule = probe::rules[i];
        std::printf("| `%s` | %s | %s | %s | %s |\n", rule.id, rule.text, probe::name_of(rule.source), rule.kept_by,
                    rule.ask != nullptr ? "yes" : rule.why_not);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) return list(), 0;
    alarm(limit_s);
    int status = 2;
    if (argc == 5 && std::strcmp(argv[1], "--rules") == 0) status = probe::ask_all(argv[2], argv[3], argv[4]);
    else if (argc == 2) status = try_library(argv[1]);
    std::fflush(nullptr);
    _exit(status);  // the library's own end is not our business
}
