// Goal: the process's configuration reaches option structs, connections and endpoints, and what is wrong is told by the calls that
// would use it, once it is read and never later. Method: each case in a process of its own (a death test started anew), because
// a process reads its configuration once.
#include "evpl/config.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "evpl/evpl.hpp"
#include "support/leave.hpp"

namespace evpl {
namespace {

struct Quiet {
    void on_recv(Connection&) {}
};

/// Fails the process of the case with the place.
#define REQUIRE(condition)                                                                                                                                     \
    do {                                                                                                                                                       \
        if (!(condition)) {                                                                                                                                    \
            std::fprintf(stderr, "line %d: " #condition "\n", __LINE__);                                                                                       \
            test::leave(1);                                                                                                                                    \
        }                                                                                                                                                      \
    } while (false)

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

class ConfigTest : public ::testing::Test {
protected:
    void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

    template <class Case>
    static void in_a_process(Case run) {
        EXPECT_EXIT((run(), test::leave(0)), ::testing::ExitedWithCode(0), "");
    }
};
using ConfigDeathTest = ConfigTest;

struct Settings {
    std::string name, value, origin, where;
    bool found = false;
};

Settings described(std::string name) {
    Settings wanted{std::move(name), "", "", ""};
    Config::describe(
        [](void* context, const ConfigValue& one) {
            auto& into = *static_cast<Settings*>(context);
            if (into.name != one.name) return;
            into = {into.name, std::string(one.value), name_of(one.origin), std::string(one.where), true};
        },
        &wanted);
    return wanted;
}

int option_of(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

TEST_F(ConfigDeathTest, TheEnvironmentGivesTheDefaultsOfOptionStructsAndExplicitValuesWin) {
    in_a_process([] {
        setenv("EVPL_LOOP_SPIN", "7us", 1);
        setenv("EVPL_LOOP_MODE", "event", 1);
        setenv("EVPL_LIMITS_SEND_HIGH", "256k", 1);
        setenv("EVPL_POOL_THREADS", "3", 1);
        setenv("EVPL_POOL_PIN", "off", 1);
        Loop loop;
        REQUIRE(loop.options().spin == 7_us && loop.options().mode == Mode::event && loop.options().batch == 64);
        LoopOptions explicit_options;
        explicit_options.mode = Mode::hybrid;  // equal to what is built in, and yet it was said
        Loop other(explicit_options);
        REQUIRE(other.options().mode == Mode::hybrid && other.options().spin == 7_us);
        REQUIRE((QueueLimits{.receive = 5}.receive == 5 && QueueLimits{}.send_high == 256u << 10));
        REQUIRE(PoolOptions{}.threads == 3);
        auto listener = listen<Quiet>(loop, "inproc://config");
        auto peer = connect<Quiet>(loop, "inproc://config");
        REQUIRE(listener && peer && peer->get()->limits().send_high == 256u << 10);
    });
}

TEST_F(ConfigDeathTest, AnUrlWinsOverTheEnvironmentAndThatOverTheDefaultOfAScheme) {
    in_a_process([] {
        setenv("EVPL_TCP_KEEPALIVE_IDLE", "77s", 1);
        setenv("EVPL_TCP_KEEPALIVE_INTERVAL", "3s", 1);
        Loop loop;
        auto listener = listen<Quiet>(loop, "tcp://127.0.0.1:0");
        REQUIRE(listener);
        struct Looking {
            int idle, interval;
            void on_open(Connection& peer) {
                REQUIRE(option_of(peer.native_fd(), IPPROTO_TCP, TCP_KEEPIDLE) == idle);
                REQUIRE(option_of(peer.native_fd(), IPPROTO_TCP, TCP_KEEPINTVL) == interval);
                peer.close();
            }
        };
        const std::string port = std::to_string(listener->port());
        REQUIRE(connect(loop, "tcp://127.0.0.1:" + port, Looking{77, 3}));
        REQUIRE(connect(loop, "stream://127.0.0.1:" + port + "?keepalive_idle=5s", Looking{5, 3}));
        auto done = loop.after(300_ms, [&] { listener->close(); });
        REQUIRE(loop.run_until_idle() == 0 && loop.metrics().accepted == 2);
    });
}

// Without a limit of its own a silent peer is given up by the number of probes: not sooner than with the limit that is built in.
TEST_F(ConfigDeathTest, ProbesASilentPeerForFortyFiveSecondsWithoutALimit) {
    in_a_process([] {
        Loop loop;
        auto listener = listen<Quiet>(loop, "tcp://127.0.0.1:0");
        REQUIRE(listener);
        struct Looking {
            int interval, probes;
            void on_open(Connection& peer) {
                REQUIRE(option_of(peer.native_fd(), IPPROTO_TCP, TCP_USER_TIMEOUT) == 0);
                REQUIRE(option_of(peer.native_fd(), IPPROTO_TCP, TCP_KEEPINTVL) == interval);
                REQUIRE(option_of(peer.native_fd(), IPPROTO_TCP, TCP_KEEPCNT) == probes);
                peer.close();
            }
        };
        const std::string at = "tcp://127.0.0.1:" + std::to_string(listener->port());
        REQUIRE(connect(loop, at + "?silent_after=0", Looking{1, 45}));
        REQUIRE(connect(loop, at + "?silent_after=0&keepalive_interval=15s", Looking{15, 9}));
        auto done = loop.after(300_ms, [&] { listener->close(); });
        REQUIRE(loop.run_until_idle() == 0 && loop.metrics().accepted == 2);
    });
}

TEST_F(ConfigDeathTest, DescribeTellsValuesAndOrigins) {
    in_a_process([] {
        char path[] = "/tmp/evpl-config-XXXXXX";
        close(mkstemp(path));
        std::ofstream(path) << "loop.batch = 9\nudp.ttl = 4\nloop.stall = 1s\n";
        setenv("EVPL_CONFIG", path, 1);
        setenv("EVPL_LOOP_STALL", "2s", 1);
        REQUIRE(Config::set("limits.message", "1M"));
        const auto is = [](const char* name, std::string_view value, std::string_view origin, std::string_view where) {
            const Settings one = described(name);
            return one.found && one.value == value && one.origin == origin && one.where == where;
        };
        REQUIRE(is("loop.batch", "9", "file", std::string(path) + ":1"));
        REQUIRE(is("udp.ttl", "4", "file", std::string(path) + ":2"));
        REQUIRE(is("loop.stall", "2s", "environment", "EVPL_LOOP_STALL"));
        REQUIRE(is("limits.message", "1M", "program", ""));
        REQUIRE(is("loop.spin", "50us", "default", ""));
        REQUIRE(is("tcp.keepalive_idle", "10s", "default", ""));
        REQUIRE(!described("sim.mode").found && described("unix.mode").value == "stream");
        REQUIRE(Config::faults([](void*, const ConfigFault&) {}, nullptr) == 0);
        unlink(path);
    });
}

TEST_F(ConfigDeathTest, AWrongVariableIsToldByTheCallsThatWouldUseIt) {
    in_a_process([] {
        setenv("EVPL_LOOP_SPIN", "abc", 1);
        int lines = 0;
        set_log([](void* count, LogLevel, std::string_view line) { *static_cast<int*>(count) += contains(line, "EVPL_LOOP_SPIN"); }, &lines);
        Loop loop;
        REQUIRE(loop.options().spin == 50_us);
        auto listener = listen<Quiet>(loop, "tcp://127.0.0.1:0");
        REQUIRE(listener.error() == Errc::bad_option && contains(loop.last_failure(), "EVPL_LOOP_SPIN: bad value \"abc\""));
        REQUIRE(connect<Quiet>(loop, "inproc://x").error() == Errc::bad_option);
        REQUIRE(loop.run() == 1);
        REQUIRE(Thread::start().error() == Errc::bad_option);
        ThreadPool pool{{.threads = 1}};
        REQUIRE(pool.error() == Errc::bad_option && contains(pool.last_failure(), "EVPL_LOOP_SPIN") && pool.size() == 0);
        REQUIRE(lines == 1);
    });
}

TEST_F(ConfigDeathTest, AWrongValueOfASchemeConcernsThatSchemeAndOnlyWhereTheUrlSaysNothing) {
    in_a_process([] {
        setenv("EVPL_TCP_BACKLOG", "lots", 1);
        Loop loop;
        REQUIRE(listen<Quiet>(loop, "tcp://127.0.0.1:0").error() == Errc::bad_option);
        REQUIRE(contains(loop.last_failure(), "EVPL_TCP_BACKLOG: bad value \"lots\""));
        REQUIRE(listen<Quiet>(loop, "tcp://127.0.0.1:0?backlog=5"));
        REQUIRE(listen<Quiet>(loop, "inproc://x"));
        std::string said;
        REQUIRE(Config::faults([](void* s, const ConfigFault& f) { *static_cast<std::string*>(s) = f.sentence; }, &said) == 1);
        REQUIRE(contains(said, "EVPL_TCP_BACKLOG"));
    });
}

TEST_F(ConfigDeathTest, AnUnknownNameIsToldWithTheNearestOne) {
    in_a_process([] {
        setenv("EVPL_TCP_KEEPALIVE_IDEL", "5s", 1);
        Loop loop;
        REQUIRE(listen<Quiet>(loop, "inproc://x").error() == Errc::unknown_option);
        REQUIRE(contains(loop.last_failure(), "unknown setting \"EVPL_TCP_KEEPALIVE_IDEL\": did you mean EVPL_TCP_KEEPALIVE_IDLE?"));
    });
}

TEST_F(ConfigDeathTest, VariablesOfOtherProgramsAreLeftAloneUnlessTheyAreAlmostOurs) {
    in_a_process([] {
        setenv("EVPL_HOMEPAGE", "x", 1);
        Loop loop;
        REQUIRE(listen<Quiet>(loop, "inproc://x"));
    });
    in_a_process([] {
        setenv("EVPL_LOPO_SPIN", "1us", 1);
        Loop loop;
        REQUIRE(!listen<Quiet>(loop, "inproc://x"));
        REQUIRE(contains(loop.last_failure(), "did you mean EVPL_LOOP_SPIN?"));
    });
}

TEST_F(ConfigDeathTest, LoadTakesAFileWholeOrNotAtAll) {
    in_a_process([] {
        char path[] = "/tmp/evpl-config-XXXXXX";
        close(mkstemp(path));
        std::ofstream(path) << "loop.batch = 9\nlimits.recieve = 1\n";
        Diagnostic why;
        REQUIRE(Config::load(path, &why).error() == Errc::unknown_option);
        REQUIRE(contains(why.view(), std::string(path) + ":2: unknown setting \"limits.recieve\": did you mean limits.receive?"));
        std::ofstream(path) << "loop.batch = 9\nlimits.receive = 0\n";
        REQUIRE(Config::load(path).error() == Errc::bad_option);
        REQUIRE(!Config::load("/nowhere", &why) && contains(why.view(), "/nowhere: cannot read"));
        REQUIRE(!Config::load(nullptr));
        std::ofstream(path) << "loop.spin = 8us\n";
        REQUIRE(Config::load(path, &why));
        unlink(path);
        Loop loop;
        REQUIRE(loop.options().batch == 64 && loop.options().spin == 8_us);
        REQUIRE(listen<Quiet>(loop, "inproc://x"));
    });
}

TEST_F(ConfigDeathTest, SetChecksNamesAndValuesAndTheLastOneCounts) {
    in_a_process([] {
        Diagnostic why;
        REQUIRE(Config::set("loop.spni", "1us", &why).error() == Errc::unknown_option && contains(why.view(), "did you mean loop.spin?"));
        REQUIRE(Config::set("loop.spin", "1", &why).error() == Errc::bad_option && contains(why.view(), "bad value \"1\" of loop.spin"));
        REQUIRE(Config::set("tcp.nodelay", "").error() == Errc::bad_option);
        REQUIRE(Config::set("", "").error() == Errc::unknown_option);
        setenv("EVPL_LOOP_SPIN", "9us", 1);
        REQUIRE(Config::set("loop.spin", "1us") && Config::set("loop.spin", "2us"));
        REQUIRE(LoopOptions{}.spin == 2_us);
        REQUIRE(Config::set("loop.spin", "3us", &why).error() == Errc::misuse && contains(why.view(), "before the first loop"));
        REQUIRE(LoopOptions{}.spin == 2_us);
    });
}

TEST_F(ConfigDeathTest, AConfigurationFileThatIsNotThereIsToldByEverySetUpCall) {
    in_a_process([] {
        setenv("EVPL_CONFIG", "/nowhere/evpl.conf", 1);
        Loop loop;
        REQUIRE(!bind(loop, "udp://127.0.0.1:0", [](Datagram&) {
            struct None {};
            return None{};
        }));
        REQUIRE(contains(loop.last_failure(), "EVPL_CONFIG=/nowhere/evpl.conf: cannot read the settings"));
    });
}

}  // namespace
}  // namespace evpl
