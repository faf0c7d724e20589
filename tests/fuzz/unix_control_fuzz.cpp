// Goal: whatever a peer passes along with bytes over a Unix socket, no descriptor is lost: each is either handed to the handler or closed.
// Method: a peer of plain system calls sends what the input says, three bytes a message (bytes, descriptors, credentials), and the
// handler takes descriptors or does not. In the end as many are open as before.
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "evpl/evpl.hpp"
#include "fuzz/require.hpp"
#include "support/sockets.hpp"

namespace {

using namespace evpl;
using namespace evpl::literals;

constexpr std::size_t messages_max = 40;

using fuzz::require;

int open_descriptors() {
    int count = -1;
    DIR* listing = opendir("/proc/self/fd");
    require(listing != nullptr);
    while (const dirent* entry = readdir(listing)) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

struct Server {
    std::uint8_t how;
    int closes = 0, taken = 0;
    std::size_t received = 0;
    void on_open(Connection& peer) {
        // Beyond 64 descriptors that nobody takes a peer is not read from: only a deadline ends that.
        if (how % 2 != 0) peer.deadline_recv(50_ms);
    }
    void on_recv(Connection& peer) {
        while (peer.available() > 0) {
            received += peer.recv(how % 3 == 0 ? 5 : SIZE_MAX).size();
            if (how % 2 == 0) take(peer);
        }
    }
    void on_close(Connection&, Error why) {
        ++closes;
        require(!why.ok());
    }
    void take(Connection& peer) {
        for (int fd; (fd = peer.recv_descriptor()) >= 0; ::close(fd)) {
            ++taken;
            require((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        }
    }
};

const int given = ::open("/dev/null", O_RDONLY | O_CLOEXEC);

/// One message; false when the socket is full or the peer is gone.
bool send_one(int fd, unsigned bytes, unsigned descriptors, bool credentials, int& passed) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 16) + CMSG_SPACE(sizeof(ucred))] = {};
    char text[64] = {};
    iovec part{text, bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* at = CMSG_FIRSTHDR(&message);
    std::size_t used = 0;
    if (descriptors > 0) {
        at->cmsg_level = SOL_SOCKET;
        at->cmsg_type = SCM_RIGHTS;
        at->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
        // Not the socket itself: it would stay open for as long as nobody takes it.
        for (unsigned i = 0; i < descriptors; ++i) std::memcpy(CMSG_DATA(at) + i * sizeof(int), &given, sizeof given);
        used += CMSG_SPACE(sizeof(int) * descriptors);
        at = reinterpret_cast<cmsghdr*>(control + used);
    }
    if (credentials) {
        const ucred own{getpid(), getuid(), getgid()};
        at->cmsg_level = SOL_SOCKET;
        at->cmsg_type = SCM_CREDENTIALS;
        at->cmsg_len = CMSG_LEN(sizeof own);
        std::memcpy(CMSG_DATA(at), &own, sizeof own);
        used += CMSG_SPACE(sizeof own);
    }
    message.msg_controllen = used;
    if (used == 0) message.msg_control = nullptr;
    if (::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return false;
    passed += int(descriptors);
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const int before = open_descriptors();
    const bool messages = (data[0] & 1) != 0;
    Server server{.how = data[1]};
    int passed = 0;
    {
        Loop loop({.mode = Mode::event});
        char url[80];
        std::snprintf(url, sizeof url, "unix://@evpl-fuzz-%d%s", int(getpid()), messages ? "?mode=msg" : "");
        auto listener = listen(loop, url, server);
        require(listener.ok());
        test::Fd peer(::socket(AF_UNIX, (messages ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0));
        sockaddr_un to{};
        to.sun_family = AF_UNIX;
        const int length = std::snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "evpl-fuzz-%d", int(getpid()));
        require(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&to), socklen_t(offsetof(sockaddr_un, sun_path) + 1 + std::size_t(length))) == 0);
        std::size_t at = 2;
        for (std::size_t sent = 0; at + 3 <= size && sent < messages_max; at += 3, ++sent) {
            if (!send_one(peer.get(), 1 + data[at] % 64, data[at + 1] % 17, (data[at + 2] & 1) != 0, passed)) break;
            if (data[at + 2] & 2) loop.run_once();
        }
        if (data[0] & 2) ::shutdown(peer.get(), SHUT_WR);
        else peer.reset();
        // Without memory the peer may be turned away before there is anybody to be told.
        for (int turns = 0; server.closes == 0 && !(fuzz::without_memory() && turns > 20); ++turns) loop.run_once(fuzz::without_memory() ? 1_ms : 1_s);
    }
    require(server.closes == 1 && server.taken <= passed);
    require(open_descriptors() == before);
    return 0;
}
