"""`stillframe gate`: the run of the checkout against the champion; the verdict recorded, the alias moved or not."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillframe.config import DataConfig, TrackingConfig, read_params
from stillframe.paths import TRAIN, read_json, write_json
from stillframe.registry.gate import checks, evidence, rules
from stillframe.registry.gate.checks import RuleResult
from stillframe.registry.gate.evidence import GateEvidence
from stillframe.registry.model_registry import DIGEST, EVIDENCE, GATE, LONGEST_TAG, SOURCE, VERDICT, ModelRegistry
from stillframe.tasks.base import Task
from stillframe.tracking.record import JOURNALS

OUT = Path("artifacts/gate/verdict.json")


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict on the run of the checkout.

    Attributes:
        version: of the registered model; None: nothing was registered (a dry run).
        champion: the version that the model was compared with; None: there was none.
        moved: whether the alias was given to this version now.
    """

    model: str
    version: str | None
    champion: str | None
    results: list[RuleResult]
    moved: bool

    @property
    def passed(self) -> bool:
        """All rules."""
        return all(result.passed for result in self.results)


def open_registry(name: str | None, trained: Path = TRAIN) -> ModelRegistry:
    """The registered model of this checkout: `name`, else the data set's; in the store of the checkout's run."""
    data: DataConfig
    tracking: TrackingConfig
    data, tracking = read_params("data", "tracking")
    return ModelRegistry(str(read_json(trained / "run.json")["tracking_uri"]), tracking, name or data.name)


def run_of(trained: Path = TRAIN) -> str:
    """The id of the checkout's MLflow run.

    Raises:
        ValueError: the record was not sent yet.
    """
    origin = read_json(trained / "run.json")
    later = (JOURNALS / str(origin["journal"])).with_suffix(".run")  # `stillframe sync` sent it after the training
    run_id = origin["run_id"] or (later.read_text(encoding="utf-8") if later.is_file() else None)
    if not run_id:
        raise ValueError(f"{trained / 'run.json'} names no MLflow run: the server was away; `stillframe sync` first")
    return str(run_id)


def gate(registry: ModelRegistry, path: Path, *, dry_run: bool, out: Path = OUT) -> GateResult:
    """Judge the run of the checkout by a file of rules.

    Writes `out`. Unless `dry_run`, it also registers the version, sends verdict and evidence to the run, sets the tags,
    and, when every rule passes, gives the alias `champion` to the version.

    Raises:
        FileNotFoundError: a stage's file is missing.
        ValueError: a rule, a file or MLflow is at fault; the champion changed while this one was judged.
    """
    new, run_id, digest = evidence.of_checkout(), run_of(), evidence.digest()
    gate_rules = rules.read(path, new.task)
    champion = registry.champion()
    # A run of the same weights, answers and file may be the champion itself: it is judged, and nothing is moved.
    is_champion = champion is not None and champion.run_id == run_id and champion.tags.get(DIGEST) == digest
    old, why_none = (None, "the champion itself") if is_champion else champion_evidence(registry, champion, new.task)
    results = checks.judge(gate_rules, new, old, why_none)
    facts = {
        "model": registry.name,
        "version": None,  # known once it is registered
        "run_id": run_id,
        "digest": digest,
        "champion": {"version": str(champion.version), "run_id": champion.run_id} if champion else None,
        "rules_file": str(path),
        "asked": asdict(gate_rules),
        "rules": [asdict(result) for result in results],
        "passed": all(result.passed for result in results),
        "test_images": len(new.predictions),
        "split_hash": new.split_hash,
        "judged": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "dry_run": dry_run,
    }
    verdict = GateResult(registry.name, None, str(champion.version) if champion else None, results, False)
    if dry_run:
        write_json(out, facts)
        return verdict
    version = _record(registry, facts, new, out)

    # The comparison took minutes: the alias moves only if nobody else has moved it meanwhile.
    moved = verdict.passed and not is_champion
    if moved:
        now = registry.champion()
        if (now and now.version) != (champion and champion.version):
            raise ValueError(
                f"{registry.name}: version {now.version if now else 'none'} became the champion while version "
                f"{version} was compared with another one: run the same command again"
            )
        registry.give(version, "gate")
    return GateResult(registry.name, version, verdict.champion, results, moved)


