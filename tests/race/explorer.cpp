#include "explorer.hpp"

#include <link.h>
#include <poll.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "machine.hpp"

namespace evpl::race {

bool exploring = false;

namespace {

constexpr unsigned clocks = threads_max + 1;  // number 0 sets up and looks afterwards
constexpr std::size_t stack_bytes = 256u << 10;
constexpr unsigned candidates_max = 3;       // values that one load may choose among
constexpr std::uint64_t steps_max = 20'000;  // of one execution: more means that threads wait for each other for ever

/// How far each thread had come when something happened, as far as that is known there.
struct Clock {
    std::array<std::uint32_t, clocks> at{};
    void join(const Clock& other) {
        for (unsigned i = 0; i < clocks; ++i) at[i] = std::max(at[i], other.at[i]);
    }
    bool covers(unsigned thread, std::uint32_t time) const { return time <= at[thread]; }
};

bool acquires(std::memory_order order) { return order != std::memory_order_relaxed && order != std::memory_order_release; }
bool releases(std::memory_order order) {
    return order == std::memory_order_release || order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}

struct Thread {
    std::function<void()> body;
    std::function<bool()> can_go_on;  // empty: it can
    const char* waits_for = "";
    ucontext_t context{};
    std::unique_ptr<char[]> stack;
    bool over = true;
    bool yielded = false;
    void* carried = nullptr;
    Clock now, acquired_by_fence, released_by_fence;
};

struct Store {
    std::uint64_t value;
    unsigned thread;
    std::uint32_t time;
    bool sequential;
    Clock released;  // what an acquiring load learns
};
struct Seen {
    std::uint32_t time;
    std::size_t index;
};
/// An atomic variable: all its values, and who has seen how new ones.
struct Variable {
    unsigned bytes = 0;
    std::vector<Store> stores;
    std::array<std::vector<Seen>, clocks> seen;
};
/// The latest plain accesses to a byte.
struct Byte {
    std::uint8_t written_by = 0;
    std::uint32_t written = 0;
    std::array<std::uint32_t, clocks> read{};
};
/// Eight bytes, which mostly are accessed together: the first one speaks for all until one is accessed alone.
struct Granule {
    std::array<Byte, 8> bytes;
    bool is_split = false;
    bool is_atomic = false;  // a variable starts here

    std::span<Byte> known(std::size_t from, std::size_t to) { return is_split ? std::span(bytes).subspan(from, to - from) : std::span(bytes).first(1); }
    std::span<Byte> touched(std::size_t from, std::size_t to) {
        if (!is_split && to - from < 8) {
            bytes.fill(bytes[0]);
            is_split = true;
        }
        return known(from, to);
    }
};
/// The granules of an execution, by address / 8: an open table, forgotten at once.
class Granules {
public:
    Granule* find(std::uintptr_t key) {
        for (std::size_t i = hash(key);; i = (i + 1) & (slots_.size() - 1)) {
            if (slots_[i].generation != generation_) return nullptr;
            if (slots_[i].key == key) return &slots_[i].granule;
        }
    }
    Granule& operator[](std::uintptr_t key) {
        if (Granule* const found = find(key)) return *found;
        if (2 * (count_ + 1) > slots_.size()) grow();
        ++count_;
        return insert(key);
    }
    void clear() {
        ++generation_;
        count_ = 0;
    }

private:
    struct Slot {
        std::uint64_t generation = 0;
        std::uintptr_t key = 0;
        Granule granule;
    };
    std::size_t hash(std::uintptr_t key) const { return (key * 0x9e3779b97f4a7c15u >> 20) & (slots_.size() - 1); }
    Granule& insert(std::uintptr_t key) {
        std::size_t i = hash(key);
        while (slots_[i].generation == generation_) i = (i + 1) & (slots_.size() - 1);
        slots_[i] = {generation_, key, {}};
        return slots_[i].granule;
    }
    void grow() {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        for (Slot& each : old) {
            if (each.generation == generation_) insert(each.key) = each.granule;
        }
    }

