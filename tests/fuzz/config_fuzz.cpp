// Goal: no file of settings makes the reader misbehave; what it accepts it finds again, what it refuses it tells in printable words.
// Method: read the input as a file, settle it, look every setting up, check each against all names there are.
#include <cstdint>
#include <string_view>

#include "base/settings.hpp"
#include "fuzz/require.hpp"
#include "transport/config.hpp"

namespace {

using namespace evpl;

using fuzz::require;

void require_printable(std::string_view sentence) {
    require(!sentence.empty());
    for (const unsigned char c : sentence) require(c >= 0x20 && c != 0x7f);
}

void check(const base::Setting& setting) {
    require(!setting.name.empty() && !setting.value.empty() && setting.origin == ConfigOrigin::file && !setting.where.empty());
    require(setting.is_for("", setting.name));
    Diagnostic why;
    const Error error = transport::check_setting(setting, why);
    require(error.ok() || error == Errc::unknown_option || error == Errc::bad_option);
    require(error.ok() == why.view().empty());
    if (!error.ok()) require_printable(why.view());
}

void check_in_force(const base::Settings& settings) {
    const base::CoreValues& core = settings.core();
    require(core.mode == "hybrid" || core.mode == "poll" || core.mode == "event");
    require(core.spin.ns >= 0 && core.spin <= 60_s && core.batch >= 1 && core.threads <= 1024 && core.receive >= 1);
    require(core.send_low <= core.send_high && core.send_high <= core.send_hard);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size > 4096) return 0;  // every line is checked against every name
    base::Settings settings;
    settings.read_text({reinterpret_cast<const char*>(data), size}, "fuzz.conf");
    settings.settle();
    for (const base::Setting& setting : settings.all()) {
        check(setting);
        const base::Setting* found = settings.find("", setting.name);
        require(found != nullptr && found->value == setting.value);  // a file gives a name once
    }
    for (const base::Fault& fault : settings.faults()) {
        require(!fault.error.ok());
        require_printable(fault.sentence);
    }
    check_in_force(settings);
    return 0;
}
