"""Adaptive search: the space, the samplers, the budget, what a killed search leaves; trainings stand aside here."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from door import ROOT, checkout, photographs, shell
from stillframe.sweeps import search, search_space, settings, store
from stillframe.training import trial_pruning

DEFAULTS = yaml.safe_load((ROOT / "conf/hydra/sweeper/optuna.yaml").read_text(encoding="utf-8"))
LR = "optim.lr=tag(log, interval(1e-4, 1e-1))"
DECAY = "optim.weight_decay=interval(0.0, 0.1)"
NETS = "model=plain_cnn,resnet18"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(trial_pruning.SEARCH, "")  # so that what a search sets is undone
    monkeypatch.delenv(trial_pruning.SEARCH)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., store.Sweep]:
    """A sweep's folder with its facts."""

    def make(name: str = "one", **facts: Any) -> store.Sweep:
        given = {
            "name": name,
            "identity": "0123abcd",
            "objectives": ["val/f1_macro"],
            "directions": ["maximize"],
            "parallel": 1,
            "slots": 64,
            **facts,
        }
        place = tmp_path / "sweeps" / name
        place.mkdir(parents=True, exist_ok=True)
        return store.Sweep(place, given).write()

    return make


def plan(*words: str, objectives: Sequence[str] = ("val/f1_macro",), **given: Any) -> search.SearchPlan:
    return search.plan({**DEFAULTS, **given}, list(words), list(objectives))


def values_of(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if not word.startswith("+hydra"))


def score(words: Sequence[str]) -> list[float]:
    """Best, 1.0, at a rate of 0.01."""
    return [1.0 - (math.log10(float(values_of(words)["optim.lr"])) + 2) ** 2]


class Launcher:
    """In place of Hydra's: remembers the batches, and answers what `objective` says."""

    def __init__(self, objective: Callable[[Sequence[str]], Any] = score, **states: str) -> None:
        self.objective, self.states = objective, states
        self.batches: list[list[int]] = []
        self.words: dict[int, list[str]] = {}

    def __call__(self, batch: Sequence[Sequence[str]], first: int) -> Any:
        self.batches.append(list(range(first, first + len(batch))))
        out = []
        for number, words in enumerate(batch, first):
            self.words[number] = list(words)
            state = self.states.get(f"t{number}", "finished")
            values = self.objective(words) if state == "finished" else []
            out.append(SimpleNamespace(return_value={"state": state, "values": values, "number": number}))
        return out


def run(found: search.SearchPlan, sweep: store.Sweep, launcher: Any) -> search.SearchState:
    one = search.SearchState(found, sweep, epochs=4)
    one.run(launcher)
    return one


def states(one: search.SearchState) -> list[str]:
    return [trial.state.name for trial in one.study.trials]


# --- the space -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optim.lr=interval(0.1, 0.5)", FloatDistribution(0.1, 0.5)),
        (LR, FloatDistribution(1e-4, 1e-1, log=True)),
        ("trainer.batch_size=int(interval(8, 64))", IntDistribution(8, 64)),
        ("trainer.batch_size=tag(log, int(interval(8, 64)))", IntDistribution(8, 64, log=True)),
        ("trainer.max_epochs=range(1, 8, 3)", IntDistribution(1, 7, step=3)),
        ("trainer.max_epochs=range(8, 1, -3)", IntDistribution(2, 8, step=3)),
        ("optim.lr=range(0.1, 0.35, 0.1)", FloatDistribution(0.1, 0.3, step=0.1)),
        ("optim.lr=1e-3,1e-2,0.001", CategoricalDistribution(["0.001", "0.01"])),
        ("trainer.early_stopping=null,{metric: loss, patience: 2}", ["null", "{metric:loss,patience:2}"]),
        ("model=glob(*cnn)", ["plain_cnn", "textbook_cnn"]),
    ],
)
def test_hydras_grammar_is_the_space(word: str, expected: Any) -> None:
    (parameter,) = search_space.build([word], {}, []).parameters
    found = parameter.distribution
    assert (list(found.choices) if isinstance(expected, list) else found) == expected


