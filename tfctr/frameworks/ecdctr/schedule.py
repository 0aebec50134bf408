"""What is due on a day of a rollout, from its config and the state that the day before has left."""

import datetime
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tfctr.frameworks.ecdctr.config import RolloutConfig

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class State:
    """What a day's step needs from the steps before it."""

    key: str = ""
    through: int = -1  # number, in the log, of the last day whose tokens the models have
    ads: str = ""  # path of the model in the rollout's folder, as the next two
    complete: str = ""
    tiny: str = ""
    complete_until: str = ""
    snapshots: dict[str, str] = field(default_factory=dict)  # until -> key, ascending
    methods_until: str = ""  # the day after the last one that the methods' tables are of
    methods_through: int = -1  # number, in the log, of the day whose vocabularies they have
    version: str = ""

    def changed(self, **changes: Any) -> "State":
        return State(**asdict(self) | changes)


def methods_are_due(config: RolloutConfig, state: State, day: datetime.date) -> bool:
    """Whether the methods' tables are made again at the end of the day."""
    return bool(config.frameworks) and _is_over(state.methods_until, config.methods_every, day)


def tiny_periods(
    config: RolloutConfig, state: State, day: datetime.date
) -> Iterator[tuple[datetime.date, datetime.date]]:
    """The periods `(first day, day after the last)` of the tiny model that are over at the end of
    the day, and that it was not trained on."""
    if config.tiny is None:
        return
    length = config.tiny.every * DAY
    ends = [datetime.date.fromisoformat(end) for end in state.snapshots]
    since = max(ends, default=config.days.first)
    while since + length <= day + DAY:
        yield since, since + length
        since += length


def complete_is_due(config: RolloutConfig, state: State, day: datetime.date) -> bool:
    """Whether the complete model is trained at the end of the day."""
    complete = config.complete
    return complete is not None and _is_over(state.complete_until, complete.every, day)


def ads_start(config: RolloutConfig, state: State, complete_is_new: bool) -> str:
    """What the ads model's training starts from: "scratch", "complete", or "ads", itself."""
    if config.ads.restarts:
        return "scratch"
    if state.ads and not complete_is_new:
        return "ads"
    return "complete" if config.complete is not None else "scratch"


def due(config: RolloutConfig, state: State, day: datetime.date) -> tuple[list[str], State]:
    """What the step of a day does if its rows are there, in words; and the state after it, for
    `due` of the next day."""
    words = ["evaluate"] if state.ads else []
    after: dict[str, Any] = {"ads": "ads"}
    if methods_are_due(config, state, day):
        words += _methods_in_words(config, starts=not state.methods_until)
        after["methods_until"] = str(day + DAY)
    for since, until in tiny_periods(config, state, day):
        words.append(f"tiny on {since} to {until - DAY}")
        after["snapshots"] = after.get("snapshots", state.snapshots) | {str(until): ""}
    is_new = complete_is_due(config, state, day)
    if is_new:
        words.append("complete")
        after |= {"complete": "complete", "complete_until": str(day + DAY)}
    start = ads_start(config, state, is_new)
    words.append("ads, trained on" if start == "ads" else f"ads from {start}")
    if config.export is not None:
        words.append("export")
    return words, state.changed(**after)


def _methods_in_words(config: RolloutConfig, starts: bool) -> list[str]:
    """What is made of the methods: everything before the first training, else what `made_again`
    names."""
    if starts:
        return [f"build {', '.join(method.name for method in config.frameworks)}"]
    made: dict[str, list[str]] = {}
    for method in config.frameworks:
        if method.made_again:
            made.setdefault(method.made_again, []).append(method.name)
    return [f"{what} of {', '.join(names)}" for what, names in made.items()]


def _is_over(until: str, every: int | None, day: datetime.date) -> bool:
    """Whether it is time for something that is done every so many days, and was until a day."""
    if not until:
        return True
    since = datetime.date.fromisoformat(until)
    return every is not None and (day + DAY - since).days >= every
