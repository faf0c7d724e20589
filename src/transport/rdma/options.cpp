#include "transport/rdma/options.hpp"

#include "transport/options.hpp"

namespace evpl::transport::rdma {

Result<Options> Options::read(const Endpoint& endpoint, Diagnostic& why) noexcept {
    Options options;
    std::string_view mode = "stream", source, library;
    const OptionSpec specs[] = {
        OptionSpec::choice("mode", mode, "stream|msg", "a stream of bytes, or messages"),
        OptionSpec::text("source", source, 0, 64, "connect from this address, and so from the device that has it"),
        OptionSpec::bytes("block", options.block_bytes, 1024, 1 << 20, "size of a receive block: the most that one SEND carries"),
        OptionSpec::integer("window", options.window, 4, 4096, "SENDs that a busy peer may have under way to us"),
        OptionSpec::integer("depth", options.depth, 16, 8192, "work requests of a queue pair"),
        OptionSpec::bytes("inline", options.inline_bytes, 0, 1024, "payload copied into the work request"),
        OptionSpec::integer("tc", options.traffic_class, 0, 255, "traffic class (DSCP and ECN bits) of the packets"),
        OptionSpec::integer("ack_timeout", options.ack_timeout, 0, 31, "4.096 us * 2^n without an answer are one retry"),
        OptionSpec::integer("retry", options.retry, 0, 7, "retries without an answer"),
        OptionSpec::integer("rnr_retry", options.rnr_retry, 0, 6, "retries at a receiver that is not ready"),
        OptionSpec::integer("reads", options.reads, 1, 128, "remote reads under way per direction"),
        OptionSpec::duration("silent_after", options.silent_after, {}, Duration::of_ns(3'600'000'000'000),
                             "an idle connection is probed so often; 0: never"),
        OptionSpec::text("library", library, 1, 400, "what stands for libibverbs and librdmacm; only as a setting (EVPL_RDMA_LIBRARY)"),
    };
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    if (endpoint.option("library").data() != nullptr) return base::refuse(why, Errc::bad_option, "option library is the process's: set rdma.library instead");
    options.is_message = mode == "msg";
    if (!source.empty()) {
        const auto address = Address::parse(source, 0);
        if (!address) return base::refuse(why, Errc::bad_option, "source=%.*s is no address: write numbers, as in source=10.0.0.1", EVPL_SHOWN(source));
        options.source = *address;
    }
    return options;
}

Caps caps_of(const Options& options, std::uint32_t inline_bytes) noexcept {
    Caps caps;
    caps.kind = options.is_message ? Kind::message : Kind::stream;
    caps.half_close = true;
    caps.receive_pause = true;
    caps.rma = true;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.message_bytes_max = options.is_message ? message_bytes_most : 0;
    caps.inline_bytes_max = inline_bytes;
    return caps;
}

}  // namespace evpl::transport::rdma