def test_words_and_yaml_are_one_space_and_the_command_line_wins() -> None:
    params = {"optim.lr": "choice(1, 2)", "optim.weight_decay": "interval(0, 1)", "seed": 3}
    found = search_space.build(["model=plain_cnn", "optim.lr=5,6"], params, [])
    assert found.fixed == ["model=plain_cnn", "seed=3"]
    assert found.walk(lambda name, kind: kind.choices[0] if name == "optim.lr" else 0.25) == [
        *("model=plain_cnn", "seed=3", "optim.lr=5", "optim.weight_decay=0.25")
    ]


WHEN = [
    {"if": {"model": "plain_cnn"}, "params": {"optim.lr": "choice(0.1, 0.2)", "augment": "none,light"}},
    {"if": {"augment": "light", "model": ["plain_cnn", "resnet18"]}, "params": {"seed": "range(0, 2)"}},
    {"if": {"model": "resnet18"}, "params": {"optim.lr": 0.5}},
]


def test_conditions_make_a_tree_of_settings() -> None:
    found = search_space.build([NETS], {}, WHEN)
    settings = [list(setting.values()) for setting in found.every()]
    plain = [[lr, *rest] for lr in ("0.1", "0.2") for rest in (["none"], ["light", 0], ["light", 1])]
    assert settings == [*(["plain_cnn", *one] for one in plain), ["resnet18", "0.5"]]
    names = {parameter.name for parameter in found.parameters if parameter.key == "optim.lr"}
    assert names == {"optim.lr if model=plain_cnn", "optim.lr if model=resnet18"}


def test_a_condition_takes_the_place_of_what_holds_otherwise_and_hears_of_what_is_set() -> None:
    when = [{"if": {"model": "plain_cnn"}, "params": {"optim.lr": 0.5}}]
    first: Any = lambda name, kind: kind.choices[0]  # noqa: E731
    both = search_space.build(["model=resnet18,plain_cnn", "optim.lr=1,2"], {}, when)
    assert [tuple(one.values()) for one in both.every()] == [("resnet18", "1"), ("resnet18", "2"), ("plain_cnn", "0.5")]
    assert search_space.build(["model=plain_cnn"], {}, when).walk(first) == ["model=plain_cnn", "optim.lr=0.5"]
    assert search_space.build(["model=resnet18", "seed=1,2"], {}, when).walk(first) == ["model=resnet18", "seed=1"]


