"""What a search may choose, in Hydra's grammar: choices, ranges and intervals, some of them on a condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from stillframe.config import hydra_compose, nearest
from stillframe.paths import CONF

Choose = Callable[[str, BaseDistribution], Any]


def parse(text: str) -> Override:
    """An override (ValueError: not in Hydra's grammar)."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(f"{text}: not an override in Hydra's grammar: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Parameter:
    """One parameter of the search.

    Attributes:
        key: as in an override, e.g. "optim.lr".
        name: the study's name of it; another than the key where a condition gives the key another range.
        distribution: what may be drawn; choices are texts in Hydra's grammar.
    """

    key: str
    name: str
    distribution: BaseDistribution

    def text(self, value: Any) -> str:
        """A drawn value as the right side of an override; of an interval six digits, so that people can read it."""
        if not isinstance(self.distribution, FloatDistribution):
            return str(value)
        return f"{value:.6g}" if self.distribution.step is None else f"{value:.12g}"


@dataclass(frozen=True)
class Branch:
    """Parameters that there are while `when` holds: key -> the texts of which its value must be one."""

    when: dict[str, list[str]]
    parameters: list[Parameter]

    def holds(self, texts: dict[str, str]) -> bool:
        """Whether it does, for what was chosen so far."""
        return all(
            key in texts and any(same(texts[key], condition) for condition in wanted)
            for key, wanted in self.when.items()
        )


def same(first: str, second: str) -> bool:
    """Equal as texts or as numbers."""
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


@dataclass(frozen=True)
class SearchSpace:
    """All that is searched, and the overrides that are the same in each trial."""

    fixed: list[str]
    branches: list[Branch]

    @property
    def parameters(self) -> list[Parameter]:
        """Those of all conditions."""
        return [parameter for branch in self.branches for parameter in branch.parameters]

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {override.key_or_group: _text(override) for override in map(parse, self.fixed)}

    def walk(self, choose: Choose) -> list[str]:
        """One trial's overrides; `choose` is asked for each parameter that there is in it."""
        texts = dict(self._texts)
        chosen: list[str] = []
        for branch in self.branches:
            if not branch.holds(texts):
                continue
            for parameter in branch.parameters:
                plain = parameter.key.lstrip("+")
                if plain not in texts:  # the first condition that holds decides
                    texts[plain] = parameter.text(choose(parameter.name, parameter.distribution))
                    chosen.append(f"{parameter.key}={texts[plain]}")
        return [*self.fixed, *chosen]

    def suggest(self, trial: Trial) -> list[str]:
        """The overrides that the study's sampler chooses; what the trial was given before stays."""

        def choose(name: str, distribution: BaseDistribution) -> Any:
            if isinstance(distribution, CategoricalDistribution):
                return trial.suggest_categorical(name, distribution.choices)
            kind = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
            return kind(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)

        return self.walk(choose)

    def every(self) -> Iterator[dict[str, Any]]:
        """All settings (name -> value), the last parameter the fastest.

        Raises:
            ValueError: a parameter has no finite list of values.
        """
        path: list[tuple[int, int]] = []  # at each turn of the walk: the point taken, and how many there are
        while True:
            setting: dict[str, Any] = {}

            def choose(name: str, distribution: BaseDistribution, setting: dict[str, Any] = setting) -> Any:
                values = points(name, distribution)
                if len(setting) == len(path):
                    path.append((0, len(values)))
                setting[name] = values[path[len(setting)][0]]
                return setting[name]

            self.walk(choose)
            yield setting
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])


