"""The door through which Hydra finds stillframe's adaptive search: it takes sweepers from this namespace only.

Hydra imports this file whenever it composes anything, so it imports nothing but Hydra. What a search does is in
`stillframe.sweeps.search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Search(Sweeper):
    """Hands batches of trials to Hydra's launcher, as `stillframe.sweeps.search` asks for them."""

    def __init__(self, **options: Any) -> None:
        """`options`: conf/hydra/sweeper/optuna.yaml with its overrides; read from the configuration in `sweep`."""
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that the configuration names."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search until the budget is spent."""
        from stillframe.sweeps import search
        from stillframe.sweeps.store import Sweep

        assert self.config is not None and self.hydra_context is not None, "Hydra calls setup first"
        sweep = Sweep.read(Path(self.config.hydra.sweep.dir))
        sweeper: Any = OmegaConf.to_container(self.config.hydra.sweeper)
        plan = search.plan(sweeper, arguments, sweep.objectives)
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, plan.space.fixed)
        return search.SearchState(plan, sweep, int(composed.trainer.max_epochs)).run(self.launch)

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        """Run trials at once, numbered from `first`."""
        assert self.launcher is not None
        jobs = [list(overrides) for overrides in batch]
        returned: Sequence[JobReturn] = self.launcher.launch(jobs, initial_job_idx=first)
        return returned