    std::vector<Slot> slots_ = std::vector<Slot>(1024);
    std::uint64_t generation_ = 1;
    std::size_t count_ = 0;
};
struct Mutex {
    unsigned owner = clocks;
    unsigned depth = 0;
    Clock released;
};
struct Gone {
    std::uintptr_t from, to;
};
struct Choice {
    unsigned chosen, options;
};
struct Step {
    const char* what;
    unsigned thread;
    const void* at;
    std::uint64_t value;
    std::size_t age;  // 0: the newest value
    const void* pc;
};

struct Machine {
    // the execution
    std::vector<Choice> choices;
    std::size_t position = 0;
    std::vector<Step> story;
    unsigned preemptions_left = 0, stale_left = 0;
    std::uint64_t dice = 0;  // 0: no chance
    std::uint64_t steps = 0;
    // its threads
    std::array<Thread, clocks> threads;
    unsigned count = 0, running = 0;
    ucontext_t scheduler{};
    // its memory
    Granules granules;
    std::unordered_map<std::uintptr_t, Variable> variables;
    std::unordered_map<void*, Mutex> mutexes;
    std::vector<Gone> gone;
    std::vector<void*> quarantine;
    Clock sequential;
    // all executions
    Bounds bounds;
    bool tells = false;
    void* (*get_carried)() = nullptr;
    void (*set_carried)(void*) = nullptr;
};
Machine machine;

/// The explorer's own work is not looked at.
struct Own {
    const bool before = std::exchange(exploring, false);
    ~Own() { exploring = before; }
};

// -- telling -----------------------------------------------------------------------------------------------------

/// File and line of our own code, through what was inlined there.
std::string place_of(const void* pc) {
    char command[128], line[512];
    std::snprintf(command, sizeof command, "addr2line -i -e /proc/%d/exe %p 2>/dev/null", int(getpid()),
                  static_cast<const void*>(static_cast<const char*>(pc) - 1));
    std::string place = "an unknown place";
    if (FILE* out = popen(command, "r")) {
        while (std::fgets(line, sizeof line, out) != nullptr) {
            const std::string text(line, std::strcspn(line, " \n"));
            place = text.substr(text.rfind('/') + 1);
            if (text.rfind("/usr/", 0) != 0) break;
        }
        pclose(out);
    }
    return place;
}

void tell(const Step& step) {
    std::printf("  thread %u  %-10s %p  %#llx", step.thread, step.what, step.at, static_cast<unsigned long long>(step.value));
    if (step.age > 0) std::printf("  (%zu older than the newest)", step.age);
    std::printf("  %s\n", place_of(step.pc).c_str());
}

[[noreturn]] void fail(const std::string& why) {
    exploring = false;
    std::printf("FAILED in thread %u: %s\n", machine.running, why.c_str());
    const std::size_t shown = std::min<std::size_t>(machine.story.size(), 60);
    for (std::size_t i = machine.story.size() - shown; i < machine.story.size(); ++i) tell(machine.story[i]);
    std::printf("choices ");
    for (std::size_t i = 0; i < machine.position; ++i) std::printf("%s%u", i > 0 ? "," : "", machine.choices[i].chosen);
    std::printf("\n");
    std::fflush(nullptr);
    _exit(1);
}

void note(const char* what, const void* at, std::uint64_t value, std::size_t age, const void* pc) {
    machine.story.push_back({what, machine.running, at, value, age, pc});
}

// -- choosing ----------------------------------------------------------------------------------------------------

std::uint64_t roll() {
    machine.dice ^= machine.dice << 13;
    machine.dice ^= machine.dice >> 7;
    machine.dice ^= machine.dice << 17;
    return machine.dice;
}

/// A number below `options`. By chance 0, the ordinary course, is the most frequent.
unsigned choose(unsigned options) {
    if (options <= 1) return 0;
    if (machine.position == machine.choices.size()) {
        unsigned chosen = 0;
        if (machine.dice != 0 && roll() % 6 == 0) chosen = unsigned(roll() % options);
        machine.choices.push_back({chosen, options});
    }
    const Choice& choice = machine.choices[machine.position++];
    if (choice.options != options && choice.options != 0) fail("the execution does not repeat itself");
    return choice.chosen;
}

/// The next execution in order. False: that was the last.
bool advance() {
    auto& choices = machine.choices;
    choices.resize(machine.position);
    while (!choices.empty() && choices.back().chosen + 1 >= choices.back().options) choices.pop_back();
    if (choices.empty()) return false;
    ++choices.back().chosen;
    return true;
}

// -- threads -----------------------------------------------------------------------------------------------------

Thread& current() { return machine.threads[machine.running]; }

bool is_ready(Thread& thread) { return !thread.over && (!thread.can_go_on || thread.can_go_on()); }

void enter(unsigned thread) {
    if (thread == machine.running) return;
    Thread& from = current();
    if (machine.get_carried != nullptr) {
        from.carried = machine.get_carried();
        machine.set_carried(machine.threads[thread].carried);
    }
    machine.running = thread;
    swapcontext(&from.context, &machine.threads[thread].context);
}

/// Who goes on: the running thread at no cost if it can, another one for a preemption; when it cannot, anybody.
void schedule() {
    if (++machine.steps > steps_max) fail("threads wait for each other for ever");
    std::array<unsigned, clocks> ready{};
    unsigned count = 0;
    const bool goes_on = is_ready(current()) && !current().yielded;
    if (goes_on) ready[count++] = machine.running;
    if (!goes_on || machine.preemptions_left > 0) {
        // From the running one on, so that yielding threads take turns.
        for (unsigned i = 1; i <= machine.count; ++i) {
            const unsigned each = (machine.running - 1 + i) % machine.count + 1;
            if (each != machine.running && is_ready(machine.threads[each])) ready[count++] = each;
        }
    }
    if (count == 0 && is_ready(current())) ready[count++] = machine.running;
    current().yielded = false;
    if (count == 0) {
        std::string who;
        bool all_over = true;
        for (unsigned i = 1; i <= machine.count; ++i) {
            if (machine.threads[i].over) continue;
            all_over = false;
            who += " thread " + std::to_string(i) + " waits for " + machine.threads[i].waits_for + ";";
        }
        if (!all_over) fail("nobody can go on:" + who);
        machine.running = 0;
        setcontext(&machine.scheduler);
    }
    const unsigned chosen = choose(count);
    if (goes_on && chosen > 0) --machine.preemptions_left;
    enter(ready[chosen]);
}

void wait_for(std::function<bool()> condition, const char* what) {
    Thread& self = current();
    self.can_go_on = std::move(condition);
    self.waits_for = what;
    schedule();
    self.can_go_on = nullptr;
}

void thread_main() {
    exploring = true;
    current().body();
    exploring = false;
    current().over = true;
    schedule();  // does not come back
}

void start(unsigned number, const std::function<void()>& body) {
    Thread& thread = machine.threads[number];
    thread.body = body;
    thread.over = thread.yielded = false;
    thread.can_go_on = nullptr;
    thread.carried = nullptr;
    thread.now = thread.acquired_by_fence = thread.released_by_fence = Clock{};
    thread.now.at[number] = 1;
    if (!thread.stack) thread.stack = std::make_unique<char[]>(stack_bytes);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = stack_bytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, &thread_main, 0);
}

// -- memory ------------------------------------------------------------------------------------------------------

void tick() { ++current().now.at[machine.running]; }

std::uint64_t read_bits(const void* at, unsigned bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, bytes);
    return value;
}

