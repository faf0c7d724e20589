#pragma once

// What the double is told, in one environment variable: XLIO_DOUBLE="layout=A,seed=7,split". Read when it is loaded, as the real library does.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace xlio_double {

struct Knobs {
    std::string layout = "B";  ///< A, B, old (client only), garbage (wrong magic), crossed (slots of other layout)
    std::uint64_t seed = 1;
    bool no_device = false;  ///< ENODEV, then false success, then a crash
    bool exit_on_load = false;
    std::string nowhere;                  ///< an address that is no card's: ENODEV from bind, connect and listen
    std::uint64_t enomem = 0;             ///< every n-th send
    bool closed_first = false;            ///< the close before the last bytes
    bool split = false;                   ///< received pieces of random size at odd addresses
    unsigned late = 0;                    ///< polls between a socket's end and `terminated`
    std::uint64_t pool = 4096;            ///< receive buffers
    std::uint64_t tx_bytes = UINT64_MAX;  ///< queued by one socket; beyond it ENOMEM
    unsigned pds = 1;                     ///< devices, given to sockets in turn
    bool refuse_mr = false;               ///< ibv_reg_mr fails
    bool strict = true;                   ///< misuse stops the program
    std::uint64_t fin_wait_ms = 20'000;
    bool memory = false;       ///< memory.cpp: without kernel sockets
    bool comp_inside = false;  ///< completions also from send and flush
    bool error_early = false;  ///< an accepted socket fails before its accept callback
    bool false_start = false;  ///< no device, but the first init says 0
    int refuse_listen = 0;     ///< listen fails with this errno
    std::string violate;       ///< a rule of the table that is broken: inline_completes, twice, init_again, early_domain, crash

    static Knobs read() {
        Knobs k;
        const char* text = std::getenv("XLIO_DOUBLE");
        for (std::string_view rest = text != nullptr ? text : ""; !rest.empty();) {
            const std::string_view item = rest.substr(0, rest.find(','));
            rest = item.size() < rest.size() ? rest.substr(item.size() + 1) : std::string_view();
            const std::string name(item.substr(0, item.find('=')));
            const std::string value(item.size() > name.size() ? item.substr(name.size() + 1) : "1");
            const std::uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
            if (name == "layout") k.layout = value;
            else if (name == "seed") k.seed = number;
            else if (name == "no_device") k.no_device = number != 0;
            else if (name == "exit_on_load") k.exit_on_load = number != 0;
            else if (name == "nowhere") k.nowhere = value;
            else if (name == "enomem") k.enomem = number;
            else if (name == "closed_first") k.closed_first = number != 0;
            else if (name == "split") k.split = number != 0;
            else if (name == "late") k.late = unsigned(number);
            else if (name == "pool") k.pool = number;
            else if (name == "tx_bytes") k.tx_bytes = number;
            else if (name == "pds") k.pds = unsigned(number);
            else if (name == "refuse_mr") k.refuse_mr = number != 0;
            else if (name == "strict") k.strict = number != 0;
            else if (name == "fin_wait_ms") k.fin_wait_ms = number;
            else if (name == "memory") k.memory = number != 0;
            else if (name == "comp_inside") k.comp_inside = number != 0;
            else if (name == "error_early") k.error_early = number != 0;
            else if (name == "false_start") k.false_start = number != 0;
            else if (name == "refuse_listen") k.refuse_listen = int(number);
            else if (name == "violate") k.violate = value;
            else std::abort();  // a knob that does not exist is a test that tests nothing
        }
        return k;
    }
};

}  // namespace xlio_double
