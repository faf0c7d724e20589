// What links of kernel sockets can do.
#include "transport/common/sockets/port.hpp"

namespace evpl::transport::socket {
namespace {

constexpr Caps stream_caps(bool local, bool zero_copy) noexcept {
    Caps caps;
    caps.kind = Kind::stream;
    caps.half_close = true;
    caps.receive_pause = true;
    caps.descriptors = local;
    caps.credentials = local;
    caps.zero_copy_send = zero_copy;
    return caps;
}

constexpr Caps message_caps() noexcept {
    Caps caps = stream_caps(true, false);
    caps.kind = Kind::message;
    caps.message_bytes_max = unix_message_bytes_max;
    return caps;
}

constexpr Caps datagram_caps() noexcept {
    Caps caps;
    caps.kind = Kind::datagram;
    caps.receive_pause = true;  // what is not read waits in the kernel
    caps.multicast = true;
    caps.segmentation = true;
    caps.message_bytes_max = 65'507;  // 65535 - 20 (IPv4) - 8 (UDP): RFC 768, RFC 791
    return caps;
}

}  // namespace

Flavor family_of(const Scheme& scheme) noexcept {
    return scheme.kind == Kind::datagram ? Flavor::udp : scheme.wire == "unix" ? Flavor::unix_stream : Flavor::tcp;
}

Result<Caps> planned_caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept {
    Flavor flavor = family_of(scheme);
    const auto options = parse_options(endpoint, flavor, why);
    if (!options) return options.error();
    if (options->message_mode) flavor = Flavor::unix_message;
    return caps_of(flavor, options->zero_copy);
}

const Caps& caps_of(Flavor flavor, bool zero_copy) noexcept {
    static constexpr Caps tcp = stream_caps(false, false), tcp_zero_copy = stream_caps(false, true), local = stream_caps(true, false), message = message_caps(),
                          datagram = datagram_caps();
    switch (flavor) {
    case Flavor::tcp: return zero_copy ? tcp_zero_copy : tcp;
    case Flavor::unix_stream: return local;
    case Flavor::unix_message: return message;
    case Flavor::udp: return datagram;
    }
    return tcp;
}

}  // namespace evpl::transport::socket
