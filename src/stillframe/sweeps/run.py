"""`python -m stillframe.sweep -m model=resnet18,plain_cnn optim.lr=1e-3,3e-4`: the whole DAG for each setting.

The command line is Hydra's; conf/sweep.yaml is its root. The same command again continues a sweep that was stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from stillframe.paths import CONF
from stillframe.sweeps import live_table, settings, stopping, trial
from stillframe.sweeps.create import open_sweep
from stillframe.sweeps.mlflow_record import SweepRun
from stillframe.sweeps.overrides import compose, count, plan_search
from stillframe.sweeps.store import Sweep

ASK = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")


def main(arguments: list[str]) -> int:
    """Run a sweep: 0 when every trial finished or was pruned, 1 when one failed, 128 + signal when it was stopped.

    Raises:
        ValueError: the command, the configuration or the checkout is not one to start from.
    """
    if not (CONF / "sweep.yaml").is_file():
        raise FileNotFoundError(f"{CONF}/sweep.yaml is missing: run this in the repository's root")
    overrides = [override for override in arguments if override not in ("-m", "--multirun")]
    if any(override.split("=")[0] in ASK for override in overrides):
        hydra(arguments)
        return 0
    values = compose(overrides)
    config = settings.build(values)
    planned = plan_search(values, overrides, config)
    sweep = open_sweep(config, values, overrides)
    extra = [
        f"hydra.sweep.dir={_quoted(sweep.folder)}",
        f"+hydra.job.env_set.{stopping.FOLDER}={_quoted(sweep.folder)}",
    ]
    # The sweep's own MLflow run first: each trial names it as its parent.
    parent = SweepRun(sweep, values)
    sweep = sweep.write(parent_run=parent.open(), state="running")
    parent = SweepRun(sweep, values)
    os.environ[stopping.CONTROLLER] = str(os.getpid())
    state, before, stop = "failed", len(sweep.trials()), stopping.StopState()
    print(f"sweep {sweep.facts['name']} in {sweep.folder}" + (f": goes on after {before} trials" if before else ""))
    try:
        if planned is not None:
            planned.check_storage(sweep)
        total = planned.trials if planned is not None else count(overrides)
        with live_table.LiveTable(sweep, total), stopping.stoppable(sweep) as stop:
            hydra(["-m", *overrides, *extra])
            trial.complete_best(sweep)
        state = "finished"
    except KeyboardInterrupt:
        state = "stopped"
    finally:  # also after an error: the record and the page show how far it got
        sweep = sweep.write(state=state, ended=time.time())
        parent.close(state, sweep.trials(), comparison_page(sweep))
    return print_end(sweep, state, stop.signum)


def comparison_page(sweep: Sweep) -> list[Path]:
    """The page and the figures for the parent run; whatever goes wrong with them, the sweep is not lost."""
    if not sweep.trials():
        return []
    try:
        from stillframe.sweeps.comparison import write_page

        return write_page.write(sweep)
    except Exception as error:
        print(f"no compare.html: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def hydra(arguments: list[str]) -> None:
    """Hand over to Hydra."""
    import hydra as package

    sys.argv = ["python -m stillframe.sweep", *arguments]
    package.main(config_path=str(CONF.resolve()), config_name="sweep", version_base="1.3")(trial.run)()


def _quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar."""
    return "'" + str(path).replace("'", "\\'") + "'"


def print_end(sweep: Sweep, state: str, signum: int) -> int:
    """Print how the sweep ended; the exit code."""
    trials = sweep.trials()
    print(live_table.summary(trials, sweep, len(trials), 0.0))
    if (sweep.folder / "compare.html").exists():
        print(f"compare them:  {sweep.folder / 'compare.html'}")
    best = sweep.best()
    if best is not None:
        print(f"best setting:  {' '.join(best.overrides)}")
        print(f"apply it:      dvc exp apply {best.repeats[0].experiment}")
    failures = [ended for ended in trials if ended.state == "failed"]
    for failed in failures[:5]:
        reason = failed.error.splitlines()[-1]
        print(f"failed:        trial {failed.number}: {reason}  ({sweep.trial_folder(failed.number)})")
    if state == "stopped":
        print("stopped; the same command goes on:  " + sweep.facts["command"])
        return 128 + (signum or signal.SIGINT)
    return 1 if failures else 0