def points(name: str, distribution: BaseDistribution) -> list[Any]:
    """All values of a parameter (ValueError: there is no end of them)."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if distribution.step is None or distribution.log:
        raise ValueError(f"{name}: a grid needs values: choice(...) or range(...), not interval or tag(log, ...)")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + index * distribution.step for index in range(count)]


def build(overrides: list[str], params: dict[str, Any], when: list[dict[str, Any]]) -> SearchSpace:
    """The space of a command line, `hydra.sweeper.params` and `hydra.sweeper.when`.

    Raises:
        ValueError: names the parameter, what is wrong with it, and the nearest right name.
    """
    # What the command line sets goes before hydra.sweeper.params.
    parsed = [parse(override) for override in overrides]
    keys = {override.key_or_group for override in parsed}
    of_params = [parse(f"{key}={value}") for key, value in params.items()]
    parsed += [override for override in of_params if override.key_or_group not in keys]
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    searched = [override for override in parsed if override.is_sweep_override()]
    conditional = [
        (_condition(entry), [parse(f"{key}={_plain(value)}") for key, value in entry["params"].items()])
        for entry in when
    ]
    # A key under several conditions may have another range in each: the study needs a name for each of them. One that
    # is searched without a condition, too, comes last and has that range wherever no condition holds.
    counts: dict[str, int] = {}
    for override in [*searched, *(override for _, inner in conditional for override in inner)]:
        counts[override.key_or_group] = counts.get(override.key_or_group, 0) + 1
    late = {override.key_or_group for _, inner in conditional for override in inner}
    first = Branch({}, [_parameter(override) for override in searched if override.key_or_group not in late])
    last = Branch({}, [_parameter(override) for override in searched if override.key_or_group in late])
    branches = [first]
    for condition, inner in conditional:
        listed = " ".join(f"{key}={','.join(wanted)}" for key, wanted in condition.items())
        names = {key: key for key in counts}
        names |= {key: f"{key} if {listed}" for key, count in counts.items() if count > 1}
        branches.append(Branch(condition, [_parameter(override, names[override.key_or_group]) for override in inner]))
    space = SearchSpace(fixed, [*branches, last] if last.parameters else branches)
    _check_conditions(space)
    if not space.parameters:
        raise ValueError(
            "a search has nothing to choose: give e.g. 'optim.lr=tag(log, interval(1e-4, 1e-1))' or model=a,b"
        )
    return space


def _condition(entry: dict[str, Any]) -> dict[str, list[str]]:
    unknown = [key for key in entry if key not in ("if", "params")]
    if unknown or not entry.get("if") or not entry.get("params"):
        hint = nearest(unknown[0], ["if", "params"]) if unknown else "it needs both"
        raise ValueError(f"hydra.sweeper.when: {entry}: {{if: {{key: value}}, params: {{key: ...}}}}: {hint}")
    wanted = {key: value if isinstance(value, list) else [value] for key, value in entry["if"].items()}
    return {key: [_text(parse(f"{key}={_plain(value)}")) for value in listed] for key, listed in wanted.items()}


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)


def _text(override: Override) -> str:
    return str(override.get_value_element_as_str())


def _parameter(override: Override, name: str = "") -> Parameter:
    try:
        distribution = _distribution(override)
    except ValueError as problem:
        raise ValueError(f"{override.input_line}: {problem}") from None
    # Compose conf/ with each choice, or with a number, so that a wrong key fails now and not in the tenth trial.
    tried = distribution.choices if isinstance(distribution, CategoricalDistribution) else ["0"]
    reason = hydra_compose.explain([f"{override.key_or_group}={text}" for text in tried])
    if reason:
        # of a number the reason names the one that we made up, so the user's own override stands before it
        numeric = distribution.__class__ is not CategoricalDistribution
        raise ValueError(f"{override.input_line}: {reason.partition(': ')[2]}" if numeric else reason)
    return Parameter(str(override.get_key_element()), name or override.key_or_group, distribution)


def _distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()
    tags: set[str] = getattr(value, "tags", set())
    if unknown := sorted(tags - {"log"}):
        raise ValueError(f"unknown tag {unknown[0]!r}: {nearest(unknown[0], ['log'])}")
    log = "log" in tags
    low: Any
    step: Any
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        whole = isinstance(low, int) and isinstance(high, int)
        step = 1 if whole else None
    elif isinstance(value, RangeSweep):
        listed = sorted(value.range())
        if not listed:
            raise ValueError("an empty range")
        low, high, step = (
            # 12 digits: without the last ones of 0.1 + 0.2
            number if isinstance(number, int) else float(f"{number:.12g}")
            for number in (listed[0], listed[-1], abs(value.step))
        )
        whole = all(isinstance(number, int) for number in (low, step))
    else:
        if log:
            raise ValueError("tag(log, ...) is for numbers: interval(...) or range(...)")
        return CategoricalDistribution(_choices(override, value))
    if low > high:
        raise ValueError(f"from {low} to {high}: the smaller comes first")
    if log and low <= 0:
        raise ValueError(f"tag(log, ...) from {low}: it must be more than 0")
    if log and step not in (None, 1):
        raise ValueError("tag(log, range(...)) with a step: take interval or choice")
    if whole:
        return IntDistribution(low, high, log=log, step=step)
    return FloatDistribution(low, high, log=log, step=None if log else step)


def _choices(override: Override, value: Any) -> list[str]:
    if isinstance(value, Glob):
        options = sorted(path.stem for path in (CONF / override.key_or_group).glob("*.yaml"))
        if not value.filter(options):
            raise ValueError(f"fits no file of {CONF}/{override.key_or_group}/: {', '.join(options)}")
        return list(value.filter(options))
    return list(dict.fromkeys(override.sweep_string_iterator())) if override.is_sweep_override() else [_text(override)]


def _check_conditions(space: SearchSpace) -> None:
    """Each `if` is about something that is searched or set, and about a value that it can have."""
    fixed = {override.key_or_group for override in map(parse, space.fixed)}
    can: dict[str, list[BaseDistribution]] = {}
    for parameter in space.parameters:
        can.setdefault(parameter.key.lstrip("+"), []).append(parameter.distribution)
    for branch in space.branches:
        for key, wanted in branch.when.items():
            if key in fixed:
                continue
            if key not in can:
                hint = nearest(key, [*can, *fixed])
                raise ValueError(f"hydra.sweeper.when: if {key}: neither searched nor set on the command line: {hint}")
            if not all(isinstance(distribution, CategoricalDistribution) for distribution in can[key]):
                continue
            possible = [text for distribution in can[key] for text in distribution.choices]
            for text in wanted:
                if not any(same(text, value) for value in possible):
                    raise ValueError(f"hydra.sweeper.when: if {key}: {text}: {nearest(text, possible)}")
