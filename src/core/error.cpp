#include "evpl/error.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace evpl {

namespace {

/// Code and culprit of an errno value. A switch, so that the compiler turns it into a table.
struct Meaning {
    Errc code;
    Who who;
};

Meaning meaning_of(int os, Step step) noexcept {
    switch (os) {
    case ECONNREFUSED: return {Errc::refused, Who::peer};
    case ENOENT:  // connect(2) to a Unix path: no socket file, nobody listens
        return step == Step::connect ? Meaning{Errc::refused, Who::peer} : Meaning{Errc::io_error, Who::system};
    case ECONNRESET:
    case EPIPE:
    case ENETRESET:
    case ECONNABORTED: return {Errc::reset, Who::peer};
    // A connect ran out of SYN retries; on an open link only keepalive or the user timeout ends so (tcp(7)).
    case ETIMEDOUT: return step == Step::connect ? Meaning{Errc::timed_out, Who::peer} : Meaning{Errc::peer_silent, Who::peer};
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN: return {Errc::unreachable, Who::system};
    case EADDRINUSE: return {Errc::address_in_use, Who::local};
    case EADDRNOTAVAIL: return {Errc::address_unavailable, Who::local};
    case EACCES:
    case EPERM: return {Errc::permission_denied, Who::system};
    case EMFILE:
    case ENFILE: return {Errc::too_many_files, Who::system};
    case ENOMEM: return {Errc::out_of_memory, Who::system};
    case ENOBUFS: return {Errc::out_of_buffers, Who::system};
    case EMSGSIZE: return {Errc::too_large, Who::local};
    case EOPNOTSUPP:
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
    case ENOPROTOOPT:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
    case ENOSYS: return {Errc::not_supported, Who::system};
    case ECANCELED: return {Errc::cancelled, Who::local};
    case ENODEV: return {Errc::device_lost, Who::system};
    default: return {Errc::io_error, Who::system};
    }
}

/// Resolvers and devices have codes of their own, which are no errno values.
bool os_is_errno(Errc code) noexcept { return code != Errc::name_not_found && code != Errc::name_failed && code != Errc::device_error; }

/// What the system says about `os`, e.g. "ECONNREFUSED: Connection refused". glibc's tables: no locale, no lock.
void name_os(char* text, std::size_t room_bytes, Errc code, int os) noexcept {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
    if (os_is_errno(code) && strerrorname_np(os) != nullptr) {
        std::snprintf(text, room_bytes, "%s: %s", strerrorname_np(os), strerrordesc_np(os));
        return;
    }
#endif
    std::snprintf(text, room_bytes, "%s %d", os_is_errno(code) ? "errno" : "code", os);
}

}  // namespace

Error Error::from_errno(int os, Step step) noexcept {
    if (os == 0) return {};  // what SO_ERROR says when all is well
    const Meaning meaning = meaning_of(os, step);
    return {meaning.code, step, meaning.who, os};
}

std::size_t Error::describe(char* text, std::size_t room_bytes) const noexcept {
    if (room_bytes == 0) return 0;
    char who[24] = "";
    char system[96] = "";
    if (who_ != Who::unknown && !ok()) std::snprintf(who, sizeof who, "%s", name_of(who_));
    if (os_ != 0) name_os(system, sizeof system, code_, os_);

    const bool has_step = step_ != Step::none;
    const bool has_both = who[0] != '\0' && system[0] != '\0';
    const bool has_any = who[0] != '\0' || system[0] != '\0';
    const int wanted = std::snprintf(text, room_bytes, "%s%s%s%s%s%s%s%s", has_step ? name_of(step_) : "", has_step ? ": " : "", name_of(code_),
                                     has_any ? " (" : "", who, has_both ? ", " : "", system, has_any ? ")" : "");
    if (wanted < 0) {
        text[0] = '\0';
        return 0;
    }
    return std::size_t(wanted) < room_bytes ? std::size_t(wanted) : room_bytes - 1;
}

const char* name_of(Errc code) noexcept {
    switch (code) {  // no default: the compiler names a forgotten enumerator
    case Errc::none: return "none";
    case Errc::end: return "end";
    case Errc::closed: return "closed";
    case Errc::cancelled: return "cancelled";
    case Errc::stopped: return "stopped";
    case Errc::timed_out: return "timed_out";
    case Errc::peer_silent: return "peer_silent";
    case Errc::refused: return "refused";
    case Errc::reset: return "reset";
    case Errc::unreachable: return "unreachable";
    case Errc::name_not_found: return "name_not_found";
    case Errc::name_failed: return "name_failed";
    case Errc::address_in_use: return "address_in_use";
    case Errc::address_unavailable: return "address_unavailable";
    case Errc::bad_endpoint: return "bad_endpoint";
    case Errc::unknown_scheme: return "unknown_scheme";
    case Errc::unknown_option: return "unknown_option";
    case Errc::bad_option: return "bad_option";
    case Errc::transport_absent: return "transport_absent";
    case Errc::not_supported: return "not_supported";
    case Errc::permission_denied: return "permission_denied";
    case Errc::too_many_files: return "too_many_files";
    case Errc::out_of_memory: return "out_of_memory";
    case Errc::out_of_buffers: return "out_of_buffers";
    case Errc::send_limit: return "send_limit";
    case Errc::receive_limit: return "receive_limit";
    case Errc::too_large: return "too_large";
    case Errc::truncated: return "truncated";
    case Errc::bad_frame: return "bad_frame";
    case Errc::protocol_error: return "protocol_error";
    case Errc::refused_by_handler: return "refused_by_handler";
    case Errc::handler_threw: return "handler_threw";
    case Errc::misuse: return "misuse";
    case Errc::loop_ended: return "loop_ended";
    case Errc::remote_access: return "remote_access";
    case Errc::device_lost: return "device_lost";
    case Errc::device_error: return "device_error";
    case Errc::io_error: return "io_error";
    case Errc::count_: break;
    }
    return "unknown";
}

const char* name_of(Step step) noexcept {
    switch (step) {
    case Step::none: return "none";
    case Step::parse: return "parse";
    case Step::resolve: return "resolve";
    case Step::open: return "open";
    case Step::bind: return "bind";
    case Step::listen: return "listen";
    case Step::accept: return "accept";
    case Step::connect: return "connect";
    case Step::tls: return "tls";
    case Step::send: return "send";
    case Step::recv: return "recv";
    case Step::remote: return "remote";
    case Step::close: return "close";
    case Step::loop: return "loop";
    case Step::count_: break;
    }
    return "unknown";
}

const char* name_of(Who who) noexcept {
    switch (who) {
    case Who::unknown: return "unknown";
    case Who::local: return "local";
    case Who::peer: return "peer";
    case Who::system: return "system";
    case Who::count_: break;
    }
    return "unknown";
}

}  // namespace evpl
