// TCP echo on standalone Asio, one thread, in the shape of its own echo example, with the
// concurrency hint that switches its locks off and each session's first operation posted directly.
//   asio_echo [--port N] [--spin]
#include <asio.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
public:
    explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}
    void receive() {
        socket_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](std::error_code error, std::size_t got) {
            if (!error) self->reply(got);
        });
    }

private:
    void reply(std::size_t got) {
        asio::async_write(socket_, asio::buffer(bytes_, got), [self = shared_from_this()](std::error_code error, std::size_t) {
            if (!error) self->receive();
        });
    }
    tcp::socket socket_;
    char bytes_[64 * 1024];  // Asio reads ahead into the session's own buffer, so each has one
};

void accept_next(tcp::acceptor& acceptor) {
    acceptor.async_accept([&](std::error_code error, tcp::socket socket) {
        if (!error) std::make_shared<Session>(std::move(socket))->receive();
        accept_next(acceptor);
    });
}

int main(int argc, char** argv) {
    int port = 0;
    bool spin = false;
    for (int i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--spin")) spin = true;
        if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[++i]);
    }
    asio::io_context loop(ASIO_CONCURRENCY_HINT_UNSAFE);
    tcp::acceptor acceptor(loop);
    acceptor.open(tcp::v4());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.set_option(tcp::no_delay(true));  // inherited by accepted sockets, as is the next one
    setsockopt(acceptor.native_handle(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    acceptor.bind({asio::ip::address_v4::loopback(), asio::ip::port_type(port)});
    acceptor.listen(4096);
    printf("listening on tcp://127.0.0.1:%d\n", acceptor.local_endpoint().port());
    fflush(stdout);
    accept_next(acceptor);
    if (!spin) return int(loop.run() != 0);
    for (;;) loop.poll();
}
