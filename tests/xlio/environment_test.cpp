// What is looked at before the library is loaded, and which of its function tables are believed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "transport/xlio/abi.hpp"
#include "transport/xlio/environment.hpp"
#include "transport/xlio/table.hpp"

namespace evpl::transport::xlio {
namespace {

namespace fs = std::filesystem;

/// A machine with one usable card; tests take something away.
class FakeMachine final : public Surroundings {
public:
    FakeMachine() : Surroundings(make_root()) {
        put("sys/class/infiniband/mlx5_0/device/vendor", "0x15b3");
        put("sys/class/infiniband/mlx5_0/device/net/eth7/mtu", "1500");
        fs::create_directories(path("sys/bus/pci/drivers/mlx5_core"));
        fs::create_directory_symlink(path("sys/bus/pci/drivers/mlx5_core"), path("sys/class/infiniband/mlx5_0/device/driver"));
        put("sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0");
        put("dev/infiniband/uverbs0", "");
        put("proc/self/status", "Name:\tx\nCapEff:\t0000000000002000");
    }
    ~FakeMachine() override { fs::remove_all(root()); }

    const char* variable(const char* name) const override {
        const auto found = variables.find(name);
        return found != variables.end() ? found->second.c_str() : nullptr;
    }
    bool has_address(const std::string& interface) const override { return addressed && interface == "eth7"; }
    unsigned long long memlock_bytes() const override { return memlock; }

    fs::path path(const std::string& name) const { return fs::path(root()) / name; }
    void put(const std::string& name, const std::string& text) const {
        fs::create_directories(path(name).parent_path());
        std::ofstream(path(name)) << text << "\n";
    }
    void drop(const std::string& name) const { fs::remove_all(path(name)); }

    std::map<std::string, std::string> variables;
    bool addressed = true;
    unsigned long long memlock = UINT64_MAX;

private:
    static std::string make_root() {
        std::string folder = "/tmp/evpl-xlio-XXXXXX";
        EXPECT_NE(mkdtemp(folder.data()), nullptr);
        return folder + "/";
    }
};

TEST(XlioEnvironment, FindsNothingAgainstAUsableCard) {
    const FakeMachine machine;
    EXPECT_EQ(missing_device(machine).reason, "");
    EXPECT_EQ(dangerous_setting(machine).reason, "");
}

TEST(XlioEnvironment, NamesWhatIsMissing) {
    const auto reason = [](auto change) {
        FakeMachine machine;
        change(machine);
        const Obstacle found = missing_device(machine);
        EXPECT_NE(found.remedy, "") << found.reason;
        return found.reason;
    };
    EXPECT_NE(reason([](FakeMachine& m) { m.drop("sys/class/infiniband"); }).find("no NVIDIA card"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.put("sys/class/infiniband/mlx5_0/device/vendor", "0x8086"); }).find("no NVIDIA card"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.drop("sys/class/infiniband/mlx5_0/device/driver"); }).find("no NVIDIA card"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.drop("dev/infiniband/uverbs0"); }).find("device file"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.addressed = false; }).find("IP address"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.put("proc/self/status", "CapEff:\t0000000000000000"); }).find("CAP_NET_RAW"), std::string::npos);
    EXPECT_NE(reason([](FakeMachine& m) { m.memlock = 64 << 20; }).find("locked"), std::string::npos);
}

TEST(XlioEnvironment, CountsLockedMemoryAgainstTheLibrarysLimit) {
    FakeMachine machine;
    machine.memlock = 256 << 20;
    machine.variables["XLIO_MEMORY_LIMIT"] = "200M";
    EXPECT_EQ(missing_device(machine).reason, "");
    machine.variables["XLIO_MEMORY_LIMIT"] = "1G";
    EXPECT_NE(missing_device(machine).reason, "");
    machine.put("proc/self/status", "CapEff:\t0000000000006000");  // CAP_IPC_LOCK
    EXPECT_EQ(missing_device(machine).reason, "");
}

TEST(XlioEnvironment, RefusesSettingsThatEndTheProcess) {
    FakeMachine machine;
    machine.variables["XLIO_EXCEPTION_HANDLING"] = "-2";
    EXPECT_NE(dangerous_setting(machine).reason, "");
    machine.variables.clear();
    machine.variables["XLIO_USE_NEW_CONFIG"] = "1";
    EXPECT_NE(dangerous_setting(machine).reason, "");
    machine.put("etc/libxlio_config.json", "{}");
    EXPECT_EQ(dangerous_setting(machine).reason, "");
    machine.drop("etc/libxlio_config.json");
    machine.variables["XLIO_INLINE_CONFIG"] = "core.resources.memory_limit=1G";
    EXPECT_EQ(dangerous_setting(machine).reason, "");
}

/// A table whose functions all lie in this program.
struct FakeTable {
    abi::TableHead head{abi::magic, 0x2818};
    const void* slots[40] = {};

    static void anchor() {}
    explicit FakeTable(std::size_t first_slot) {
        for (const void*& slot : slots) slot = reinterpret_cast<const void*>(&anchor);
        for (unsigned i = 0; i < abi::slot_count; ++i) slots[(first_slot - sizeof head) / sizeof(void*) + i] = reinterpret_cast<const void*>(&other);
        slots[(first_slot - sizeof head) / sizeof(void*) + abi::slot_exit] = reinterpret_cast<const void*>(&anchor);
    }
    static void other() {}
    const void* const* find(std::string& why) const {
        const char* name = "";
        char text[200] = "";
        const auto* found = find_slots(&head, reinterpret_cast<const void*>(&anchor), name, text);
        why = text;
        return found;
    }
};

TEST(XlioLayout, BelievesTheTwoKnownTables) {
    std::string why;
    for (const abi::Layout& layout : abi::layouts) {
        FakeTable table(layout.first_slot);
        table.head.cap_mask = layout.cap_mask;
        const auto* found = table.find(why);
        ASSERT_NE(found, nullptr) << why;
        EXPECT_EQ(reinterpret_cast<const std::byte*>(found) - reinterpret_cast<const std::byte*>(&table), std::ptrdiff_t(layout.first_slot));
    }
}

TEST(XlioLayout, RefusesEverythingElse) {
    std::string why;
    FakeTable table(40);
    table.head.magic = 1;
    EXPECT_EQ(table.find(why), nullptr);
    EXPECT_NE(why.find("no libxlio"), std::string::npos) << why;
    table.head = {abi::magic, 0x3fff};
    EXPECT_EQ(table.find(why), nullptr);
    EXPECT_NE(why.find("neither layout A"), std::string::npos) << why;
    table.head = {abi::magic, 0x2819};  // A's mask over B's functions
    EXPECT_EQ(table.find(why), nullptr);
    EXPECT_NE(why.find("elsewhere"), std::string::npos) << why;
    table.head = {abi::magic, 0x2818};
    table.slots[10] = reinterpret_cast<const void*>(&::getpid);  // of another library
    EXPECT_EQ(table.find(why), nullptr);
    table.slots[10] = nullptr;
    EXPECT_EQ(table.find(why), nullptr);
}

}  // namespace
}  // namespace evpl::transport::xlio
