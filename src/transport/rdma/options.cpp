#include "transport/rdma/options.hpp"

#include <cstdio>

#include "transport/options.hpp"

namespace evpl::transport::rdma {

Result<Options> Options::read(const Endpoint& endpoint, Diagnostic& why) noexcept {
    Options options;
    std::string_view mode = "stream", wire = "evpl", mtu = "path", source, library;
    const OptionSpec specs[] = {
        OptionSpec::choice("mode", mode, "stream|msg", "a stream of bytes, or messages"),
        OptionSpec::choice("wire", wire, "evpl|raw", "between our own peers, or bare SENDs: one message is one (mode=msg)"),
        OptionSpec::integer("receives", options.receives, 1, 4096, "wire=raw: receives of a connection"),
        OptionSpec::text("source", source, 0, 64, "connect from this address, and so from the device that has it"),
        OptionSpec::bytes("block", options.block_bytes, 1024, 1 << 20, "size of a receive block: the most that one SEND carries"),
        OptionSpec::integer("window", options.window, 4, 4096, "SENDs that a busy peer may have under way to us"),
        OptionSpec::integer("depth", options.depth, 16, 8192, "work requests of a queue pair"),
        OptionSpec::bytes("inline", options.inline_bytes, 0, 1024, "payload copied into the work request"),
        OptionSpec::integer("tc", options.traffic_class, 0, 255, "traffic class (DSCP and ECN bits) of the packets"),
        OptionSpec::integer("gid_index", options.gid_index, 0, 255, "our address: index in the port's table of GIDs"),
        OptionSpec::integer("sl", options.service_level, 0, 15, "service level of the packets"),
        OptionSpec::choice("mtu", mtu, "path|256|512|1024|2048|4096", "payload of a packet in bytes, the same at both ends"),
        OptionSpec::integer("ack_timeout", options.ack_timeout, 0, 31, "4.096 us * 2^n without an answer are one retry"),
        OptionSpec::integer("retry", options.retry, 0, 7, "retries without an answer"),
        OptionSpec::integer("rnr_retry", options.rnr_retry, 0, 6, "retries at a receiver that is not ready"),
        OptionSpec::integer("reads", options.reads, 1, 128, "remote reads under way per direction"),
        OptionSpec::duration("silent_after", options.silent_after, {}, Duration::of_ns(3'600'000'000'000), "an idle connection is probed so often; 0: never"),
        OptionSpec::text("library", library, 1, 400, "what stands for libibverbs and librdmacm; only as a setting (EVPL_RDMA_LIBRARY)"),
    };
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    if (endpoint.option("library").data() != nullptr) return base::refuse(why, Errc::bad_option, "option library is the process's: set rdma.library instead");
    for (const std::uint32_t bytes : {256u, 512u, 1024u, 2048u, 4096u}) {
        char text[8];
        if (mtu == std::string_view(text, std::size_t(std::snprintf(text, sizeof text, "%u", bytes)))) options.mtu = bytes;
    }
    options.is_raw = wire == "raw";
    options.is_message = options.is_raw || mode == "msg";
    if (!source.empty()) {
        const auto address = Address::parse(source, 0);
        if (!address) return base::refuse(why, Errc::bad_option, "source=%.*s is no address: write numbers, as in source=10.0.0.1", EVPL_SHOWN(source));
        options.source = *address;
    }
    return options;
}

Result<UdOptions> UdOptions::read(const Endpoint& endpoint, Diagnostic& why) noexcept {
    UdOptions options;
    std::string_view wire = "evpl";
    const OptionSpec specs[] = {OptionSpec::choice("wire", wire, "evpl|raw", "between our own sockets, or with any program's")};
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    options.is_raw = wire == "raw";
    return options;
}

Caps caps_of(const Options& options, std::uint32_t inline_bytes, bool accepts) noexcept {
    Caps caps;
    caps.kind = options.is_message ? Kind::message : Kind::stream;
    caps.half_close = caps.receive_pause = !options.is_raw;  // neither is in the protocol: who disconnects ends both directions
    caps.rma = true;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.message_bytes_max = options.is_raw ? options.block_bytes : options.is_message ? message_bytes_most : 0;
    caps.remote_tells = caps.remote_atomics = true;
    caps.remote_invalidate = options.is_raw;
    if (options.is_raw) caps.private_data_bytes_max = accepts ? private_answer_most : private_connect_most;
    caps.remote_reads_max = options.reads;
    caps.inline_bytes_max = inline_bytes;
    return caps;
}

}  // namespace evpl::transport::rdma
