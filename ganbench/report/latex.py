"""The table of results as LaTeX, to be copied into a paper."""

from ganbench.errors import plural
from ganbench.report.compare import Comparison, Method
from ganbench.report.statistics import center_name
from ganbench.report.study import Study
from ganbench.report.tables import format_number
from ganbench.report.tuning import MISSING

# What is text in a label or a name, and a command in LaTeX.
ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
})  # fmt: skip
COMMENT = (
    "% Needs \\usepackage{{booktabs}}. {metric}, lower is better, over {seeds}; intervals are 95 %.\n"
    "% Bold: the best method, and those not significantly worse. p: Holm-corrected for all pairs.\n"
)


def results(study: Study) -> str:
    """Return a tabular with a row per method, the best first, and one of real data."""
    seeds = max(len(method.scores) for method in study.methods)
    headers = ["method", center_name(seeds), r"95\,\% interval", "gap to best", r"95\,\% interval", "$p$"]
    lines = [r"\begin{tabular}{lrlrlr}", r"\toprule", _row(headers), r"\midrule"]
    lines += [_row(_cells(study, method)) for method in study.methods]
    if study.real_reference is not None:
        lines += [r"\midrule", _row(["real data", _number(study.real_reference), "", "", "", ""])]
    lines += [r"\bottomrule", r"\end{tabular}"]
    protocol = f"% {study.metric_protocol}.\n" if study.metric_protocol else ""
    return COMMENT.format(metric=study.metric, seeds=plural(seeds, "seed")) + protocol + "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cells(study: Study, method: Method) -> list[str]:
    label, score = escape(method.label), _number(method.iqm)
    if study.is_among_best(method):
        label, score = rf"\textbf{{{label}}}", _bold(score)
    return [label, score, _interval(method.interval), *_gap(study.vs_best.get(method.label))]


def _gap(comparison: Comparison | None) -> list[str]:
    """Return the gap to the best method, its interval and its p."""
    if comparison is None:
        return ["", "", ""]
    difference = comparison.difference
    return [_number(difference.gap), _interval(difference.interval), _number(comparison.shown_p)]


def _interval(interval: tuple[float, float] | None) -> str:
    return _number(None) if interval is None else f"[{_number(interval[0])}, {_number(interval[1])}]"


def _number(value: float | None) -> str:
    """Format as on the page; a sign and an exponent are mathematics."""
    text = format_number(value)
    if text == MISSING:
        return "--"
    mantissa, has_exponent, exponent = text.partition("e")
    if has_exponent:
        return rf"${mantissa} \times 10^{{{int(exponent)}}}$"
    return f"${text.replace(',', '{,}')}$" if text.startswith("-") else text


def _bold(number: str) -> str:
    is_mathematics = number.startswith("$")
    return rf"$\mathbf{{{number.strip('$')}}}$" if is_mathematics else rf"\textbf{{{number}}}"


def escape(text: str) -> str:
    """Make text mean itself in LaTeX."""
    return text.translate(ESCAPES)
