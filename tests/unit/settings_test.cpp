// Goal: files and variables are read as documented, the precedence holds, and what is wrong is told with its place.
// Method: settings of our own, without the process's environment.
#include "base/settings.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace evpl::base {
namespace {

Settings from_text(std::string_view text) {
    Settings settings;
    settings.read_text(text, "a.conf");
    settings.settle();
    return settings;
}

Settings from_variables(std::vector<const char*> variables) {
    variables.push_back(nullptr);
    Settings settings;
    settings.read_environment(variables.data());
    settings.settle();
    return settings;
}

std::string only_fault(const Settings& settings) {
    EXPECT_EQ(settings.faults().size(), 1u);
    return settings.faults().empty() ? "" : settings.faults().front().sentence;
}

TEST(SettingsTest, NothingGivenIsTheBuiltInDefault) {
    const Settings settings = from_text("");
    EXPECT_TRUE(settings.empty());
    EXPECT_TRUE(settings.faults().empty());
    EXPECT_EQ(settings.core().spin, 50_us);
    EXPECT_EQ(settings.core().send_high, 512u << 10);
}

TEST(SettingsTest, ReadsLinesWithBlanksAndComments) {
    const Settings settings =
        from_text("# a comment\n\n  loop.spin=20us\r\n\tlimits.receive =  2M   # unread\nloop.mode = event\npool.pin = on\nloop.dns_servers = 1.2.3.4:53");
    EXPECT_TRUE(settings.faults().empty());
    EXPECT_EQ(settings.core().spin, 20_us);
    EXPECT_EQ(settings.core().receive, 2u << 20);
    EXPECT_EQ(settings.core().mode, "event");
    EXPECT_TRUE(settings.core().pin);
    EXPECT_STREQ(settings.core().dns_servers.data(), "1.2.3.4:53");
    const Setting* receive = settings.find("", "limits.receive");
    ASSERT_NE(receive, nullptr);
    EXPECT_EQ(receive->where, "a.conf:4");
    EXPECT_EQ(receive->origin, ConfigOrigin::file);
}

TEST(SettingsTest, AHashInsideAValueBelongsToIt) { EXPECT_EQ(from_text("tcp.congestion = a#b # c").find("tcp", "congestion")->value, "a#b"); }

TEST(SettingsTest, TheProgramWinsOverTheEnvironmentAndThatOverAFile) {
    const char* const variables[] = {"EVPL_LOOP_SPIN=2us", "EVPL_LOOP_STALL=2ms", nullptr};
    Settings settings;
    settings.add({"loop.spin", "3us", ConfigOrigin::program, ""});
    settings.read_text("loop.spin = 1us\nloop.stall = 1ms\nloop.batch = 7\n", "a.conf");
    settings.read_environment(variables);
    settings.settle();
    EXPECT_EQ(settings.core().spin, 3_us);
    EXPECT_EQ(settings.core().stall, 2_ms);
    EXPECT_EQ(settings.core().batch, 7u);
}

TEST(SettingsTest, OfTwoFilesTheLaterWins) {
    Settings settings;
    settings.read_text("loop.spin = 1us\n", "a.conf");
    settings.read_text("loop.spin = 2us\n", "b.conf");
    settings.settle();
    EXPECT_TRUE(settings.faults().empty());
    EXPECT_EQ(settings.core().spin, 2_us);
}

TEST(SettingsTest, VariablesNameSchemesWithDashes) {
    const Settings settings = from_variables({"EVPL_URING_UDP_SNDBUF=64k", "PATH=/bin", "EVPLX=1", "EVPL_=", "EVPL_TCP_NODELAY="});
    ASSERT_NE(settings.find("uring-udp", "sndbuf"), nullptr);
    EXPECT_EQ(settings.find("uring-udp", "sndbuf")->value, "64k");
    EXPECT_EQ(settings.find("uring", "sndbuf"), nullptr);
    EXPECT_EQ(settings.find("tcp", "nodelay"), nullptr) << "an empty variable says nothing";
    EXPECT_EQ(settings.all().size(), 1u);
}

TEST(SettingsTest, FilesWriteNamesWithDotsOnly) {
    const Settings settings = from_text("LOOP_SPIN = 1us\nloop_spin = 1us\n");
    EXPECT_EQ(settings.find("", "loop.spin"), nullptr);
}

TEST(SettingsTest, AWrongValueIsNamedAndTheDefaultStays) {
    const Settings settings = from_text("\nloop.spin = soon\n");
    EXPECT_EQ(only_fault(settings), "a.conf:2: bad value \"soon\" of loop.spin: write a time with its unit (ns, us, ms, s, min) from 0ns to 1min");
    EXPECT_EQ(settings.core().spin, 50_us);
    EXPECT_EQ(settings.faults().front().error, Error(Errc::bad_option, Step::parse, Who::local));
    EXPECT_NE(settings.fault_of("loop"), nullptr);
    EXPECT_EQ(settings.fault_of("limits"), nullptr);
    EXPECT_EQ(settings.fault_of("loo"), nullptr);
}

TEST(SettingsTest, AWrongVariableIsNamed) {
    const Settings settings = from_variables({"EVPL_POOL_THREADS=many\x01"});
    EXPECT_EQ(only_fault(settings), "EVPL_POOL_THREADS: bad value \"many?\" of this variable: write a number from 0 to 1024");
    EXPECT_EQ(settings.core().threads, 0u);
}

TEST(SettingsTest, AWrongFlagLeavesTheDefault) { EXPECT_FALSE(from_text("pool.pin = maybe\n").core().pin); }

TEST(SettingsTest, MarksThatFallAreAFault) {
    const Settings settings = from_text("limits.send_low = 1M\n");
    EXPECT_NE(only_fault(settings).find("must not fall"), std::string::npos);
    EXPECT_EQ(settings.core().send_low, 128u << 10);
    EXPECT_NE(settings.fault_of("limits"), nullptr);
}

TEST(SettingsTest, LinesThatAreNoSettingsAreFaultsOfTheWhole) {
    for (const std::string& line :
         std::vector<std::string>{"loop.spin", "= 5", "loop.spin =", "loop.spin = a\x02", std::string("loop.name = ") + std::string(600, 'x')}) {
        const Settings settings = from_text(line);
        EXPECT_NE(only_fault(settings).find("a.conf:1: \""), std::string::npos) << line;
        EXPECT_NE(settings.fault_of("whatever"), nullptr);
    }
}

TEST(SettingsTest, ANameGivenTwiceInAFileIsAFault) {
    EXPECT_EQ(only_fault(from_text("loop.batch = 1\nloop.batch = 2\n")), "a.conf:2: loop.batch stands at a.conf:1 already: give it once");
}

TEST(SettingsTest, AFileThatCannotBeReadIsAFaultThatNamesIt) {
    Settings settings;
    settings.read_file("/nowhere/evpl.conf", "EVPL_CONFIG=");
    EXPECT_EQ(only_fault(settings), "EVPL_CONFIG=/nowhere/evpl.conf: cannot read the settings: No such file or directory");
    Settings folder;
    folder.read_file("/", "");
    EXPECT_EQ(only_fault(folder), "/: cannot read the settings: Is a directory");
}

TEST(SettingsTest, AFileThatIsTooLargeIsAFault) {
    char path[] = "/tmp/evpl-settings-XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_GE(fd, 0);
    const std::string text(config_bytes_max + 1, '#');
    ASSERT_EQ(write(fd, text.data(), text.size()), ssize_t(text.size()));
    close(fd);
    Settings settings;
    settings.read_file(path, "");
    unlink(path);
    EXPECT_NE(only_fault(settings).find("larger than 64 KiB"), std::string::npos);
    EXPECT_EQ(settings.faults().front().error, Errc::too_large);
}

}  // namespace
}  // namespace evpl::base
