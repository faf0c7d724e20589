#pragma once

// What we believe of the library, in one table: `evpl selftest --xlio` asks the real one, the stand-in of the tests keeps each, and its README
// shows this table (evpl-xlio-probe --list).

namespace probe {

class Field;

/// Where a rule comes from. `confirmed`: seen on a card; none is yet.
enum class Source { read, measured, suspected, confirmed };
const char* name_of(Source source) noexcept;

enum class Verdict { same, differs, unseen };

/// What asking gave.
struct Answer {
    Verdict verdict = Verdict::unseen;
    char seen[160] = "";
};

struct Rule {
    const char* id;
    const char* text;
    Source source;
    const char* kept_by;       ///< the stand-in's knob, or how it watches over the rule
    Answer (*ask)(Field&);     ///< null: cannot be asked without harm
    const char* why_not = "";  ///< then
};

extern const Rule rules[];
extern const unsigned rule_count;

/// Asks one after the other, against the library at `path` and an echo server; writes a line for each to standard output. The exit status.
int ask_all(const char* path, const char* address, const char* port);

}  // namespace probe
