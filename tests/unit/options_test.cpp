#include "transport/options.hpp"

#include <gtest/gtest.h>

#include <string>

namespace evpl::transport {
namespace {

struct Settings {
    bool nodelay = false;
    std::uint16_t hops = 64;
    std::uint32_t backlog = 128;
    std::uint64_t window = 1;
    std::int64_t offset = 0;
    Duration idle = 60_s;
    std::string_view device = "lo";
    std::string_view mode = "stream";

    Error read(std::string_view query) {
        url = "tcp://h:1?" + std::string(query);
        const Result<Endpoint> parsed = Endpoint::parse(url, &why);
        EXPECT_TRUE(parsed) << why.view();
        endpoint = *parsed;
        const OptionSpec specs[] = {
            OptionSpec::flag("nodelay", nodelay, "send at once"),
            OptionSpec::integer("hops", hops, 1, 1'000'000, "hop limit"),
            OptionSpec::integer("backlog", backlog, 1, 65535, "pending connections"),
            OptionSpec::bytes("window", window, 1, std::int64_t(4) << 30, "receive window"),
            OptionSpec::integer("offset", offset, -10, 10, "an offset"),
            OptionSpec::duration("idle", idle, 1_ms, Duration::forever(), "keepalive"),
            OptionSpec::text("device", device, 1, 15, "interface"),
            OptionSpec::choice("mode", mode, "stream|msg", "wire format"),
        };
        return read_options(endpoint, specs, why).error();
    }
    bool says(std::string_view part) const { return why.view().find(part) != std::string_view::npos; }

