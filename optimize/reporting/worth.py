"""The report's account of what each setting is worth."""

from __future__ import annotations

from optimize.reporting.blocks import Block, Chart, Paragraph, Section, Table
from optimize.reporting.charts import interval_chart
from optimize.reporting.curves import gain_chart
from optimize.reporting.drawing import Dot
from optimize.reporting.headline import signed
from optimize.reporting.insight_worth import SettingWorth, ValueWorth, Worths, worths
from optimize.reporting.record import Record
from optimize.reporting.settings import setting_text

FEW = 8
"""With fewer trials nothing is said of single settings."""

MOST_VALUES = 8
"""Values of a setting that are drawn: those of which most is known."""

_SHOWN, _MARGINALS = 12, 6
"""Settings whose gap is drawn, and whose values are drawn one by one."""


def worth(record: Record) -> Section | None:
    """What each setting is worth; None where no setting had two values."""
    outcome = record.outcome
    entries = [outcome.baseline, *(entry for entry in outcome.trials if entry.summary.valid)]
    title = "What each setting is worth"
    if len(entries) - 1 < FEW:
        few = f"{len(entries) - 1} valid trials are too few to tell what single settings are worth; it takes {FEW}."
        return Section(title, (Paragraph(few),)) if outcome.trials else None
    found = worths(entries, {entry.unit: record.scores(entry) for entry in entries})
    if found is None:
        return None
    drawn = found.settings[:_SHOWN]
    blocks: list[Block] = [Paragraph(_said(found)), _gaps(drawn, outcome.metric), _marginals(drawn, record)]
    if len(found.settings) > len(drawn):
        blocks.append(Paragraph(f"{len(found.settings) - len(drawn)} more settings matter less and are not drawn."))
    return Section(title, (*blocks, Paragraph(_about(found))))


def _said(found: Worths) -> str:
    shown = [one for one in found.settings if one.is_shown]
    if not shown:
        return (
            f"From {found.answers:,} answers of {found.entries - 1:,} trials and the baseline, it is not clear of any "
            "single setting that one of its values is better: every interval holds 0."
        )
    parts = [f"{one.name} ({setting_text(one.best)} above {setting_text(one.worst)} by {one.gap:.3f})" for one in shown]
    rest = len(found.settings) - len(shown)
    others = f" Of the other {rest} it is not clear that their values differ." if rest else ""
    return f"From {found.answers:,} answers, these matter: {', '.join(parts)}.{others}"


def _about(found: Worths) -> str:
    left = f" {found.left_out:,} trials that were asked less are left out of it." if found.left_out else ""
    return (
        "This is a main-effects model: the search's own Bayesian linear model of every answer (question, settings, "
        "candidate, and what is left of each configuration), fitted to the answers without what retrieval is foreseen "
        "to find. It draws noisy values towards their average and knows no interplay of settings, so it says where to "
        "look and not what is proven. Intervals take the learned sizes of effects for certain and questions for "
        "independent, so they are rather too narrow. A setting counts where it has an effect: retrieve_k where "
        f"something is reranked, an embedder where vectors are looked at.{left}"
    )


def _gaps(settings: tuple[SettingWorth, ...], metric: str) -> Chart:
    dots = [Dot(one.name, one.gap, one.low, one.high, "winner" if one.is_shown else "trial") for one in settings]
    rows = tuple(
        (
            one.name,
            setting_text(one.best),
            setting_text(one.worst),
            f"{one.gap:.3f} [{signed(one.low)}, {signed(one.high)}]",
        )
        for one in settings
    )
    marked = frozenset(n for n, one in enumerate(settings) if one.is_shown)
    header = ("setting", "best value", "worst value", f"{metric} between them")
    caption = (
        "How far the best value of each setting is believed to be above the worst, with 95 % intervals. An interval "
        "that holds 0 does not tell the two apart."
    )
    return Chart(
        (interval_chart(dots, f"{metric} from worst to best value", zero=True),),
        caption,
        Table(header, rows, frozenset({3}), marked, "Importance of settings"),
    )


def _marginals(settings: tuple[SettingWorth, ...], record: Record) -> Chart:
    kept = {one.name: _kept(one) for one in settings}
    every = [value for values in kept.values() for value in values]
    low, high = min(0.0, *(gain.low for gain in every)), max(0.0, *(gain.high for gain in every))
    chosen = record.outcome.winner.params if record.outcome.winner is not None else {}
    svgs = []
    for one in settings[:_MARGINALS]:
        gains = [
            Dot(setting_text(v.value), v.gain, v.low, v.high, "winner" if chosen.get(one.name) == v.value else "trial")
            for v in kept[one.name]
        ]
        svgs.append(gain_chart(one.name, gains, low, high, one.is_number))
    rows = tuple(
        (
            one.name,
            setting_text(v.value),
            f"{signed(v.gain)} [{signed(v.low)}, {signed(v.high)}]",
            str(v.trials),
            str(v.asked),
        )
        for one in settings
        for v in one.values
    )
    header = ("setting", "value", "gain (95 % interval)", "trials", "questions")
    caption = (
        f"{record.outcome.metric} of each value above the average over the values tried, all else equal, with 95 % "
        "intervals; all on one scale."
    )
    if chosen:
        caption += " What the winner has is highlighted."
    if len(settings) > len(svgs):
        caption += f" The {len(svgs)} settings with the largest gaps are drawn; the table has all."
    cut = sum(len(one.values) - len(kept[one.name]) for one in settings)
    if cut:
        caption += f" Of settings with many values the {MOST_VALUES} that were asked most are drawn."
    return Chart(tuple(svgs), caption, Table(header, rows, frozenset({2, 3, 4}), name="Worth of every value"))


def _kept(one: SettingWorth) -> list[ValueWorth]:
    """The values that are drawn, in their order."""
    most = sorted(one.values, key=lambda value: -value.asked)[:MOST_VALUES]
    return [value for value in one.values if value in most]