def test_steps_of_floats_are_written_as_they_are_meant() -> None:
    (parameter,) = search_space.build(["optim.lr=range(0.1, 0.45, 0.1)"], {}, []).parameters
    values = search_space.points(parameter.name, parameter.distribution)
    assert [parameter.text(value) for value in values] == ["0.1", "0.2", "0.3", "0.4"]


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["optim.lrr=interval(0, 1)"], {}, r"optim.lrr=interval\(0, 1\): .*did you mean 'lr'"),
        (["modle=plain_cnn,resnet18"], {}, "modle=plain_cnn: unknown 'modle': did you mean 'model'"),
        (["model=plain_cnn,resnet81"], {}, "no conf/model/resnet81.yaml: did you mean 'resnet18'"),
        (["seeds=1,2"], {}, "seeds=1: unknown 'seeds'"),
        (["optim.lr=tag(lgo, interval(1, 2))"], {}, "unknown tag 'lgo': did you mean 'log'"),
        (["optim.lr=tag(log, interval(0, 2))"], {}, "must be more than 0"),
        (["optim.lr=interval(2, 1)"], {}, "from 2.0 to 1.0: the smaller comes first"),
        (["optim.lr=range(2, 1)"], {}, "an empty range"),
        (["optim.lr=tag(log, choice(1, 2))"], {}, "is for numbers"),
        (["optim.lr=tag(log, range(1, 20, 5))"], {}, "with a step"),
        (["model=glob(vit*)"], {}, "fits no file of conf/model/: .*efficientnet_lite0, .*plain_cnn"),
        (["optim.lr=interval(1"], {}, "not an override in Hydra's grammar"),
        (["model=plain_cnn"], {}, "nothing to choose"),
        ([LR], {"trials": 0}, "hydra.sweeper.trials = 0: .*greater than or equal to 1"),
        ([LR], {"trails": 5}, "unknown hydra.sweeper.trails: did you mean 'trials'"),
        ([LR], {"sampler": "cma"}, "hydra.sweeper.sampler = 'cma': .*'cmaes'"),
        ([LR], {"storage": "${oc.env:NOT_SET_ANYWHERE}"}, "hydra.sweeper: .*NOT_SET_ANYWHERE"),
        ([LR], {"sampler": "grid"}, "optim.lr: a grid needs values"),
        ([LR, NETS], {"sampler": "cmaes"}, "needs two numbers or more .*here: optim.lr"),
        ([LR], {"when": [{"if": {"modl": "a"}, "params": {"seed": 1}}]}, "if modl: neither searched nor set"),
        ([NETS], {"when": [{"if": {"model": "plain"}, "params": {"seed": 1}}]}, "plain: did you mean 'plain_cnn'"),
        ([NETS], {"when": [{"iff": {"model": "plain_cnn"}}]}, "did you mean 'if'"),
        ([NETS], {"when": [{"if": {"model": "plain_cnn"}}]}, "it needs both"),
        ([NETS], {"when": [{"if": {"model": "plain_cnn"}, "params": {"optim.lrr": 1}}]}, "did you mean 'lr'"),
    ],
)
def test_errors_name_the_key_and_the_nearest_right_one(words: list[str], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(*words, **given)


@pytest.mark.parametrize(
    ("given", "objectives", "message"),
    [
        ({"pruner": "median"}, ["val/f1_macro", "train/seconds"], "pruner = median: for one objective, there are 2"),
        ({"pruner": "hyperband"}, ["train/seconds"], "train/seconds is not measured after each epoch"),
        ({"sampler": "cmaes"}, ["val/f1_macro", "train/seconds"], "cmaes: for one objective"),
    ],
)
def test_what_does_not_go_with_the_objectives_is_refused(
    given: dict[str, Any], objectives: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(LR, DECAY, objectives=objectives, **given)


# --- the search ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
@pytest.mark.parametrize(
    "when", [[], [{"if": {"model": "plain_cnn"}, "params": {"model.drop_rate": "choice(0.1, 0.2)"}}]]
)
def test_samplers_search_within_the_space_up_to_the_budget(
    sampler: str, when: list[Any], folder: Callable[..., store.Sweep]
) -> None:
    launcher = Launcher()
    one = run(plan(LR, DECAY, NETS, sampler=sampler, trials=9, startup=3, when=when), folder(), launcher)
    assert states(one) == ["COMPLETE"] * 9
    assert launcher.batches == [[number] for number in range(9)], "a trial's number is the study's"
    chosen = [values_of(launcher.words[number]) for number in range(9)]
    assert len({one["optim.lr"] for one in chosen}) == 9
    for trial, values in zip(one.study.trials, chosen, strict=True):
        assert 1e-4 <= float(values["optim.lr"]) <= 1e-1 and 0 <= float(values["optim.weight_decay"]) <= 0.1
        assert float(values["optim.lr"]) == pytest.approx(trial.params["optim.lr"], rel=1e-5)
        assert ("model.drop_rate" in values) == (bool(when) and values["model"] == "plain_cnn")


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_what_was_found_guides_what_comes(sampler: str, folder: Callable[..., store.Sweep]) -> None:
    """Of a bowl over two parameters the later trials are nearer to the middle than those drawn at random."""

    def bowl(words: Sequence[str]) -> list[float]:
        return [score(words)[0] - (20 * float(values_of(words)["optim.weight_decay"]) - 1) ** 2]

    one = run(plan(LR, DECAY, sampler=sampler, trials=45, startup=10), folder(), Launcher(bowl))
    found = [trial.value for trial in one.study.trials]
    assert sum(found[-10:]) / 10 > sum(found[:10]) / 10 + 0.5


def test_a_grid_tries_each_setting_once_in_order(folder: Callable[..., store.Sweep]) -> None:
    found = plan(NETS, "optim.lr=range(0.01, 0.035, 0.01)", "seed=range(0, 2)", sampler="grid")
    assert found.trials == 12, "fewer than the budget: that is what the table counts to"
    launcher = Launcher()
    run(found, folder(parallel=5), launcher)
    assert launcher.batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    tried = [tuple(values_of(launcher.words[number]).values()) for number in range(12)]
    assert tried == [
        (net, lr, seed) for net in ("plain_cnn", "resnet18") for lr in ("0.01", "0.02", "0.03") for seed in "01"
    ]
    assert plan(NETS, "seed=range(0, 2)", sampler="grid", trials=3).trials == 3


def test_several_objectives_have_a_front(folder: Callable[..., store.Sweep]) -> None:
    both = {"objectives": ["val/f1_macro", "train/seconds"], "directions": ["maximize", "minimize"]}
    found = plan(LR, objectives=both["objectives"], trials=12, startup=4)

    def costs(words: Sequence[str]) -> list[float]:
        return [*score(words), 1000 * float(values_of(words)["optim.lr"])]

    one = run(found, folder(**both), Launcher(costs))
    front = {trial.number for trial in one.study.best_trials}
    values = [trial.values for trial in one.study.trials]
    assert front == {
        number
        for number, (f1, cost) in enumerate(values)
        if not any(f >= f1 and c <= cost and (f, c) != (f1, cost) for f, c in values)
    }


@pytest.mark.parametrize(
    ("facts", "given", "size"),
    [
        ({"parallel": 3}, {}, 3),
        ({"parallel": 3, "slots": 2}, {}, 2),
        ({"parallel": settings.MANY}, {}, search.AT_ONCE),
        ({"parallel": 3}, {"batch": 5}, 5),
    ],
)
def test_batches_are_as_large_as_what_runs_at_once(
    facts: dict[str, int], given: dict[str, int], size: int, folder: Callable[..., store.Sweep]
) -> None:
    launcher = Launcher()
    run(plan(LR, trials=9, **given), folder(**facts), launcher)
    assert [len(batch) for batch in launcher.batches][:-1] == [size] * (9 // size - (9 % size == 0))
    assert sum(map(len, launcher.batches)) == 9


def test_failed_and_pruned_trials_and_those_without_a_value_are_told_and_the_search_goes_on(
    folder: Callable[..., store.Sweep],
) -> None:
    def sometimes(words: Sequence[str]) -> list[float | None]:
        return [None] if values_of(words)["seed"] == "2" else [0.5]

    launcher = Launcher(sometimes, t0="failed", t1="pruned")
    one = run(plan("seed=range(0, 5)", sampler="grid"), folder(parallel=2), launcher)
    assert states(one) == ["FAIL", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]


def test_what_a_trial_raises_ends_the_search_after_the_others_are_told(folder: Callable[..., store.Sweep]) -> None:
    class Full(Launcher):
        def __call__(self, batch: Sequence[Sequence[str]], first: int) -> Any:
            class Raised:
                @property
                def return_value(self) -> Any:
                    raise OSError("no space left")

            return [Raised(), *super().__call__(batch, first)[1:]]

    sweep, found = folder(parallel=3), plan(LR, trials=6)
    with pytest.raises(OSError, match="no space left"):
        run(found, sweep, Full())
    one = run(found, sweep, launcher := Launcher())
    assert launcher.batches == [[0], [3, 4, 5]]
    assert states(one) == ["COMPLETE"] * 6


# --- killed and continued ------------------------------------------------------------------------------------------


class Killed(Launcher):
    """The search dies in the batch that trial `at` is in."""

    def __init__(self, sweep: store.Sweep, at: int) -> None:
        super().__init__()
        self.sweep, self.at = sweep, at

    def __call__(self, batch: Sequence[Sequence[str]], first: int) -> Any:
        out = super().__call__(batch, first)
        if first + len(batch) > self.at:
            raise KeyboardInterrupt
        return out


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "grid"])
def test_a_killed_search_goes_on_where_it_was(sampler: str, folder: Callable[..., store.Sweep]) -> None:
    """Of the batch 4..7 that was under way, 5 had ended: it is told; the others run again, under their numbers."""
    grid = ["optim.lr=range(0.01, 0.065, 0.01)", "optim.weight_decay=range(0, 2)"]
    words = grid if sampler == "grid" else [LR, DECAY]
    sweep, found = folder(parallel=4), plan(*words, sampler=sampler, trials=10, startup=2)
    with pytest.raises(KeyboardInterrupt):
        run(found, sweep, before := Killed(sweep, at=4))
    sweep.save(store.Trial(5, before.words[5], "finished", [0.875]))
    sweep.save(store.Trial(6, before.words[6], "stopped"))
    one = run(found, sweep, after := Launcher())
    assert after.batches == [[4], [6, 7], [8, 9]]
    assert all(after.words[number] == before.words[number] for number in (4, 6, 7))
    assert states(one) == ["COMPLETE"] * 10 and one.study.trials[5].value == 0.875
    run(found, sweep, again := Launcher())
    assert again.batches == []
    if sampler == "grid":
        tried = {tuple(values_of({**before.words, **after.words}[number]).values()) for number in range(10)}
        assert len(tried) == 10


def test_what_another_search_left_in_the_folder_is_not_taken_for_a_trial(folder: Callable[..., store.Sweep]) -> None:
    sweep, found = folder(), plan(LR, trials=2)
    with pytest.raises(KeyboardInterrupt):
        run(found, sweep, Killed(sweep, at=0))
    sweep.save(store.Trial(0, ["optim.lr=0.5"], "finished", [2.0]))
    one = run(found, sweep, launcher := Launcher())
    assert launcher.batches == [[0], [1]] and one.study.trials[0].value < 1.5


def test_a_larger_budget_goes_on_with_new_draws(folder: Callable[..., store.Sweep]) -> None:
    sweep = folder()
    run(plan(LR, trials=3, sampler="random"), sweep, first := Launcher())
    run(plan(LR, trials=6, sampler="random"), sweep, second := Launcher())
    assert second.batches == [[3], [4], [5]]
    drawn = [values_of({**first.words, **second.words}[number])["optim.lr"] for number in range(6)]
    assert len(set(drawn)) == 6
    names = {
        settings.default_name([LR, f"hydra.sweeper.{word}"], "") for word in ("trials=3", "timeout_s=9", "batch=2")
    }
    assert names == {settings.default_name([LR], "")}, "and it is the same sweep"


def test_the_budget_of_time_counts_over_all_starts(
    folder: Callable[..., store.Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])

    def minute(words: Sequence[str]) -> list[float]:
        clock[0] += 60
        return score(words)

    sweep = folder()
    for limit, numbers in ((150, [0, 1, 2]), (150, []), (200, [3]), (None, [4, 5])):
        launcher = Launcher(minute)
        run(plan(LR, trials=6, timeout_s=limit), sweep, launcher)
        assert [number for batch in launcher.batches for number in batch] == numbers


def test_a_study_in_a_shared_storage_belongs_to_one_folder(folder: Callable[..., store.Sweep], tmp_path: Path) -> None:
    found = plan(LR, trials=2, storage=f"sqlite:///{tmp_path / 'all.db'}")
    run(found, folder(), Launcher())
    elsewhere = store.Sweep(tmp_path / "elsewhere", folder().facts)
    with pytest.raises(ValueError, match=r"belongs to .*/sweeps/one: continue it there, or give this one a sweep.name"):
        found.check_storage(elsewhere)
    run(found, folder(name="two"), launcher := Launcher())
    assert launcher.batches == [[0], [1]]


def test_a_storage_that_cannot_be_opened_is_named_without_its_password(folder: Callable[..., store.Sweep]) -> None:
    found = plan(LR, storage="sqlite:////no/such/folder/study.db")
    with pytest.raises(
        ValueError, match=r"hydra.sweeper.storage: sqlite:////no/such/folder/study.db: .*unable to open"
    ):
        found.check_storage(folder())
    found = plan(LR, storage="nosuchdatabase://me:secret@there/studies")
    with pytest.raises(ValueError, match="there/studies") as problem:
        found.check_storage(folder())
    assert "secret" not in str(problem.value)


# --- pruning -------------------------------------------------------------------------------------------------------

CURVES = {0: [0.5, 0.7, 0.8, 0.9], 1: [0.6, 0.8, 0.9, 0.95]}


@pytest.fixture
def begun(folder: Callable[..., store.Sweep], monkeypatch: pytest.MonkeyPatch) -> search.SearchState:
    """A search with a median pruner, two finished trainings, and a third one (number 2) under way."""
    sweep, found = folder(), plan(LR, trials=3, pruner="median", prune_startup=2)
    one = search.SearchState(found, sweep, epochs=4)
    for number, curve in CURVES.items():
        trial = one.study.ask()
        found.space.suggest(trial)
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
        one.study.tell(number, curve[-1])
    found.space.suggest(one.study.ask())
    monkeypatch.setenv(trial_pruning.SEARCH, one.pruning.json())
    monkeypatch.setenv("STILLFRAME_TRIAL", "2")
    monkeypatch.setenv("STILLFRAME_REPEAT", "0")
    return one


def test_a_training_reports_its_epochs_and_hears_whether_it_is_worth_going_on(begun: search.SearchState) -> None:
    judge = trial_pruning.trial_pruner()
    assert not judge.should_prune(1, 0.58), "above the median of 0.5 and 0.6"
    assert not judge.should_prune(2, 0.76)
    assert judge.should_prune(3, 0.77), "below the median of 0.8 and 0.9"
    assert begun.study.trials[2].intermediate_values == {1: 0.58, 2: 0.76, 3: 0.77}
    again = trial_pruning.trial_pruner()  # the search was killed, and the same trial starts anew
    assert again.should_prune(1, 0.58)
    assert begun.study.trials[2].intermediate_values == {1: 0.58, 2: 0.76, 3: 0.77}


def test_only_the_first_repeat_is_pruned(begun: search.SearchState, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial_pruning.pruner_config() == begun.pruning
    monkeypatch.setenv("STILLFRAME_REPEAT", "1")
    assert trial_pruning.pruner_config() is None


@pytest.mark.parametrize(
    ("words", "epochs"), [((LR,), 4), ((LR, "trainer.max_epochs=range(2, 9)"), 8), (("trainer.max_epochs=3,9",), 9)]
)
def test_hyperband_knows_the_longest_training(
    words: tuple[str, ...], epochs: int, folder: Callable[..., store.Sweep]
) -> None:
    told = search.pruner_config(plan(*words, pruner="hyperband"), folder(), 4)
    assert told.epochs == epochs
    assert isinstance(told.make(), optuna.pruners.HyperbandPruner)


def test_trainings_are_told_where_to_ask_in_whatever_process_they_run(folder: Callable[..., store.Sweep]) -> None:
    one = run(plan(LR, trials=2, pruner="hyperband"), folder(), launcher := Launcher())
    (word,) = [word for word in launcher.words[1] if word.startswith(f"+hydra.job.env_set.{trial_pruning.SEARCH}=")]
    assert json.loads(search_space.parse(word).value()) == json.loads(os.environ[trial_pruning.SEARCH])
    assert (
        trial_pruning.pruner_config() == one.pruning
        and one.pruning.storage == f"sqlite:///{one.sweep.folder / 'study.db'}"
    )


def test_without_a_pruner_no_training_asks(folder: Callable[..., store.Sweep]) -> None:
    run(plan(LR, trials=1), folder(), launcher := Launcher())
    assert (
        trial_pruning.pruner_config() is None
        and launcher.words[0][0].startswith("optim.lr=")
        and len(launcher.words[0]) == 1
    )


class Ranks:
    """A trainer of Lightning's after some epochs, as the callback sees it."""

    def __init__(self, epochs: int, score: float) -> None:
        self.current_epoch, self.max_epochs, self.world_size, self.is_global_zero = epochs - 1, 4, 1, True
        self.callback_metrics = {"val/f1_macro": score, "val/loss": 1.0}


def test_the_callback_ends_the_training_and_leaves_no_state(
    begun: search.SearchState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillframe.training.callbacks import TrialPruned, TrialPruning
    from stillframe.training.resume import ResumeState

    monkeypatch.chdir(tmp_path)
    slot = ResumeState(tmp_path / "slot")
    slot.folder.mkdir()
    slot.last.touch()
    callback: Any = TrialPruning(slot, begun.pruning)
    callback.on_train_epoch_end(Ranks(1, 0.58), None)
    assert slot.last.exists() and not trial_pruning.PRUNED.exists()
    with pytest.raises(TrialPruned, match="after 2 of 4 epochs, val/f1_macro 0.1000"):
        callback.on_train_epoch_end(Ranks(2, 0.1), None)
    assert not slot.last.exists()
    assert json.loads(trial_pruning.PRUNED.read_text()) == {"why": "after 2 of 4 epochs, val/f1_macro 0.1000"}
    callback.on_train_epoch_end(Ranks(4, 0.1), None)
    assert begun.study.trials[2].intermediate_values == {1: 0.58, 2: 0.1, 4: 0.1}, "the last epoch is told, no more"
    callback.metric = "val/ece"
    with pytest.raises(ValueError, match="val/ece is not measured after each epoch: did you mean 'val/loss'"):
        callback.on_train_epoch_end(Ranks(1, 0.1), None)


def test_a_training_goes_on_when_the_storage_is_away(
    begun: search.SearchState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stillframe.training.callbacks import TrialPruning
    from stillframe.training.resume import ResumeState

    monkeypatch.setenv(trial_pruning.SEARCH, begun.pruning.json().replace("study.db", "no/study.db"))
    callback: Any = TrialPruning(ResumeState(tmp_path), begun.pruning)
    callback.on_train_epoch_end(Ranks(2, 0.1), None)
    assert "the search could not be asked: ValueError" in capsys.readouterr().err


# --- through the user's door ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_with_a_pruner_on_made_photographs(tmp_path: Path) -> None:
    """Two trials, of which the second learns nothing and is pruned; then the same command with a budget of three."""
    project = checkout(tmp_path / "project", photographs(tmp_path / "photographs"))
    words = [
        *("hydra/sweeper=optuna", "hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=median", "trainer.max_epochs=2"),
        *("hydra.sweeper.prune_startup=1", "optim.lr=3e-3,1e-9,1e-8"),
        *("sweep.until=validate", "sweep.test=none", "sweep.name=made"),
    ]
    sweep = [shutil.which("python") or "python", "-m", "stillframe.sweep", "-m", *words]
    said = shell(project, *sweep, "hydra.sweeper.trials=2")
    assert "2 of 2 done" in said and "1 pruned" in said
    said = shell(project, *sweep, "hydra.sweeper.trials=3")
    assert "goes on after 2 trials" in said and "3 of 3 done" in said and "2 pruned" in said
    found = store.Sweep.read(project / "sweeps/made")
    assert [trial.state for trial in found.trials()] == ["finished", "pruned", "pruned"]
    assert found.trials()[1].error.startswith("after 1 of 2 epochs, val/f1_macro 0.")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{found.folder / 'study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert study.best_value == found.trials()[0].values[0]
    assert list(study.trials[0].intermediate_values) == [1, 2]
    assert list(study.trials[1].intermediate_values) == [1]
    slot = project / ".work/sweep/slot-0"
    assert not list(slot.glob(".resume/*/last.ckpt")), "a pruned training leaves no state"
    listed = shell(project, "dvc", "exp", "list", "--name-only").split()
    assert [name for name in listed if name.startswith("made-")] == ["made-0000"], "nothing of a pruned one is recorded"