void look_for_freed(std::uintptr_t from, std::size_t bytes, const void* pc) {
    for (const Gone& each : machine.gone) {
        if (from < each.to && from + bytes > each.from) {
            note("touches", reinterpret_cast<const void*>(from), 0, 0, pc);
            fail("use of freed memory at " + place_of(pc));
        }
    }
}

[[noreturn]] void fail_race(const void* at, unsigned other, const char* how, const void* pc) {
    note(how, at, 0, 0, pc);
    fail("nothing orders this access and the one of thread " + std::to_string(other) + ": " + how + " at " + place_of(pc));
}

/// What the program keeps per thread is one place for all fibers here; carry() takes care of it.
bool is_thread_local(std::uintptr_t address) {
    static const Gone own = [] {
        Gone found{};
        dl_iterate_phdr(
            [](dl_phdr_info* info, std::size_t, void* result) {
                for (int i = 0; i < info->dlpi_phnum; ++i) {
                    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
                    const auto from = reinterpret_cast<std::uintptr_t>(info->dlpi_tls_data);
                    *static_cast<Gone*>(result) = {from, from + info->dlpi_phdr[i].p_memsz};
                }
                return 1;  // the first is the program itself
            },
            &found);
        return found;
    }();
    return address >= own.from && address < own.to;
}

/// visit(address, first, last): the bytes [first, last) of the granule at `address`.
template <class Visit>
void for_granules(std::uintptr_t from, std::size_t bytes, Visit visit) {
    for (std::uintptr_t address = from, end = from + bytes; address < end;) {
        const std::uintptr_t base = address & ~std::uintptr_t(7), next = std::min(end, base + 8);
        visit(base, address - base, next - base);
        address = next;
    }
}

