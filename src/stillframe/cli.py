"""The command line. Thin: each command is a call into the house."""

from __future__ import annotations

import argparse
import os
import sys

from stillframe import __version__
from stillframe.arguments import ARGUMENTS
from stillframe.paths import PARAMS


def check(args: argparse.Namespace) -> int:
    """Audit a folder; 1 when preprocessing would refuse it."""
    from stillframe import onboarding
    from stillframe.ingest.check import check_folder

    setup = onboarding.setup_for(args.folder, args.table, pairs(args.columns))
    result = check_folder(args.folder, setup.data, setup.target)
    onboarding.show(result)
    if result.error:
        print(f"check: {args.folder} would be refused: {result.error}", file=sys.stderr)
        return 1
    print(f"ready. Point the project at it:  stillframe use {args.folder}")
    return 0


def use(args: argparse.Namespace) -> int:
    """Point the project at a folder."""
    from stillframe import onboarding
    from stillframe.ingest.check import check_folder

    setup = onboarding.setup_for(args.folder, args.table, pairs(args.columns))
    result = check_folder(args.folder, setup.data, setup.target)
    onboarding.show(result)
    path = onboarding.use(args.folder, setup, result)
    print(f"wrote {path} (image size, columns, refusals: edit there) and selected it in conf/config.yaml")
    print("next:  dvc repro        the whole way, from these images to the report")
    print("back to the demo:  git checkout conf/config.yaml && stillframe compose")
    return 0


def compose(args: argparse.Namespace) -> int:
    """Write params.yaml from conf/, or check that it is up to date."""
    from stillframe import config
    from stillframe.config import hydra_compose
    from stillframe.stages.compose import link_source, stale

    if args.check:
        changes = stale()
        for line in changes:
            print(f"  {line}")
        print(f"{PARAMS} is stale: run `stillframe compose`" if changes else f"{PARAMS} is what conf/ says")
        return 1 if changes else 0
    values = hydra_compose.compose(args.overrides)
    changed = hydra_compose.write(values)
    link_source(values["data"]["path"])
    print(f"{PARAMS}: {len(changed)} changed")
    for caution in config.cautions(values):
        print(f"warning: {caution}", file=sys.stderr)
    if args.overrides:
        print(
            f"warning: the next `dvc repro` restores what conf/ says. To run the DAG with these overrides: "
            f"dvc exp run {' '.join(f'-S {override!r}' for override in args.overrides)}",
            file=sys.stderr,
        )
    return 0


def report(args: argparse.Namespace) -> int:
    """Make the page again from the stages' outputs."""
    from stillframe.config import read_params
    from stillframe.paths import REPORT
    from stillframe.stages import report as stage

    stage.run(*read_params("tracking"))
    print(REPORT / "report.html")
    return 0


def scores(args: argparse.Namespace) -> int:
    """Print the scores of the last run, and where its report is."""
    from rich.console import Console
    from rich.table import Table

    from stillframe.paths import EVALUATE, REPORT, TRAIN, VALIDATE, read_json
    from stillframe.tasks import find_task

    intervals, baseline = read_json(EVALUATE / "intervals.json"), read_json(EVALUATE / "baseline.json")
    val, test = read_json(VALIDATE / "metrics.json"), read_json(EVALUATE / "metrics.json")
    table = Table("score", "validation", "test", "95 % interval", "trivial answer")
    for name in find_task(read_json(TRAIN / "model.json")["task"]).highlights:
        if name in test:
            interval = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
            row = [f"{values[name]:.3f}" if name in values else "" for values in (val, test, baseline)]
            table.add_row(name, row[0], row[1], interval, row[2])
    Console().print(table)
    print(f"report:     {(REPORT / 'report.html').resolve()}")
    print("MLflow UI:  make ui   (http://127.0.0.1:5000)")
    print("two runs:   dvc exp show, dvc metrics diff, dvc plots diff")
    return 0


def ui(args: argparse.Namespace) -> int:
    """Start the MLflow UI (this process becomes it)."""
    from stillframe.config import read_params
    from stillframe.tracking.record import page_of, tracking_uri

    (tracking,) = read_params("tracking")
    uri = tracking_uri(tracking)
    if uri.startswith(("http:", "https:")):
        print(f"the record is on a server: {uri}")
        return 0
    site = f"http://{args.host}:{args.port}"
    print(f"the record of {uri}:  {page_of(tracking, uri, site)}   (Ctrl-C ends it)")
    print(
        "Where the page shows GenAI menus: click 'Model training' at its upper left; the browser remembers.", flush=True
    )
    # One worker and no job queue: ready in 6 s and 0.5 GB instead of 20 s and 2.5 GB.
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--workers", "1"]
    os.execv(sys.executable, [*command, "--host", args.host, "--port", str(args.port)])