def champion_evidence(registry: ModelRegistry, champion: Any | None, task: Task) -> tuple[GateEvidence | None, str]:
    """The champion's evidence from its run, or why there is none."""
    if champion is None:
        return None, f"no champion yet: {registry.name} has no version with the alias"
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        # a version that `stillframe promote` made has no evidence of a gate, but its run has that of the stages
        artifacts = champion.tags.get(EVIDENCE, "evaluate")
        try:
            downloaded = registry.client.download_artifacts(champion.run_id, artifacts, folder)
            return evidence.of_folder(Path(downloaded), task, champion.tags.get(SOURCE, "")), ""
        except (MlflowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            return None, f"version {champion.version} (run {champion.run_id}) has no answers to compare with: {reason}"


def _record(registry: ModelRegistry, facts: dict[str, Any], new: GateEvidence, out: Path) -> str:
    """Register the version; send verdict and evidence to the run, and tags to both.

    Args:
        registry: of the model.
        facts: verdict.json; gets the version.
        new: evidence of the run.
        out: where verdict.json goes.

    Returns:
        The version.

    Raises:
        ValueError: MLflow did not take it.
    """
    run_id, digest = facts["run_id"], facts["digest"]
    artifacts = f"gate/{digest}"
    failed = [rule["rule"] for rule in facts["rules"] if not rule["passed"]]
    short = {rule["rule"]: [rule["value"], rule["bound"], rule["passed"]] for rule in facts["rules"]}
    tags = {
        GATE: f"failed: {', '.join(failed)}" if failed else "passed",
        VERDICT: json.dumps(short, ensure_ascii=False),
    }
    scores = {f"test/{name}": f"{value:.6g}" for name, value in new.metrics.items() if "/" not in name}
    own = {EVIDENCE: artifacts, SOURCE: new.source, "stillframe.run": run_id, **tags, **scores}
    try:
        with tempfile.TemporaryDirectory() as folder:
            registry.client.log_artifacts(run_id, str(evidence.collect(Path(folder))), artifacts)
        # Weights, answers and file make a version: a run with another threshold is another one. A version that
        # `stillframe promote` made has no digest yet.
        version = registry.register(
            run_id,
            trained=TRAIN,
            exported=evidence.SHIPPED,
            tags={**own, DIGEST: digest},
            same=lambda version: version.run_id == run_id and version.tags.get(DIGEST, digest) == digest,
            by="stillframe gate",
        )
        facts["version"] = version
        write_json(out, facts)
        registry.client.log_artifact(run_id, str(out), artifacts)
        for key, value in tags.items():
            registry.client.set_tag(run_id, key, value[:LONGEST_TAG])
    except Exception as error:  # MLflow raises what its stores and its network raise
        raise ValueError(
            f"MLflow at {registry.uri} did not take the verdict: {' '.join(str(error).split())[:300]}: the alias is "
            "where it was; the same command again goes on"
        ) from error
    return version


def rollback(registry: ModelRegistry, which: str, *, dry_run: bool) -> tuple[str, str]:
    """Give the alias back; (version that held it, version that holds it now).

    Args:
        registry: of the model.
        which: a version, or "previous".
        dry_run: only say which.

    Raises:
        ValueError: there is no champion, none before it, or no such version.
    """
    target = registry.before() if which == "previous" else str(registry.version(which).version)
    champion = registry.champion()
    before = str(champion.version) if champion is not None else "none"
    if before == target:
        raise ValueError(f"{registry.name}: version {target} is the champion already")
    if not dry_run:
        registry.give(target, "rollback")
    return before, target


def show(verdict: GateResult) -> None:
    """Print every rule with its numbers, then what came of it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table, console = Table("rule", "verdict", "required", "measured"), Console()
    for column in table.columns[:2]:
        column.no_wrap = True
    for result in verdict.results:
        mark = "[green]passed[/]" if result.passed else "[red]failed[/]"
        table.add_row(escape(result.rule), mark, escape(result.bound), escape(result.value or "–"))
    console.print(table)
    for result in verdict.results:
        if result.why:
            console.print(f"{result.rule}: {result.why}", markup=False, highlight=False, soft_wrap=True)
    against = f"champion: version {verdict.champion}" if verdict.champion else "no champion yet"
    print(f"{verdict.model}: {against}; verdict in {OUT}")