void check_plain(std::uintptr_t from, std::size_t bytes, bool and_reads, const char* how, const void* pc) {
    const Clock& now = current().now;
    for_granules(from, bytes, [&](std::uintptr_t address, std::size_t first, std::size_t last) {
        Granule* const found = machine.granules.find(address / 8);
        if (found == nullptr) return;
        for (const Byte& byte : found->known(first, last)) {
            if (!now.covers(byte.written_by, byte.written)) fail_race(reinterpret_cast<void*>(address), byte.written_by, how, pc);
            for (unsigned i = 0; and_reads && i < clocks; ++i) {
                if (!now.covers(i, byte.read[i])) fail_race(reinterpret_cast<void*>(address), i, how, pc);
            }
        }
    });
}

/// The variable; one not known yet has had its present value since before everything.
Variable& variable_at(const void* at, unsigned bytes) {
    const auto key = reinterpret_cast<std::uintptr_t>(at);
    Variable& variable = machine.variables[key];
    if (variable.stores.empty()) {
        Granule& granule = machine.granules[key / 8];
        granule.is_atomic = true;
        const Byte& byte = granule.known(key % 8, key % 8 + 1)[0];
        variable.bytes = bytes;
        variable.stores.push_back({read_bits(at, bytes), byte.written_by, byte.written, false, {}});
    }
    if (variable.bytes != bytes) fail("an atomic is used with two sizes");
    return variable;
}

/// The oldest value that the running thread may still see.
std::size_t floor_of(const Variable& variable, std::memory_order order) {
    const Clock& now = current().now;
    std::size_t floor = 0;
    for (std::size_t i = variable.stores.size(); i-- > 0;) {
        const Store& store = variable.stores[i];
        if (now.covers(store.thread, store.time) || (order == std::memory_order_seq_cst && store.sequential)) {
            floor = i;
            break;
        }
    }
    for (unsigned thread = 0; thread < clocks; ++thread) {  // whoever knows of a load sees nothing older than that did
        const auto& seen = variable.seen[thread];
        for (std::size_t i = seen.size(); i-- > 0;) {
            if (!now.covers(thread, seen[i].time)) continue;
            floor = std::max(floor, seen[i].index);
            break;
        }
    }
    return floor;
}

void learn(const Store& store, std::memory_order order) {
    if (acquires(order)) current().now.join(store.released);
    else current().acquired_by_fence.join(store.released);
}

std::uint64_t see(Variable& variable, std::size_t index, std::memory_order order) {
    const Store& store = variable.stores[index];
    variable.seen[machine.running].push_back({current().now.at[machine.running], index});
    const std::uint64_t value = store.value;
    learn(store, order);
    return value;
}

void append(Variable& variable, void* at, std::uint64_t value, std::memory_order order, bool continues) {
    Thread& self = current();
    Store store{value, machine.running, self.now.at[machine.running], order == std::memory_order_seq_cst, {}};
    store.released = releases(order) ? self.now : self.released_by_fence;
    if (continues) store.released.join(variable.stores.back().released);
    variable.stores.push_back(store);
    std::memcpy(at, &value, variable.bytes);
    tick();
}

/// All values of the variable, if there is one, are known to the running thread; and, for a write, who has seen them.
void check_variable(std::uintptr_t address, bool and_loads, bool begins_anew, const char* how, const void* pc) {
    const auto found = machine.variables.find(address);
    if (found == machine.variables.end()) return;
    const Clock& now = current().now;
    for (const Store& store : found->second.stores) {
        if (!now.covers(store.thread, store.time)) fail_race(reinterpret_cast<void*>(address), store.thread, how, pc);
    }
    if (!and_loads) return;
    for (unsigned i = 0; i < clocks; ++i) {
        const auto& seen = found->second.seen[i];
        if (!seen.empty() && !now.covers(i, seen.back().time)) fail_race(reinterpret_cast<void*>(address), i, how, pc);
    }
    if (begins_anew) found->second = Variable{};
}

void begin_atomic(const void* at, unsigned bytes, bool writes, const char* how, const void* pc) {
    look_for_freed(reinterpret_cast<std::uintptr_t>(at), bytes, pc);
    check_plain(reinterpret_cast<std::uintptr_t>(at), bytes, writes, how, pc);
}

void forget_execution() {
    for (void* block : machine.quarantine) std::free(block);
    machine.quarantine.clear();
    machine.gone.clear();
    machine.granules.clear();
    machine.variables.clear();
    machine.mutexes.clear();
    machine.story.clear();
    machine.sequential = Clock{};
}

