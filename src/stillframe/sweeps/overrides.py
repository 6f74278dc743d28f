"""The overrides of a sweep's command line, by Hydra's grammar and conf/sweep.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.paths import CONF
from stillframe.sweeps.settings import SweepSettings

if TYPE_CHECKING:
    from stillframe.sweeps.search import SearchPlan


def compose(overrides: list[str]) -> dict[str, Any]:
    """conf/sweep.yaml with those of the overrides that are no choices, and Hydra's launcher and sweeper beside it.

    Raises:
        ValueError: Hydra cannot compose it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from stillframe.config.hydra_compose import explain

    try:
        fixed = [override for override, choices in parse(overrides) if not choices]
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = hydra_compose("sweep", overrides=fixed, return_hydra_config=True)
            node = composed.hydra
            tools = {name: OmegaConf.to_container(node[name], resolve=False) for name in ("launcher", "sweeper")}
            choices = OmegaConf.to_container(node.runtime.choices)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        not_ours = ("sweep.", "seeds", "folds", "hydra")
        own = [override for override in overrides if not override.lstrip("+~").startswith(not_ours)]
        raise ValueError(
            explain(own) or unknown_key(overrides) or f"{CONF}/ does not compose: {' '.join(str(error).split())}"
        ) from None
    return {**values, "hydra": {**tools, "choices": choices}}


def parse(overrides: list[str]) -> list[tuple[str, list[str]]]:
    """Each override with its choices; [] when it has a single value (ValueError: not in Hydra's grammar)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    out: list[tuple[str, list[str]]] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ValueError(f"{text}: not an override in Hydra's grammar: {' '.join(str(error).split())}") from None
        value: Any = override.value()
        if isinstance(value, Glob):  # Hydra reads the folder only when it composes
            options = sorted(path.stem for path in (CONF / override.key_or_group).glob("*.yaml"))
            choices = list(value.filter(options))
        else:
            listed = override.is_sweep_override() and override.is_discrete_sweep()
            choices = list(override.sweep_string_iterator()) if listed else []
        out.append((text, choices or (["..."] if override.is_sweep_override() else [])))
    return out


def plan_search(values: dict[str, Any], overrides: list[str], config: SweepSettings) -> SearchPlan | None:
    """The checked plan of an adaptive search; None: Hydra's own sweeper runs a grid (ValueError: what is wrong)."""
    if not str(values["hydra"]["sweeper"]["_target_"]).startswith("hydra_plugins.stillframe_search"):
        return None
    from stillframe.sweeps import search

    return search.plan(values["hydra"]["sweeper"], overrides, config.objectives)


def unknown_key(overrides: list[str]) -> str:
    """Which `hydra.sweeper` key is unknown; "" when none is, or none is meant."""
    if not any(override.startswith("hydra/sweeper=") for override in overrides):
        return ""
    from stillframe.sweeps import search

    return search.explain(overrides)


def count(overrides: list[str]) -> int | None:
    """Trials of a grid; None where a sweeper of the user's decides."""
    if any("hydra/sweeper" in override for override in overrides):
        return None
    total = 1
    for _, choices in parse(overrides):
        total *= max(1, len(choices))
    return total