    std::string url;
    Endpoint endpoint;
    Diagnostic why;
};

TEST(OptionsTest, UnnamedOptionsKeepTheirDefaults) {
    Settings settings;
    EXPECT_TRUE(settings.read("").ok());
    EXPECT_EQ(settings.backlog, 128u);
    EXPECT_EQ(settings.idle, 60_s);
}

TEST(OptionsTest, ReadsEveryType) {
    Settings settings;
    ASSERT_TRUE(settings.read("nodelay&hops=7&backlog=1000&window=64k&offset=-3&idle=500ms&device=eth0&mode=msg").ok()) << settings.why.view();
    EXPECT_TRUE(settings.nodelay);
    EXPECT_EQ(settings.hops, 7);
    EXPECT_EQ(settings.backlog, 1000u);
    EXPECT_EQ(settings.window, 65536u);
    EXPECT_EQ(settings.offset, -3);
    EXPECT_EQ(settings.idle, 500_ms);
    EXPECT_EQ(settings.device, "eth0");
    EXPECT_EQ(settings.mode, "msg");
}

TEST(OptionsTest, FlagsTakeTheUsualWords) {
    for (const char* word : {"nodelay", "nodelay=1", "nodelay=on", "nodelay=true", "nodelay=yes"}) {
        Settings settings;
        EXPECT_TRUE(settings.read(word).ok() && settings.nodelay) << word;
    }
    for (const char* word : {"nodelay=0", "nodelay=off", "nodelay=false", "nodelay=no"}) {
        Settings settings;
        settings.nodelay = true;
        EXPECT_TRUE(settings.read(word).ok() && !settings.nodelay) << word;
    }
    Settings settings;
    EXPECT_EQ(settings.read("nodelay=maybe"), Errc::bad_option);
    EXPECT_TRUE(settings.says("\"maybe\" of option nodelay: write on or off")) << settings.why.view();
    EXPECT_EQ(settings.read("nodelay="), Errc::bad_option);
}

TEST(OptionsTest, BytesAndTimesTakeUnits) {
    struct Row {
        const char* query;
        std::uint64_t window;
    };
    for (const Row& row : {Row{"window=1", 1},
                           {"window=3K", 3072},
                           {"window=2KiB", 2048},
                           {"window=2M", 2u << 20},
                           {"window=1MiB", 1u << 20},
                           {"window=1G", 1u << 30},
                           {"window=4GiB", std::uint64_t(4) << 30}}) {
        Settings settings;
        EXPECT_TRUE(settings.read(row.query).ok()) << settings.why.view();
        EXPECT_EQ(settings.window, row.window);
    }
    Settings settings;
    EXPECT_TRUE(settings.read("idle=30s").ok() && settings.idle == 30_s);
    EXPECT_TRUE(settings.read("idle=2min").ok() && settings.idle == 2_min);
    EXPECT_TRUE(settings.read("idle=1500us").ok() && settings.idle == 1500_us);
    EXPECT_TRUE(settings.read("idle=1000000ns").ok() && settings.idle == 1_ms);
}

TEST(OptionsTest, RefusesValuesOutOfTypeOrRange) {
    for (const char* query : {"backlog",
                              "backlog=",
                              "backlog=0",
                              "backlog=65536",
                              "backlog=1k",
                              "backlog=+1",
                              "backlog=0x10",
                              "backlog=1.5",
                              "hops=65536",
                              "backlog=99999999999999999999",
                              "window=-1",
                              "window=5G",
                              "window=9223372036854775807G",
                              "window=1kb",
                              "offset=-11",
                              "idle=30",
                              "idle=0",
                              "idle=1us",
                              "idle=1h",
                              "idle=9223372036854775807s",
                              "idle=-1s",
                              "device=",
                              "device=0123456789abcdef",
                              "mode=",
                              "mode=strea",
                              "mode=stream|msg"}) {
        Settings settings;
        EXPECT_EQ(settings.read(query), Error(Errc::bad_option, Step::parse)) << query;
    }
}

TEST(OptionsTest, BadValueNamesValueOptionAndRange) {
    Settings settings;
    EXPECT_FALSE(settings.read("backlog=zero").ok());
    EXPECT_EQ(settings.why.view(), "bad value \"zero\" of option backlog: write a number from 1 to 65535");
    EXPECT_FALSE(settings.read("idle=30").ok());
    EXPECT_EQ(settings.why.view(), "bad value \"30\" of option idle: write a time with its unit (ns, us, ms, s, min) from 1ms up");
    EXPECT_FALSE(settings.read("window=5G").ok());
    EXPECT_TRUE(settings.says("from 1 to 4G")) << settings.why.view();
    EXPECT_FALSE(settings.read("mode=x").ok());
    EXPECT_TRUE(settings.says("stream|msg")) << settings.why.view();
}

TEST(OptionsTest, UnknownOptionSuggestsTheNearestAndListsAll) {
    Settings settings;
    EXPECT_EQ(settings.read("nodeley=1"), Error(Errc::unknown_option, Step::parse));
    EXPECT_EQ(settings.why.view(), "unknown option \"nodeley\": did you mean nodelay?; tcp has nodelay, hops, backlog, window, offset, idle, device, mode");
    EXPECT_EQ(settings.read("colour=red"), Errc::unknown_option);
    EXPECT_FALSE(settings.says("did you mean"));
    EXPECT_EQ(settings.read(std::string(400, 'x')), Errc::unknown_option);
}

TEST(OptionsTest, TransportWithoutOptionsSaysSo) {
    Diagnostic why;
    EXPECT_EQ(read_options(*Endpoint::parse("sim://h?x=1"), {}, why).error(), Errc::unknown_option);
    EXPECT_NE(why.view().find("sim has no options"), std::string_view::npos) << why.view();
}

TEST(OptionsTest, RepeatedOptionIsRefused) {
    for (const char* query : {"backlog=1&backlog=1", "nodelay&nodelay", "nodelay&nodelay=0", "backlog=1&nodelay&backlog=2"}) {
        Settings settings;
        EXPECT_EQ(settings.read(query), Errc::bad_option) << query;
        EXPECT_TRUE(settings.says("given twice")) << settings.why.view();
    }
}

}  // namespace
}  // namespace evpl::transport