void execute(const std::function<void()>& scenario, Outcome& outcome) {
    machine.position = 0;
    machine.steps = 0;
    machine.preemptions_left = machine.bounds.preemptions;
    machine.stale_left = machine.bounds.stale_loads;
    scenario();
    ++outcome.executions;
    outcome.steps += machine.steps;
    forget_execution();
}

}  // namespace

// -- what the runtime calls --------------------------------------------------------------------------------------

void plain_access(const void* at, std::size_t bytes, bool writes, const void* pc) {
    const Own own;
    const auto from = reinterpret_cast<std::uintptr_t>(at);
    if (is_thread_local(from)) return;
    look_for_freed(from, bytes, pc);
    const std::uint32_t time = current().now.at[machine.running];
    const char* const how = writes ? "writes" : "reads";
    check_plain(from, bytes, writes, how, pc);
    for_granules(from, bytes, [&](std::uintptr_t address, std::size_t first, std::size_t last) {
        Granule& granule = machine.granules[address / 8];
        for (std::size_t i = first; granule.is_atomic && i < last; ++i) check_variable(address + i, writes, true, how, pc);
        for (Byte& byte : granule.touched(first, last)) {
            if (writes) byte = {std::uint8_t(machine.running), time, {}};
            else byte.read[machine.running] = time;
        }
    });
}

std::uint64_t atomic_load(const void* at, unsigned bytes, std::memory_order order, const void* pc) {
    const Own own;
    schedule();
    begin_atomic(at, bytes, false, "loads", pc);
    Variable& variable = variable_at(at, bytes);
    const std::size_t newest = variable.stores.size() - 1;
    const std::size_t oldest = machine.stale_left > 0 ? floor_of(variable, order) : newest;
    const unsigned age = choose(unsigned(std::min<std::size_t>(newest - oldest + 1, candidates_max)));
    if (age > 0) --machine.stale_left;
    const std::uint64_t value = see(variable, newest - age, order);
    note("loads", at, value, age, pc);
    tick();
    return value;
}

void atomic_store(void* at, unsigned bytes, std::uint64_t value, std::memory_order order, const void* pc) {
    const Own own;
    // Whoever looks before a relaxed store sees an old value; the next step of this thread is soon enough for that.
    if (order != std::memory_order_relaxed) schedule();
    begin_atomic(at, bytes, true, "stores", pc);
    Variable& variable = variable_at(at, bytes);
    note("stores", at, value, 0, pc);
    append(variable, at, value, order, false);
}

std::uint64_t atomic_change(void* at, unsigned bytes, Change change, std::uint64_t operand, std::memory_order order, const void* pc) {
    const Own own;
    schedule();
    begin_atomic(at, bytes, true, "changes", pc);
    Variable& variable = variable_at(at, bytes);
    const std::uint64_t old = see(variable, variable.stores.size() - 1, order);
    std::uint64_t fresh = operand;
    switch (change) {
    case Change::exchange: break;
    case Change::add: fresh = old + operand; break;
    case Change::sub: fresh = old - operand; break;
    case Change::bit_and: fresh = old & operand; break;
    case Change::bit_or: fresh = old | operand; break;
    case Change::bit_xor: fresh = old ^ operand; break;
    }
    if (bytes < 8) fresh &= (std::uint64_t(1) << (8 * bytes)) - 1;
    note("changes", at, fresh, 0, pc);
    append(variable, at, fresh, order, true);
    return old;
}

bool atomic_compare(void* at, unsigned bytes, std::uint64_t& expected, std::uint64_t desired, std::memory_order order, std::memory_order failed_order,
                    const void* pc) {
    const Own own;
    schedule();
    begin_atomic(at, bytes, true, "compares", pc);
    Variable& variable = variable_at(at, bytes);
    const std::size_t newest = variable.stores.size() - 1;
    const bool equal = variable.stores[newest].value == expected;
    const std::uint64_t old = see(variable, newest, equal ? order : failed_order);
    note(equal ? "swaps" : "differs", at, equal ? desired : old, 0, pc);
    if (equal) append(variable, at, desired, order, true);
    else tick();
    expected = old;
    return equal;
}

void fence(std::memory_order order, const void* pc) {
    const Own own;
    Thread& self = current();
    note("fence", nullptr, std::uint64_t(int(order)), 0, pc);
    if (acquires(order)) self.now.join(self.acquired_by_fence);
    if (order == std::memory_order_seq_cst) {  // such fences are in one order, and each knows what the former ones knew
        self.now.join(machine.sequential);
        machine.sequential = self.now;
    }
    if (releases(order)) self.released_by_fence = self.now;
    tick();
}

