"""`python -m stillframe.sweep -m model=resnet18,plain_cnn optim.lr=1e-3,3e-4`: the whole DAG for each setting.

The command line is Hydra's; conf/sweep.yaml is its root. The same command again continues a sweep that was stopped.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe.fit.launch import visible_gpus
from stillframe.paths import CONF
from stillframe.sweep import live, settings, snapshot, trial
from stillframe.sweep.record import Parent
from stillframe.sweep.settings import MANY, Settings
from stillframe.sweep.store import Sweep

if TYPE_CHECKING:
    from stillframe.sweep.search import Plan

ASK = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")


def main(arguments: list[str]) -> int:
    """Run a sweep: 0 when every trial finished or was pruned, 1 when one failed, 130 when it was stopped.

    Raises:
        ValueError: the command, the configuration or the checkout is not one to start from.
    """
    if not (CONF / "sweep.yaml").is_file():
        raise FileNotFoundError(f"{CONF}/sweep.yaml is missing: run this in the repository's root")
    words = [word for word in arguments if word not in ("-m", "--multirun")]
    if any(word.split("=")[0] in ASK for word in words):
        hydra(arguments)
        return 0
    values = compose(words)
    given = settings.build(values)
    planned = plan_search(values, words, given)
    sweep = open_sweep(given, values, words)
    extra = [f"hydra.sweep.dir={_quoted(sweep.folder)}", f"+hydra.job.env_set.{trial.FOLDER}={_quoted(sweep.folder)}"]
    parent = Parent(sweep, values)
    sweep = sweep.write(parent_run=parent.open(), state="running")
    parent = Parent(sweep, values)
    os.environ[trial.FOLDER + "_PID"] = str(os.getpid())
    state, before = "failed", len(sweep.trials())
    print(f"sweep {sweep.facts['name']} in {sweep.folder}" + (f": goes on after {before} trials" if before else ""))
    try:
        if planned is not None:
            planned.check_storage(sweep)
        with live.Watch(sweep, planned.trials if planned is not None else count(words)):
            hydra(["-m", *words, *extra])
            trial.complete_best(sweep)
        state = "finished"
    except KeyboardInterrupt:
        state = "stopped"
    finally:
        sweep = sweep.write(state=state, ended=time.time())
        parent.close(state, sweep.trials(), pictures(sweep))
    return tell(sweep, state)


def pictures(sweep: Sweep) -> list[Path]:
    """The page and the pictures for the parent run; whatever goes wrong with them, the sweep is not lost."""
    try:
        from stillframe.sweep import review

        return review.pictures(sweep)
    except Exception as error:
        print(f"no compare.html: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def hydra(words: list[str]) -> None:
    """Hand over to Hydra."""
    import hydra as package

    sys.argv = ["python -m stillframe.sweep", *words]
    package.main(config_path=str(CONF.resolve()), config_name="sweep", version_base="1.3")(trial.run)()


def compose(words: list[str]) -> dict[str, Any]:
    """conf/sweep.yaml with those of the overrides that are no choices, and Hydra's launcher and sweeper beside it.

    Raises:
        ValueError: Hydra cannot compose it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from stillframe.composing import explain

    try:
        fixed = [word for word, choices in parse(words) if not choices]
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = hydra_compose("sweep", overrides=fixed, return_hydra_config=True)
            node = composed.hydra
            tools = {name: OmegaConf.to_container(node[name], resolve=False) for name in ("launcher", "sweeper")}
            choices = OmegaConf.to_container(node.runtime.choices)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        own = [word for word in words if not word.lstrip("+~").startswith(("sweep.", "seeds", "folds", "hydra"))]
        raise ValueError(
            explain(own) or unknown_key(words) or f"{CONF}/ does not compose: {' '.join(str(error).split())}"
        ) from None
    return {**values, "hydra": {**tools, "choices": choices}}


def parse(words: list[str]) -> list[tuple[str, list[str]]]:
    """Each override with its choices; [] when it has a single value (ValueError: not in Hydra's grammar)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    out: list[tuple[str, list[str]]] = []
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise ValueError(f"{word}: not an override in Hydra's grammar: {' '.join(str(error).split())}") from None
        value: Any = override.value()
        if isinstance(value, Glob):  # Hydra reads the folder only when it composes
            options = sorted(path.stem for path in (CONF / override.key_or_group).glob("*.yaml"))
            choices = list(value.filter(options))
        else:
            listed = override.is_sweep_override() and override.is_discrete_sweep()
            choices = list(override.sweep_string_iterator()) if listed else []
        out.append((word, choices or (["..."] if override.is_sweep_override() else [])))
    return out


def plan_search(values: dict[str, Any], words: list[str], given: Settings) -> Plan | None:
    """The checked plan of an adaptive search; None: Hydra's own sweeper runs a grid (ValueError: what is wrong)."""
    if not str(values["hydra"]["sweeper"]["_target_"]).startswith("hydra_plugins.stillframe_search"):
        return None
    from stillframe.sweep import search

    return search.plan(values["hydra"]["sweeper"], words, given.objectives)


