"""What an interrupted training may and may not do."""

import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from stillframe.paths import read_json, write_json
from stillframe.training.lock import exclusive
from stillframe.training.resume import AtomicCheckpointIO, ResumeState, differences, find_state, fingerprint


def exacting(workplace):
    """Settings in which every source of randomness is at work, and every step is kept."""
    workplace.set("trainer.checkpoint_seconds", 1e-6).set("trainer.max_epochs", 3)
    workplace.set("model.drop_rate", 0.3).set("optim.mixup", 0.2).set("optim.ema_decay", 0.9)
    workplace.set("augment.online", [{"HorizontalFlip": {"p": 0.5}}]).set("augment.where", "item")
    return workplace


def wait_for_checkpoint(workplace, process, after: float):
    deadline = time.monotonic() + 120
    while not workplace.checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, workplace.log()
        time.sleep(0.01)
    time.sleep(after)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_trainings_end_with_the_weights_of_one_never_killed(workplace, workers):
    exacting(workplace).set("trainer.workers", workers)
    assert workplace.stage("train") == 0, workplace.log()
    straight = load_file(workplace.folder / "artifacts/train/model.safetensors")
    history = (workplace.folder / "artifacts/train/history.csv").read_text()
    first_run = read_json(workplace.folder / "artifacts/train/run.json")["run_id"]
    for after in (0.0, 0.25):
        process = workplace.start("train")
        wait_for_checkpoint(workplace, process, after)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert workplace.stage("train") == 0, workplace.log()
    assert "resuming from" in workplace.log()
    resumed = load_file(workplace.folder / "artifacts/train/model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert (workplace.folder / "artifacts/train/history.csv").read_text() == history
    assert not workplace.checkpoints(), "the state is cleared at success"
    run = read_json(workplace.folder / "artifacts/train/run.json")
    assert run["run_id"] and run["run_id"] != first_run
    assert len(runs(workplace)) == 2, "one run for the straight training, one for the killed and resumed one"


def runs(workplace):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workplace.folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("stillframe").experiment_id])


@pytest.mark.slow
def test_sigterm_keeps_the_state_and_exits_143(workplace):
    exacting(workplace).set("trainer.max_epochs", 30).set("trainer.checkpoint_seconds", 3600.0)
    process = workplace.start("train")
    deadline = time.monotonic() + 120
    while "epoch 1/30" not in workplace.log():
        assert process.poll() is None and time.monotonic() < deadline, workplace.log()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143, workplace.log()
    assert workplace.checkpoints() and "dvc repro` resumes" in workplace.log()
    assert not (workplace.folder / "artifacts/train/model.safetensors").exists()
    kept = torch.load(workplace.checkpoints()[0], weights_only=True)
    assert kept["global_step"] > 0
    assert [run.info.status for run in runs(workplace)] == ["KILLED"]


def test_another_configuration_never_resumes(tmp_path):
    old, _ = find_state({"optim.lr": 0.1}, [], tmp_path)
    old.last.write_bytes(b"state")
    new, notes = find_state({"optim.lr": 0.2}, [], tmp_path)
    assert new.folder != old.folder and not new.last.exists()
    assert len(notes) == 1 and "optim.lr: 0.1 -> 0.2" in notes[0]


def test_the_note_on_an_unfinished_training_is_one_short_line(tmp_path):
    """After a pull nearly every code file differs; the parameters are what a reader looks for."""
    code = {f"code:fit/{name}.py": 64 * "0" for name in "abcdefghij"}
    before = {
        **code,
        "data:data/prepared/card.json": 64 * "1",
        "optim.lr": 0.1,
        "augment.online": ["x" * 500],
        "seed": 0,
    }
    old, _ = find_state(before, [], tmp_path)
    old.last.write_bytes(b"state")
    after = {key: 64 * "f" if ":" in key else 1 for key in before}
    (note,) = find_state(after, [], tmp_path)[1]
    assert "\n" not in note and len(note) < 300 and 9 * "0" not in note
    assert (
        note.index("augment.online") < note.index("optim.lr: 0.1 -> 1") < note.index("seed") < note.index("and 11 more")
    )
    only = {**before, "data:data/prepared/card.json": 64 * "2", "code:fit/a.py": 64 * "f"}
    note = next(note for note in find_state(only, [], tmp_path)[1] if "2 of its inputs differ:" in note)
    assert note.endswith("data:data/prepared/card.json: 11111111 -> 22222222, code:fit/a.py: 00000000 -> ffffffff")


def test_a_difference_that_is_allowed_by_name_resumes(tmp_path):
    old, _ = find_state({"optim.lr": 0.1, "seed": 0}, [], tmp_path)
    old.last.write_bytes(b"state")
    assert find_state({"optim.lr": 0.2, "seed": 0}, ["optim.lr"], tmp_path)[0] == old
    assert find_state({"optim.lr": 0.2, "seed": 1}, ["optim.lr"], tmp_path)[0] != old


def test_differences_are_named():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3}) == {"b": "2 -> 3"}
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_state_of_a_slot_adds_up(tmp_path):
    slot = ResumeState(tmp_path)
    slot.remember(a=1)
    slot.remember(b=2)
    assert slot.recall() == {"a": 1, "b": 2}


def test_one_training_at_a_time_and_the_holder_is_named(tmp_path):
    with exclusive(tmp_path):
        with pytest.raises(ValueError, match=f"pid {os.getpid()}"), exclusive(tmp_path):
            pass
    with exclusive(tmp_path):
        pass


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    files = AtomicCheckpointIO()
    files.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")

    def half(checkpoint, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space left"):
        files.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert files.load_checkpoint(tmp_path / "last.ckpt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


class Evil:
    def __reduce__(self):
        return (os.system, ("touch planted",))


def test_a_hostile_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged or holds more than tensors, and was not loaded"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "planted").exists()


def test_inputs_cover_data_and_code(tmp_path):
    from stillframe.training.resume import inputs_of

    (tmp_path / "a.arrow").write_bytes(b"x" * 100)
    (tmp_path / "code.py").write_text("pass")
    write_json(tmp_path / "n.json", {})
    params = {"optim.lr": 0.1, "tracking.uri": None, "trainer.checkpoint_seconds": 3.0}
    before = inputs_of(params, [tmp_path / "a.arrow"], [tmp_path / "code.py"])
    assert "optim.lr" in before and not [key for key in before if key.startswith(("tracking", "trainer.checkpoint"))]
    (tmp_path / "a.arrow").write_bytes(b"y" * 100)
    after = inputs_of(params, [tmp_path / "a.arrow"], [tmp_path / "code.py"])
    assert set(differences(before, after)) == {f"data:{tmp_path / 'a.arrow'}"}


def test_a_planted_state_stops_the_training_and_is_named(here, monkeypatch):
    """Through the stage: where it would resume lies a pickle that runs code."""
    from stillframe.stages import train
    from stillframe.training import loop

    real = loop.find_state

    def planted(*arguments, **options):
        slot, notes = real(*arguments, **options)
        torch.save({"state_dict": {}, "epoch": Evil()}, slot.last)
        return slot, notes

    monkeypatch.setattr(loop, "find_state", planted)
    with pytest.raises(ValueError, match=r"\.resume/\w+/last\.ckpt is damaged or holds more than tensors"):
        train.run(*here.params("task", "seed", "augment", "model", "optim", "trainer", "tracking"))
    assert not (here.folder / "planted").exists() and not (here.folder / "artifacts").exists()
