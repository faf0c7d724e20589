#include <cstdio>
#include <exception>

#include <evpl/co.hpp>
#include <evpl/version.hpp>

namespace co = evpl::co;
using namespace evpl::literals;

namespace {
co::Task<> say(evpl::Loop& loop) {
    co_await co::sleep(loop, 1_ms);
    std::printf("evpl %s\n", evpl::version());
}
}  // namespace

int main() {
    evpl::Loop loop;
    co::spawn(say(loop), [](std::exception_ptr) {});
    return loop.run_until_idle();
}
