// The doorbell queue: tasks from several threads to one loop that sleeps.
#include <utility>

#include "core/mailbox.hpp"
#include "scenarios.hpp"

namespace evpl::race {
namespace {

using core::Mailbox;

/// What came of each poster's tasks. Each task has its own place: whichever thread ends it, nobody else writes there.
struct Ledger {
    static constexpr int posters = 3, tasks_max = 8;
    int next[posters] = {};
    int runs = 0;
    std::uint8_t ended[posters][tasks_max] = {};

    bool each_ended_once(int poster, int tasks) const {
        bool good = true;
        for (int i = 0; i < tasks; ++i) good &= ended[poster][i] == 1;
        return good;
    }
};

/// A task that knows whose it is, and which.
struct Note {
    Ledger* ledger;
    int poster, number;
    bool whole = true;
    Note(Ledger& l, int p, int n) noexcept : ledger(&l), poster(p), number(n) {}
    Note(Note&& other) noexcept : ledger(other.ledger), poster(other.poster), number(other.number), whole(std::exchange(other.whole, false)) {}
    ~Note() {
        if (whole) ++ledger->ended[poster][number];
    }
    void operator()() {
        require(whole && number == ledger->next[poster], "each poster's tasks are run in order, each once");
        ++ledger->next[poster];
        ++ledger->runs;
    }
};

struct World {
    Mailbox mailbox;
    Bedside bed;
    Ledger ledger;

    void post(int poster, int from, int to) {
        for (int i = from; i < to; ++i) {
            require(mailbox.post(Task(Note(ledger, poster, i))), "an open mailbox takes what it is given");
            bed.bell.ring();
        }
    }
    void serve(int tasks) {
        while (ledger.runs < tasks) {
            if (mailbox.drain(8, [](Task& task) { task(); }) > 0) continue;
            bed.sleep_while([&] { return mailbox.empty(); });
        }
        require(mailbox.empty(), "nothing is left");
    }
};

void two_posters() {
    World world;
    world.post(2, 0, 1);
    run({[&] { world.post(0, 0, 2); }, [&] { world.post(1, 0, 1); }, [&] { world.serve(4); }});
}

/// The ring is full but for one cell: what follows goes through the list and must not be overtaken.
void overflow() {
    World world;
    world.post(2, 0, int(Mailbox::cells_max) - 1);
    run({[&] { world.post(0, 0, 3); }, [&] { world.post(1, 0, 1); }, [&] { world.serve(int(Mailbox::cells_max) + 3); }});
}

/// Nobody has posted before: the ring is made by whoever comes first.
void first_posts() {
    World world;
    run({[&] { world.post(0, 0, 1); }, [&] { world.post(1, 0, 1); }, [&] { world.serve(2); }});
}

/// Posters while the mailbox is closed and emptied: what was taken is run or destroyed, what was not stays the poster's.
void close_meanwhile(bool full) {
    Mailbox mailbox;
    Ledger ledger;
    int posted = 0;
    for (; full && posted < int(Mailbox::cells_max); ++posted) require(mailbox.post(Task(Note(ledger, 2, posted))), "it is open");
    const auto poster = [&](int number) {
        for (int i = 0; i < 2; ++i) {
            Task task(Note(ledger, number, i));
            if (!mailbox.post(std::move(task))) require(bool(task), "a task that is not taken is untouched");
        }
    };
    run({[&] { poster(0); }, [&] { poster(1); },
         [&] {
             mailbox.drain(2, [](Task&) {});
             mailbox.close();
             mailbox.discard();
             require(mailbox.empty(), "a discarded mailbox is empty");
         }});
    require(ledger.each_ended_once(0, 2) && ledger.each_ended_once(1, 2) && ledger.each_ended_once(2, posted), "each task ends once");
}
void close_meanwhile_empty() { close_meanwhile(false); }
void close_meanwhile_full() { close_meanwhile(true); }

/// A late post to a loop that is gone, while its control block serves the next one.
void reopen_meanwhile() {
    Mailbox mailbox;
    Ledger former, present;
    const std::uint32_t epoch = mailbox.epoch();
    run({[&] { mailbox.post(Task(Note(former, 0, 0)), epoch); },
         [&] {
             mailbox.close();
             mailbox.discard();
             const std::uint32_t next = mailbox.reopen();
             require(mailbox.post(Task(Note(present, 0, 0)), next), "it is open again");
             mailbox.drain(8, [](Task& task) { task(); });
         }});
    require(former.runs == 0 && former.each_ended_once(0, 1), "a task for the former loop is not run by the next");
    require(present.runs == 1 && present.each_ended_once(0, 1) && mailbox.empty(), "the next loop has its own");
    mailbox.close();
}

/// A ringer while the loop gets up and goes: its descriptor is not closed under the ringer's hand.
void bell_goes() {
    Bedside bed;
    run({[&] { bed.bell.ring(); }, [&] { bed.bell.ring(); },
         [&] {
             bed.bell.prepare_sleep();
             bed.bell.cancel_sleep();
             bed.bell.prepare_sleep();
             bed.bell.close();
         }});
}

}  // namespace

std::initializer_list<Scenario> mailbox_scenarios() {
    static const std::initializer_list<Scenario> all = {
        {"two_posters", &two_posters, {2, 1}},
        {"overflow", &overflow, {2, 0}},
        {"first_posts", &first_posts, {2, 1}},
        {"close_meanwhile", &close_meanwhile_empty, {2, 1}},
        {"close_meanwhile_full", &close_meanwhile_full, {2, 0}},
        {"reopen_meanwhile", &reopen_meanwhile, {3, 1}},
        {"bell_goes", &bell_goes, {3, 1}},
    };
    return all;
}

}  // namespace evpl::race
