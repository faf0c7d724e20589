// The public face of the configuration: the only place that knows all names, those of the schemes' options, too.
#include "evpl/config.hpp"

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <utility>

#include "base/log_line.hpp"
#include "base/settings.hpp"
#include "transport/config.hpp"
#include "transport/options.hpp"
#include "transport/transport.hpp"

namespace evpl::transport {

namespace {

using base::Fault;
using base::Setting;
using base::Settings;

/// Calls visit(group, spec) for everything that can be set. Core names are complete, their group is empty.
template <class Visit>
void for_each_spec(base::CoreValues& core, bool with_simulated, Visit visit) {
    for (const OptionSpec& spec : base::core_specs(core)) visit(std::string_view(), spec);
    for (Transport* transport : all_transports()) {
        for (const Scheme& scheme : transport->schemes()) {
            if (!with_simulated && transport->probe(scheme).caps.simulated_time) continue;
            char url[64];
            std::snprintf(url, sizeof url, "%.*s://%s", int(scheme.name.size()), scheme.name.data(), scheme.has_address ? "127.0.0.1:1" : "@x");
            const auto endpoint = Endpoint::parse(url);
            if (!endpoint) continue;
            struct Context {
                Visit& visit;
                std::string_view group;
                bool no_memory;
            } context{visit, scheme.name, false};
            const OptionListing listing(
                [](void* c, std::span<const OptionSpec> specs) {
                    auto& to = *static_cast<Context*>(c);
                    try {
                        for (const OptionSpec& spec : specs) to.visit(to.group, spec);
                    } catch (const std::bad_alloc&) {
                        to.no_memory = true;  // caps() lets nothing through
                    }
                },
                &context);
            Diagnostic why;
            (void)transport->caps(scheme, *endpoint, why);
            if (context.no_memory) throw std::bad_alloc();
        }
    }
}

std::string full_name(std::string_view group, std::string_view name) {
    return group.empty() ? std::string(name) : std::string(group) + "." + std::string(name);
}

/// "loop.spin" as it is called in the environment.
std::string variable_of(std::string_view name) {
    std::string text = "EVPL_";
    for (const char c : name) text += c == '.' || c == '-' ? '_' : c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
    return text;
}

/// What is wrong with one setting; ok when nothing is.
class Check {
public:
    explicit Check(const Setting& setting) : setting_(setting), variable_(setting.origin == ConfigOrigin::environment) {}

    void operator()(std::string_view group, const OptionSpec& spec) {
        if (known_) return;
        if (setting_.is_for(group, spec.name)) {
            known_ = true;
            const bool empty_flag = spec.type == OptionSpec::Type::flag && setting_.value.empty();
            if (empty_flag || !base::read_value(spec, setting_.value)) error_ = base::refuse_setting(setting_, spec, why_);
            return;
        }
        std::string name = full_name(group, spec.name);
        const std::string_view head = std::string_view(name).substr(0, name.find('.'));
        if (variable_) {
            in_group_ = in_group_ || setting_.name.starts_with(variable_of(head) + "_");
            name = variable_of(name);
        }
        const std::size_t distance = base::edit_distance(setting_.name, name);
        if (distance < least_) least_ = distance, nearest_ = std::move(name);
    }

    /// Variables of other programs may begin like ours: one counts when its group exists, or when it is almost a name of ours.
    Error result(Diagnostic& why) {
        why = why_;
        if (known_) return error_;
        const std::string_view meaning = variable_ ? std::string_view(setting_.name).substr(5) : std::string_view(setting_.name);
        const bool near = least_ <= base::distance_most(meaning);
        if (variable_ && !in_group_ && !near) return {};
        std::string name = setting_.name.substr(0, 48);
        std::replace_if(
            name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
        const bool has_place = !variable_ && !setting_.where.empty();
        return base::refuse(why, Errc::unknown_option, "%.*s%sunknown setting \"%s\"%s%s%s; `evpl info --config` lists what there is",
                            int(has_place ? std::min<std::size_t>(setting_.where.size(), 80) : 0), setting_.where.c_str(), has_place ? ": " : "", name.c_str(),
                            near ? ": did you mean " : "", near ? nearest_.c_str() : "", near ? "?" : "");
    }

private:
    const Setting& setting_;
    bool variable_;
    bool known_ = false;
    bool in_group_ = false;
    std::size_t least_ = SIZE_MAX;
    std::string nearest_;
    Error error_;
    Diagnostic why_;
};

}  // namespace

Error check_setting(const Setting& setting, Diagnostic& why) {
    base::CoreValues scratch;
    Check check(setting);
    for_each_spec(scratch, true, [&check](std::string_view group, const OptionSpec& spec) { check(group, spec); });
    return check.result(why);
}

namespace {

/// Names that nobody knows, and values that do not fit their scheme's option: what reading the settings could not tell.
struct SchemeFaults {
    std::vector<Fault> unknown, values;

