#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "perf.hpp"

namespace tool {

/// A measurement with its name.
struct Cell {
    std::string transport;
    Plan plan;
    Outcome outcome;
};

/// A transport that `perf --all` left out, or could not serve.
struct Absent {
    std::string transport;
    std::string reason;
};

/// "evpl 0.1.0 on 2 x <CPU>, Linux 6.1.0"
std::string machine_text();

/// What a plan measures, in one line.
std::string what_text(const Plan& plan);

/// One measurement for people, with all percentiles.
void print_cell(const Cell& cell);

/// The table of `perf --all`, a row at a time, so that something is to be read while the rest runs.
class OverviewTable {
public:
    explicit OverviewTable(const std::vector<Plan>& plans);
    void print_header() const;
    /// The cells of one transport, in the order of the plans; a missing one shows as "-".
    void print_row(const std::string& transport, const std::vector<Cell>& cells) const;
    void print_absent(const Absent& absent) const;

private:
    std::vector<Plan> plans_;
};

/// Everything, for programs.
nlohmann::ordered_json json_of(const PerfOptions& options, const std::vector<Cell>& cells, const std::vector<Absent>& absent);

}  // namespace tool
