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
from stillframe.registry.gate.rules import GateRules
from stillframe.registry.model_registry import DIGEST, EVIDENCE, GATE, LONGEST_TAG, SOURCE, VERDICT, ModelRegistry
from stillframe.tasks.base import Task
from stillframe.tracking.record import JOURNALS

OUT = Path("artifacts/gate/verdict.json")


@dataclass(frozen=True)
class GateResult:
    """What the gate found.

    Attributes:
        version: of the registered model; None: nothing was registered (a dry run).
        champion: the version that the model was compared with; None: there was none.
        moved: whether the alias was given to this version now.
    """

    model: str
    version: str | None
    champion: str | None
    findings: list[RuleResult]
    moved: bool

    @property
    def passed(self) -> bool:
        """All rules."""
        return all(one.passed for one in self.findings)


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
    found = origin["run_id"] or (later.read_text(encoding="utf-8") if later.is_file() else None)
    if not found:
        raise ValueError(f"{trained / 'run.json'} names no MLflow run: the server was away; `stillframe sync` first")
    return str(found)


def gate(registry: ModelRegistry, path: Path, *, dry_run: bool, out: Path = OUT) -> GateResult:
    """Judge the run of the checkout by a file of rules.

    Writes `out`. Unless `dry_run`, it also registers the version, sends verdict and evidence to the run, sets the tags,
    and, when every rule passes, gives the alias `champion` to the version.

    Raises:
        FileNotFoundError: a stage's file is missing.
        ValueError: a rule, a file or MLflow is at fault; the champion changed while this one was judged.
    """
    new, run_id, digest = evidence.of_checkout(), run_of(), evidence.digest()
    given = rules.read(path, new.task)
    held = registry.champion()
    is_it = held is not None and held.run_id == run_id and held.tags.get(DIGEST) == digest
    old, why_none = (None, "the champion itself") if is_it else champions(registry, held, new.task)
    findings = checks.judge(given, new, old, why_none)
    facts = _facts(registry, path, given, new, run_id, digest, held, findings, dry_run)
    verdict = GateResult(registry.name, None, str(held.version) if held else None, findings, False)
    if dry_run:
        write_json(out, facts)
        return verdict
    version = _record(registry, facts, new, run_id, digest, out)
    moved = verdict.passed and not is_it
    if moved:
        now = registry.champion()
        if (now and now.version) != (held and held.version):
            raise ValueError(
                f"{registry.name}: version {now.version if now else 'none'} became the champion while version "
                f"{version} was compared with another one: run the same command again"
            )
        registry.give(version, "gate")
    return GateResult(registry.name, version, verdict.champion, findings, moved)


def champions(registry: ModelRegistry, held: Any | None, task: Task) -> tuple[GateEvidence | None, str]:
    """The champion's evidence from its run, or why there is none."""
    if held is None:
        return None, f"no champion yet: {registry.name} has no version with the alias"
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        place = held.tags.get(EVIDENCE, "evaluate")
        try:
            brought = registry.client.download_artifacts(held.run_id, place, folder)
            return evidence.of_folder(Path(brought), task, held.tags.get(SOURCE, "")), ""
        except (MlflowException, OSError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            return None, f"version {held.version} (run {held.run_id}) has no answers to compare with: {said}"


def _facts(
    registry: ModelRegistry,
    path: Path,
    given: GateRules,
    new: GateEvidence,
    run_id: str,
    digest: str,
    held: Any | None,
    findings: list[RuleResult],
    dry_run: bool,
) -> dict[str, Any]:
    """verdict.json, before the version is known."""
    return {
        "model": registry.name,
        "version": None,
        "run_id": run_id,
        "digest": digest,
        "champion": {"version": str(held.version), "run_id": held.run_id} if held else None,
        "rules_file": str(path),
        "asked": asdict(given),
        "rules": [one.as_dict() for one in findings],
        "passed": all(one.passed for one in findings),
        "test_images": len(new.predictions),
        "split_hash": new.split_hash,
        "judged": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "dry_run": dry_run,
    }


def _record(
    registry: ModelRegistry, facts: dict[str, Any], new: GateEvidence, run_id: str, digest: str, out: Path
) -> str:
    """Register the version; verdict and evidence into the run, tags to both. The version."""
    place = f"gate/{digest}"
    failed = [one["rule"] for one in facts["rules"] if not one["passed"]]
    short = {one["rule"]: [one["value"], one["bound"], one["passed"]] for one in facts["rules"]}
    tags = {
        GATE: f"failed: {', '.join(failed)}" if failed else "passed",
        VERDICT: json.dumps(short, ensure_ascii=False),
    }
    scores = {f"test/{name}": f"{value:.6g}" for name, value in new.metrics.items() if "/" not in name}
    own = {EVIDENCE: place, SOURCE: new.source, "stillframe.run": run_id, **tags, **scores}
    try:
        with tempfile.TemporaryDirectory() as folder:
            registry.client.log_artifacts(run_id, str(evidence.collect(Path(folder))), place)
        # Weights, answers and file make a version: a run with another threshold is another one. A version that
        # `stillframe promote` made has no digest yet.
        version = registry.register(
            run_id,
            trained=TRAIN,
            exported=evidence.SHIPPED,
            tags={**own, DIGEST: digest},
            same=lambda known: known.run_id == run_id and known.tags.get(DIGEST, digest) == digest,
            by="stillframe gate",
        )
        facts["version"] = version
        write_json(out, facts)
        registry.client.log_artifact(run_id, str(out), place)
        for key, value in tags.items():
            registry.client.set_tag(run_id, key, value[:LONGEST_TAG])
    except Exception as error:  # MLflow raises what its stores and its network raise
        raise ValueError(
            f"MLflow at {registry.uri} did not take the verdict: {' '.join(str(error).split())[:300]}: the alias is "
            "where it was; the same command again goes on"
        ) from error
    return version


def rollback(registry: ModelRegistry, word: str, *, dry_run: bool) -> tuple[str, str]:
    """Give the alias back; (version that held it, version that holds it now).

    Args:
        registry: of the model.
        word: a version, or "previous".
        dry_run: only say which.

    Raises:
        ValueError: there is no champion, none before it, or no such version.
    """
    target = registry.before() if word == "previous" else str(registry.version(word).version)
    held = registry.champion()
    before = str(held.version) if held is not None else "none"
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

    table, console = Table("rule", "verdict", "asked", "measured"), Console()
    for column in table.columns[:2]:
        column.no_wrap = True
    for one in verdict.findings:
        mark = "[green]passed[/]" if one.passed else "[red]failed[/]"
        table.add_row(escape(one.rule), mark, escape(one.bound), escape(one.value or "–"))
    console.print(table)
    for one in verdict.findings:
        if one.why:
            console.print(f"{one.rule}: {one.why}", markup=False, highlight=False, soft_wrap=True)
    against = f"champion: version {verdict.champion}" if verdict.champion else "no champion yet"
    print(f"{verdict.model}: {against}; verdict in {OUT}")