def unknown_key(words: list[str]) -> str:
    """Which `hydra.sweeper` key is unknown; "" when none is, or none is meant."""
    if not any(word.startswith("hydra/sweeper=") for word in words):
        return ""
    from stillframe.sweep import search

    return search.explain(words)


def count(words: list[str]) -> int | None:
    """Trials of a grid; None where a sweeper of the user's decides."""
    if any("hydra/sweeper" in word for word in words):
        return None
    total = 1
    for _, choices in parse(words):
        total *= max(1, len(choices))
    return total


def open_sweep(given: Settings, values: dict[str, Any], words: list[str]) -> Sweep:
    """The folder of this sweep: a new one, or the one that the same command began.

    Raises:
        ValueError: no commit to start from, or a sweep of this name with other code or another command.
    """
    root = Path.cwd()
    snap = snapshot.take(root)
    code = snap.code
    own = settings.default_name(words, code)
    name = given.name or own
    folder = settings.folder_of(name, root)
    folder.mkdir(parents=True, exist_ok=True)
    tools = values["hydra"]
    parallel = given.parallel or at_once(tools["launcher"])
    gpus, each = share_gpus(given, parallel)
    from stillframe.fit.tracking import tracking_uri
    from stillframe.sweep.record import _tracking

    facts = {
        "name": name,
        "root": str(root),
        "command": "python -m stillframe.sweep -m " + shlex.join(words),
        "identity": own,
        "head": snap.head,
        "commit": snap.commit,
        "code": code,
        "objectives": given.objectives,
        "directions": given.directions,
        "seeds": given.seeds,
        "folds": given.folds,
        "repeats": given.seeds * (given.folds or 1),
        "slots": min(parallel or MANY, len(gpus) // each if gpus and each else MANY),
        "parallel": parallel or MANY,
        "threads": threads(parallel, tools["launcher"]),
        "gpus": gpus,
        "gpus_each": each,
        "timeout_s": given.timeout_s,
        "until": given.until,
        "tracking_uri": tracking_uri(_tracking(values)),
        "started": time.time(),
        "parent_run": None,
        "state": "running",
    }
    if (folder / "sweep.json").exists():
        before = Sweep.read(folder)
        if before.facts["identity"] != own:
            raise ValueError(
                f"sweep.name = {name}: {folder}/sweep.json is of another command or other code "
                f"({before.facts['command']}): choose another name"
            )
        kept = {key: before.facts[key] for key in ("head", "commit", "parent_run", "started", "tracking_uri")}
        facts |= kept
    snapshot.keep(root, name, str(facts["commit"]))
    return Sweep(folder, facts).write()


def at_once(launcher: dict[str, Any]) -> int:
    """Trials that a launcher runs at once; 0: it decides itself (Ray, SLURM)."""
    kind = str(launcher["_target_"])
    if "Basic" in kind:
        return 1
    if "joblib" in kind:
        jobs = int(launcher["n_jobs"])
        return jobs if jobs > 0 else max(1, len(os.sched_getaffinity(0)) + 1 + jobs)
    return 0


def threads(parallel: int, launcher: dict[str, Any]) -> int:
    """CPU threads of one trial: its share of the cores, or what it asks of Ray or SLURM."""
    if parallel:
        return max(1, len(os.sched_getaffinity(0)) // parallel)
    asked = (launcher.get("ray") or {}).get("remote", {}).get("num_cpus") or launcher.get("cpus_per_task") or 1
    return max(1, int(asked))


def share_gpus(given: Settings, parallel: int) -> tuple[list[str] | None, int]:
    """The devices, and how many of them a trial gets; (None, 0): they stay as the launcher or the user has set them.

    Raises:
        ValueError: fewer devices than a trial needs.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = listed.split(",") if listed is not None else [str(number) for number in range(visible_gpus())]
    gpus = given.gpus if given.gpus is not None else [gpu for gpu in seen if gpu.strip()]
    if not gpus or parallel == 0 or (parallel == 1 and not given.gpus_per_trial and given.gpus is None):
        return None, 0
    each = given.gpus_per_trial or (len(gpus) if parallel == 1 else 1)
    if each > len(gpus):
        raise ValueError(f"sweep.gpus_per_trial = {each}: there are {len(gpus)} ({', '.join(gpus)})")
    return gpus, each


def _quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar."""
    return "'" + str(path).replace("'", "\\'") + "'"


def tell(sweep: Sweep, state: str) -> int:
    """Print how the sweep ended; the exit code."""
    trials = sweep.trials()
    print(live.summary(trials, sweep, len(trials), 0.0))
    if (sweep.folder / "compare.html").exists():
        print(f"compare them:  {sweep.folder / 'compare.html'}")
    best = sweep.best()
    if best is not None:
        print(f"best setting:  {' '.join(best.overrides)}")
        print(f"apply it:      dvc exp apply {best.repeats[0].experiment}")
    for failed in [one for one in trials if one.state == "failed"][:5]:
        print(f"failed:        trial {failed.number}: {failed.error.splitlines()[-1]}  ({sweep.place(failed.number)})")
    if state == "stopped":
        print("stopped; the same command goes on:  " + sweep.facts["command"])
        return 130
    return 1 if any(one.state == "failed" for one in trials) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        sys.exit(f"sweep: {problem}")
