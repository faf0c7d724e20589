"""Medians, ratios, verdicts, Markdown."""
from statistics import median, quantiles

from cells import CPU, HIGHER_IS_BETTER, MB, P50, RATE

AA_TOLERANCE = 0.04  # a metric counts when the floor against itself agrees this well

TITLES = {RATE: "requests/s", MB: "MB/s", P50: "p50 us", "p99_us": "p99 us", CPU: "CPU us/req", "server_cpu_percent": "CPU %",
          "lost": "lost", "server_voluntary_switches": "sleeps", "private_bytes_per_connection": "private B/conn",
          "rss_bytes_per_connection": "RSS B/conn"}


def values(runs, server, metric):
    return [run[metric] for run in runs.get(server, [])]


def floor_values(runs, metric):
    """Per round, the mean of both floors."""
    return [(a + b) / 2 for a, b in zip(values(runs, "floor-A", metric), values(runs, "floor-B", metric))]


def ratio(over, under):
    """Median of the per-round ratios; None without data."""
    pairs = [(a, b) for a, b in zip(over, under) if b > 0]
    return median(a / b for a, b in pairs) if pairs else None


def spread(samples):
    """Interquartile range over median."""
    if len(samples) < 2 or median(samples) == 0:
        return 0.0
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return (high - low) / median(samples)


def aa_ratio(runs, metric):
    return ratio(values(runs, "floor-A", metric), values(runs, "floor-B", metric))


def steady(cell, runs):
    """Whether floor A and floor B agree on every judged metric."""
    judged = {*cell.bars, *(claim.metric for claim in cell.claims if claim.against)}
    return all(aa is not None and abs(aa - 1) <= AA_TOLERANCE for aa in (aa_ratio(runs, metric) for metric in judged))


def clears(metric, value, bar):
    return value >= bar if metric in HIGHER_IS_BETTER else value <= bar


def verdict_on(metric, value, bar, aa):
    """PASS or FAIL when floor A and B agree. When they do not, only a miss by far more than their
    difference is a FAIL, and everything else UNSTEADY."""
    noise = abs(aa - 1)
    if noise <= AA_TOLERANCE:
        return "PASS" if clears(metric, value, bar) else "FAIL"
    slack = 1 + 3 * noise
    return "UNSTEADY" if clears(metric, value, bar / slack if metric in HIGHER_IS_BETTER else bar * slack) else "FAIL"


def judge(cell, runs):
    """A list of verdicts: server, metric, ratio, bar, aa, verdict (PASS, FAIL, UNSTEADY)."""
    verdicts = []
    for server in ("evpl", "evpl-hybrid"):
        for metric, bar in cell.bars.items():
            if server == "evpl-hybrid" and metric == CPU:
                continue  # spinning spends CPU on purpose; throughput and latency are judged
            against = ratio(values(runs, server, metric), floor_values(runs, metric))
            if against is None:
                continue
            aa = aa_ratio(runs, metric)
            verdicts.append({"server": server, "metric": metric, "ratio": against, "bar": bar, "aa": aa,
                             "verdict": verdict_on(metric, against, bar, aa)})
    return verdicts + judge_claims(cell, runs) + judge_peers(cell, runs)


def judge_claims(cell, runs):
    """Rows against the best of others in each round."""
    verdicts = []
    for claim in cell.claims:
        best = max if claim.metric in HIGHER_IS_BETTER else min
        own = values(runs, claim.server, claim.metric)
        others = [values(runs, name, claim.metric) for name in claim.against]
        if not own or not all(others):
            continue
        to = ratio(own, [best(each) for each in zip(*others)]) if others else median(own)
        aa = aa_ratio(runs, claim.metric) or 1
        verdicts.append({"server": f"{claim.server} to {', '.join(claim.against) or 'the bar'}", "metric": claim.metric, "ratio": to,
                         "bar": claim.bar, "aa": aa, "verdict": verdict_on(claim.metric, to, claim.bar, aa)})
    return verdicts


