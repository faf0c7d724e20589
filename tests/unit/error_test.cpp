#include "evpl/error.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace evpl {
namespace {

std::string described(Error error, std::size_t room_bytes = 256) {
    std::string text(room_bytes, '#');
    const std::size_t size = error.describe(text.data(), room_bytes);
    EXPECT_EQ(text[size], '\0');
    return text.substr(0, size);
}

TEST(ErrorTest, MapsErrnoToCodeAndCulprit) {
    struct Row {
        int os;
        Errc code;
        Who who;
    };
    constexpr Row rows[] = {
        {ECONNREFUSED, Errc::refused, Who::peer},
        {ECONNRESET, Errc::reset, Who::peer},
        {EPIPE, Errc::reset, Who::peer},
        {ENETRESET, Errc::reset, Who::peer},
        {ECONNABORTED, Errc::reset, Who::peer},
        {EHOSTUNREACH, Errc::unreachable, Who::system},
        {ENETUNREACH, Errc::unreachable, Who::system},
        {ENETDOWN, Errc::unreachable, Who::system},
        {EHOSTDOWN, Errc::unreachable, Who::system},
        {EADDRINUSE, Errc::address_in_use, Who::local},
        {EADDRNOTAVAIL, Errc::address_unavailable, Who::local},
        {EACCES, Errc::permission_denied, Who::system},
        {EPERM, Errc::permission_denied, Who::system},
        {EMFILE, Errc::too_many_files, Who::system},
        {ENFILE, Errc::too_many_files, Who::system},
        {ENOMEM, Errc::out_of_memory, Who::system},
        {ENOBUFS, Errc::out_of_buffers, Who::system},
        {EMSGSIZE, Errc::too_large, Who::local},
        {EOPNOTSUPP, Errc::not_supported, Who::system},
        {ENOTSUP, Errc::not_supported, Who::system},
        {ENOPROTOOPT, Errc::not_supported, Who::system},
        {EPROTONOSUPPORT, Errc::not_supported, Who::system},
        {EAFNOSUPPORT, Errc::not_supported, Who::system},
        {ENOSYS, Errc::not_supported, Who::system},
        {ECANCELED, Errc::cancelled, Who::local},
        {ENODEV, Errc::device_lost, Who::system},
        {EIO, Errc::io_error, Who::system},
        {123456, Errc::io_error, Who::system},
        {-1, Errc::io_error, Who::system},
    };
    for (const Row& row : rows) EXPECT_EQ(Error::from_errno(row.os, Step::send), Error(row.code, Step::send, row.who, row.os)) << row.os;
}

// Goal: a connect that got no answer is a deadline; the same errno on an open link means that the peer fell silent.
TEST(ErrorTest, TellsConnectTimeoutFromSilentPeer) {
    EXPECT_EQ(Error::from_errno(ETIMEDOUT, Step::connect), Errc::timed_out);
    EXPECT_EQ(Error::from_errno(ETIMEDOUT, Step::recv), Errc::peer_silent);
}

TEST(ErrorTest, ErrnoZeroIsSuccess) { EXPECT_TRUE(Error::from_errno(0, Step::connect).ok()); }

TEST(ErrorTest, DescribesStepCodeCulpritAndSystem) {
    EXPECT_EQ(described(Error::from_errno(ECONNREFUSED, Step::connect)), "connect: refused (peer, ECONNREFUSED: Connection refused)");
    EXPECT_EQ(described(Error(Errc::timed_out, Step::connect, Who::local)), "connect: timed_out (local)");
    EXPECT_EQ(described(Error(Errc::end, Step::none, Who::unknown)), "end");
    EXPECT_EQ(described(Error(Errc::io_error, Step::none, Who::unknown, EIO)), "io_error (EIO: Input/output error)");
    EXPECT_EQ(described(Error(Errc::io_error, Step::send, Who::system, 123456)), "send: io_error (system, errno 123456)");
    EXPECT_EQ(described(Error{}), "none");
}

// Goal: a resolver's own code is not dressed up as an errno.
TEST(ErrorTest, ForeignCodesAreShownAsNumbers) {
    EXPECT_EQ(described(Error(Errc::name_not_found, Step::resolve, Who::peer, 3)), "resolve: name_not_found (peer, code 3)");
}

TEST(ErrorTest, DescribeCutsAndTerminatesInAnyRoom) {
    const Error error = Error::from_errno(ECONNREFUSED, Step::connect);
    const std::string whole = described(error);
    for (std::size_t room = 1; room < 80; ++room) EXPECT_EQ(described(error, room), whole.substr(0, room - 1));
    EXPECT_EQ(error.describe(nullptr, 0), 0u);
}

template <class Enum>
void expect_own_names() {
    std::set<std::string> seen;
    for (int i = 0; i < int(Enum::count_); ++i) {
        EXPECT_STRNE(name_of(Enum(i)), "unknown_");
        EXPECT_TRUE(seen.insert(name_of(Enum(i))).second) << name_of(Enum(i));
    }
    EXPECT_STREQ(name_of(Enum::count_), "unknown");
}

TEST(ErrorTest, EveryEnumeratorHasItsOwnName) {
    expect_own_names<Errc>();
    expect_own_names<Step>();
    expect_own_names<Who>();
    EXPECT_STREQ(name_of(Errc::handler_threw), "handler_threw");
    EXPECT_STREQ(name_of(Errc::io_error), "io_error");
    EXPECT_STREQ(name_of(Step::tls), "tls");
    EXPECT_STREQ(name_of(Who::peer), "peer");
    EXPECT_STREQ(name_of(Errc(9999)), "unknown");  // a number from C
}

}  // namespace
}  // namespace evpl