def sync(args: argparse.Namespace) -> int:
    """Send what was kept while the tracking server was away."""
    from stillframe.config import read_params
    from stillframe.tracking.record import send_pending

    done = send_pending(*read_params("tracking"))
    for run, (sent, left) in done.items():
        print(f"{run}: {sent} sent, {left} still waiting")
    if not done:
        print("nothing is waiting")
    return int(any(left for _, left in done.values()))


def compare(args: argparse.Namespace) -> int:
    """One page about a sweep: who leads, by how much beyond chance, at what cost, and where they disagree."""
    from stillframe.sweeps.comparison import write_page
    from stillframe.sweeps.store import find_sweep

    page, *rest = write_page.write(find_sweep(args.sweep))
    print(page)
    print("beside it:  " + ", ".join(path.name for path in rest))
    return 0


def promote(args: argparse.Namespace) -> int:
    """Apply a sweep's trial to this checkout and register its model in MLflow."""
    from stillframe.sweeps.promote import promote as apply_and_register
    from stillframe.sweeps.store import find_sweep

    sweep = find_sweep(args.sweep)
    trial, model, version = apply_and_register(sweep, args.trial, args.repeat, args.name)
    print(f"trial {trial.number} is in this checkout:  {' '.join(trial.overrides)}")
    print(f"its model in MLflow's registry:  {model}, version {version}   (make ui)")
    print("keep it:  git add params.yaml dvc.lock && git commit")
    return 0


def gate(args: argparse.Namespace) -> int:
    """Judge the run of this checkout by rules; make it the champion of MLflow's registry when all pass."""
    from stillframe.registry.gate import rules, run

    registry = run.open_registry(args.model)
    if args.rollback:
        before, now = run.rollback(registry, args.rollback, dry_run=args.dry_run)
        would = "would be" if args.dry_run else "is"
        print(f"{registry.name}: version {now} {would} the champion again; version {before} was")
        return 0
    verdict = run.gate(registry, rules.find(args.rules), dry_run=args.dry_run)
    run.show(verdict)
    failed = sum(not rule.passed for rule in verdict.results)
    version = f"version {verdict.version}" if verdict.version else "a dry run: nothing was registered"
    moved = (
        "is the champion now"
        if verdict.moved
        else "all rules passed"
        if verdict.passed
        else f"{failed} rule{'s' * (failed > 1)} failed"
    )
    print(f"{version}: {moved}")
    return 0 if verdict.passed else 1


def verify(args: argparse.Namespace) -> int:
    """Rebuild a run from its record in a clean clone and compare; 0 equal, 1 it differs, 2 it cannot be rebuilt."""
    from stillframe.registry.verify import run

    try:
        original, comparison = run.verify(args.run, within=args.within, keep=args.keep)
    except run.CannotRebuild as problem:
        print(f"stillframe: cannot be rebuilt: {problem}", file=sys.stderr)
        return 2
    run.show(original, comparison)
    return 0 if comparison.equal else 1


def predict(args: argparse.Namespace) -> int:
    """Answer images, or videos: files, folders, patterns."""
    from stillframe.inference import predict

    done = predict.predict(
        args.paths,
        model=args.model,
        out=args.out,
        explain=args.explain,
        annotate=args.annotate,
        window=args.window,
        stride=args.stride,
        batch=args.batch,
        threads=args.threads,
        quiet=args.quiet,
    )
    return 1 if args.strict and done.refused else 0


def serve(args: argparse.Namespace) -> int:
    """Answer images over HTTP, until SIGTERM or Ctrl-C."""
    try:
        from stillframe.serving import run
    except ModuleNotFoundError as missing:
        raise ValueError(f"{missing.name} is not installed: pip install 'stillframe[serving]'") from None
    return run.serve(args.model, config=args.config, host=args.host, port=args.port, threads=args.threads)


def pairs(texts: list[str]) -> dict[str, str]:
    """`["label=species"]` as a dict.

    Raises:
        ValueError: not of the form role=column, or an unknown role.
    """
    from stillframe.config import nearest
    from stillframe.onboarding import GUESSES

    out = {}
    for text in texts:
        role, equals, column = text.partition("=")
        if not equals or role not in GUESSES:
            raise ValueError(f"--columns {text}: not of the form role=column: {nearest(role, GUESSES)}")
        out[role] = column
    return out


COMMANDS = (check, use, compose, scores, report, predict, serve, compare, promote, gate, verify, ui, sync)


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    top = argparse.ArgumentParser(prog="stillframe", description="From a folder of images to an evaluated model.")
    top.add_argument("--version", action="version", version=f"stillframe {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for function in COMMANDS:
        summary = str(function.__doc__).splitlines()[0]
        command = commands.add_parser(function.__name__, help=summary, description=summary)
        command.set_defaults(function=function)
        if function.__name__ in ARGUMENTS:
            ARGUMENTS[function.__name__](command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; a fault of the user's is one clear line and exit code 1."""
    args = parser().parse_args(argv)
    try:
        code: int = args.function(args)
    except (ValueError, OSError) as problem:
        sys.exit(f"stillframe: {problem}")
    return code


if __name__ == "__main__":
    sys.exit(main())