def judge_peers(cell, runs):
    """No peer may be ahead of evpl by more than the floor varies."""
    verdicts = []
    if not floor_values(runs, CPU):
        return verdicts
    for peer in ("libuv", "asio"):
        for metric in cell.bars:
            against = ratio(values(runs, peer, metric), values(runs, "evpl", metric))
            if against is None:
                continue
            allowed = spread(values(runs, "floor-A", metric) + values(runs, "floor-B", metric))
            bar = 1 + allowed if metric in HIGHER_IS_BETTER else 1 - allowed
            ahead = against > bar if metric in HIGHER_IS_BETTER else against < bar
            aa = aa_ratio(runs, metric)
            verdict = "PASS" if not ahead else "FAIL" if abs(aa - 1) <= AA_TOLERANCE else "UNSTEADY"
            verdicts.append({"server": f"{peer} against evpl", "metric": metric, "ratio": against, "bar": bar, "aa": aa,
                             "verdict": verdict})
    return verdicts


def number(value):
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def cell_summary(runs, metric, server):
    samples = values(runs, server, metric)
    return f"{number(median(samples))} ({number(min(samples))}..{number(max(samples))})" if samples else "–"


def markdown_cell(result, cell):
    runs, lines = result["runs"], []
    lines.append(f"### {cell.name} / {cell.wait}\n")
    lines.append(f"{result['rounds']} rounds; median (min..max). `load {' '.join(map(str, cell.load))}`\n")
    floor_known = "floor-A" in runs and "floor-B" in runs
    judged = list(cell.bars) if floor_known else []
    lines.append("| server | " + " | ".join([TITLES[m] for m in cell.shown] + [f"{TITLES[m]} / floor" for m in judged]) + " |")
    lines.append("|---" * (1 + len(cell.shown) + len(judged)) + "|")
    for server in runs:
        row = [cell_summary(runs, metric, server) for metric in cell.shown]
        for metric in judged:
            # The floors show floor-A over floor-B: how steady this machine is.
            one = aa_ratio(runs, metric) if server.startswith("floor") else ratio(values(runs, server, metric), floor_values(runs, metric))
            row.append("–" if one is None else f"{one:.3f}")
        lines.append(f"| {server} | " + " | ".join(row) + " |")
    for verdict in result["verdicts"]:
        if verdict["verdict"] == "PASS" and "against" in verdict["server"]:
            continue  # only a peer that is ahead is news
        sign = ">=" if verdict["metric"] in HIGHER_IS_BETTER else "<="
        if "against" in verdict["server"]:
            sign = sign.translate(str.maketrans("<>", "><"))
        lines.append(f"\n- **{verdict['verdict']}** {verdict['server']} {TITLES[verdict['metric']]}: "
                     f"{verdict['ratio']:.3f} (bar {sign} {verdict['bar']:.3f}, A/A {verdict['aa']:.3f})")
    for failure in result["failures"]:
        lines.append(f"\n- **ERROR** {failure}")
    steal = max((run["steal_percent"] for all_runs in runs.values() for run in all_runs), default=0)
    if steal > 1:
        lines.append(f"\n- the hypervisor took up to {steal:.1f} % of the CPUs")
    return "\n".join(lines) + "\n"


def markdown(document, cells):
    lines = ["# End-to-end comparison\n"]
    lines += [f"- {name}: {value}" for name, value in document["machine"].items()]
    lines += [f"- {name}: {value}" for name, value in document["parameters"].items()]
    lines.append("\nIn the rows of the floors the ratio columns show floor-A over floor-B.\n")
    by_name = {(cell.name, cell.wait): cell for cell in cells}
    return "\n".join(lines) + "\n" + "\n".join(markdown_cell(one, by_name[one["name"], one["wait"]]) for one in document["cells"])