void pause_point() {
    const Own own;
    schedule();
}

void lock(void* at, bool recursive, const void* pc) {
    const Own own;
    schedule();
    Mutex& mutex = machine.mutexes[at];
    if (mutex.owner == machine.running && !recursive) fail("a mutex is locked twice at " + place_of(pc));
    if (mutex.owner != clocks && mutex.owner != machine.running) {
        wait_for([&mutex] { return mutex.owner == clocks; }, "a mutex");
    }
    mutex.owner = machine.running;
    ++mutex.depth;
    current().now.join(mutex.released);
    note("locks", at, mutex.depth, 0, pc);
    tick();
}

void unlock(void* at, const void* pc) {
    const Own own;
    Mutex& mutex = machine.mutexes[at];
    if (mutex.owner != machine.running) fail("a mutex of somebody else is unlocked at " + place_of(pc));
    note("unlocks", at, mutex.depth, 0, pc);
    if (--mutex.depth > 0) return;
    mutex.released = current().now;
    mutex.owner = clocks;
    tick();
}

void freed(void* block, std::size_t bytes, const void* pc) {
    const Own own;
    const auto from = reinterpret_cast<std::uintptr_t>(block);
    look_for_freed(from, bytes, pc);
    check_plain(from, bytes, true, "frees", pc);
    for (const auto& [address, variable] : machine.variables) {
        if (address >= from && address < from + bytes) check_variable(address, true, false, "frees", pc);
    }
    note("frees", block, bytes, 0, pc);
    machine.gone.push_back({from, from + bytes});
    machine.quarantine.push_back(block);
}

// -- what scenarios call -----------------------------------------------------------------------------------------

void run(std::initializer_list<std::function<void()>> threads) {
    if (threads.size() > threads_max) fail("too many threads");
    machine.count = 0;
    for (const auto& body : threads) start(++machine.count, body);
    machine.threads[0].over = true;
    void* const own = machine.get_carried != nullptr ? machine.get_carried() : nullptr;
    if (machine.set_carried != nullptr) machine.set_carried(nullptr);
    machine.running = 1 + choose(machine.count);                                 // who is first is a choice like any other
    swapcontext(&machine.scheduler, &machine.threads[machine.running].context);  // whoever is last comes back here
    if (machine.set_carried != nullptr) machine.set_carried(own);
}

void require(bool condition, const char* promise) {
    if (!condition) fail(promise);
}

void wait_readable(int descriptor, const char* what) {
    const Own own;
    wait_for(
        [descriptor] {
            pollfd one{descriptor, POLLIN, 0};
            return poll(&one, 1, 0) == 1;
        },
        what);
}

void yield() {
    const Own own;
    current().yielded = true;
    schedule();
}

void carry(void* (*get)(), void (*set)(void*)) {
    machine.get_carried = get;
    machine.set_carried = set;
}

Outcome explore(const std::function<void()>& scenario, const Bounds& bounds) {
    Outcome outcome;
    // Once in the ordinary course: what is made by the first use is there afterwards.
    machine.bounds = Bounds{0, 0, 0, 0};
    machine.choices.clear();
    execute(scenario, outcome);
    outcome = {};
    machine.bounds = bounds;
    machine.choices.clear();
    for (;;) {
        if (bounds.seed != 0) {
            machine.choices.clear();
            machine.dice = (bounds.seed + outcome.executions) * 0x9e3779b97f4a7c15u | 1;
        }
        execute(scenario, outcome);
        if (bounds.seed == 0 && !advance()) {
            outcome.complete = true;
            return outcome;
        }
        if (bounds.executions != 0 && outcome.executions >= bounds.executions) return outcome;
    }
}

void replay(const std::function<void()>& scenario, const Bounds& bounds, const std::string& choices) {
    Outcome outcome;
    machine.bounds = Bounds{0, 0, 0, 0};
    machine.choices.clear();
    execute(scenario, outcome);
    machine.bounds = bounds;
    machine.choices.clear();
    for (std::size_t at = 0; at < choices.size(); at = std::min(choices.find(',', at), choices.size() - 1) + 1) {
        machine.choices.push_back({unsigned(std::strtoul(choices.c_str() + at, nullptr, 10)), 0});
    }
    execute(scenario, outcome);
}

}  // namespace evpl::race