    SchemeFaults() noexcept {
        try {
            for (const Setting& setting : base::settings().all()) {
                Diagnostic why;
                const Error error = check_setting(setting, why);
                if (error.ok() || is_core_fault(setting)) continue;
                (error.code() == Errc::unknown_option ? unknown : values).push_back({error, "", why.text});
                base::log_line(LogLevel::warning, why.text);
            }
        } catch (const std::bad_alloc&) {}  // those settings are told when their scheme is used
    }

    /// settle() has told it.
    static bool is_core_fault(const Setting& setting) {
        const auto& faults = base::settings().faults();
        return std::any_of(faults.begin(), faults.end(), [&setting](const Fault& f) { return !f.name.empty() && setting.is_for("", f.name); });
    }
};

const SchemeFaults& scheme_faults() noexcept {
    alignas(SchemeFaults) static std::byte room[sizeof(SchemeFaults)];  // never destroyed: threads may outlive main()
    static const SchemeFaults* const made = new (room) SchemeFaults;
    return *made;
}

}  // namespace

const Fault* configuration_fault() noexcept {
    static const Fault* const first = [] {
        const Settings& settings = base::settings();
        const Fault* fault = settings.fault_of("loop");
        if (fault == nullptr) fault = settings.fault_of("limits");
        if (fault == nullptr && !scheme_faults().unknown.empty()) fault = &scheme_faults().unknown.front();
        return fault;
    }();
    return first;
}

}  // namespace evpl::transport

namespace evpl {

namespace {

using base::Fault;
using base::Setting;
using transport::OptionSpec;

Error answer(Error error, const Diagnostic& said, Diagnostic* why) noexcept {
    if (why != nullptr) *why = said;
    return error;
}

Error stage(std::vector<Setting> settings, Diagnostic& said) noexcept {
    const Error error = base::stage(std::move(settings));
    if (error == Errc::misuse) base::refuse(said, Errc::misuse, "the configuration is in use already: change it before the first loop is made");
    if (error == Errc::out_of_memory) base::refuse(said, Errc::out_of_memory, "no memory for the configuration");
    return error;
}

}  // namespace

Result<void> Config::load(const char* path, Diagnostic* why) noexcept {
    Diagnostic said;
    try {
        base::Settings file;
        file.read_file(path != nullptr ? path : "", "");
        if (!file.faults().empty()) {
            std::snprintf(said.text, sizeof said.text, "%s", file.faults().front().sentence.c_str());
            return answer(file.faults().front().error, said, why);
        }
        for (const Setting& setting : file.all())
            if (const Error error = transport::check_setting(setting, said); !error.ok()) return answer(error, said, why);
        return answer(stage(file.all(), said), said, why);
    } catch (const std::bad_alloc&) {
        return answer(base::refuse(said, Errc::out_of_memory, "no memory for the configuration"), said, why);
    }
}

Result<void> Config::set(std::string_view name, std::string_view value, Diagnostic* why) noexcept {
    Diagnostic said;
    try {
        Setting setting{std::string(name), std::string(value), ConfigOrigin::program, ""};
        if (const Error error = transport::check_setting(setting, said); !error.ok()) return answer(error, said, why);
        return answer(stage({std::move(setting)}, said), said, why);
    } catch (const std::bad_alloc&) {
        return answer(base::refuse(said, Errc::out_of_memory, "no memory for the configuration"), said, why);
    }
}

void Config::describe(void (*each)(void* context, const ConfigValue& value), void* context) noexcept {
    const base::Settings& settings = base::settings();
    base::CoreValues core = settings.core();
    transport::for_each_spec(core, false, [&](std::string_view group, const OptionSpec& spec) {
        const Setting* found = settings.find(group, spec.name);
        char name[64], built_in[300], value[300], range[120];
        base::show_value(spec, built_in, sizeof built_in);
        // Values of option structs are settled already; those of schemes are read here as their transport would.
        if (found != nullptr && !group.empty() && !base::read_value(spec, found->value)) found = nullptr;
        if (found != nullptr && group.empty() && settings.fault_of(spec.name.substr(0, spec.name.find('.'))) != nullptr) {
            const auto& faults = settings.faults();
            const bool wrong = std::any_of(faults.begin(), faults.end(), [&spec](const Fault& f) { return f.name == spec.name; });
            if (wrong) found = nullptr;
        }
        base::show_value(spec, value, sizeof value);
        if (found == nullptr) std::snprintf(value, sizeof value, "%s", built_in);
        base::describe_range(spec, range, sizeof range);
        std::snprintf(name, sizeof name, "%.*s%s%.*s", int(group.size()), group.data(), group.empty() ? "" : ".", int(spec.name.size()), spec.name.data());
        each(context, {name, value, spec.help, range, found != nullptr ? found->origin : ConfigOrigin::built_in,
                       found != nullptr ? std::string_view(found->where) : std::string_view()});
    });
}

std::uint32_t Config::faults(void (*each)(void* context, const ConfigFault& fault), void* context) noexcept {
    std::uint32_t count = 0;
    const auto show = [&](const std::vector<Fault>& faults) {
        for (const Fault& fault : faults) each(context, {fault.error, fault.sentence}), ++count;
    };
    show(base::settings().faults());
    show(transport::scheme_faults().unknown);
    show(transport::scheme_faults().values);
    return count;
}

}  // namespace evpl
