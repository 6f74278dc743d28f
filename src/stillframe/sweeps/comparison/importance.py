"""Which parameter mattered: Optuna's fANOVA over the finished trials, whatever engine chose them."""

from __future__ import annotations

import warnings

from stillframe.sweeps.comparison.candidates import Axis, SweepComparison

LEAST = 4  # trials below which a share would only be noise


def importance(findings: SweepComparison) -> tuple[dict[str, float], str]:
    """The share of the objective's variation that each parameter explains.

    functional ANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014) over a random forest, by Optuna, on a study made in
    memory from the trials' means; the same trials give the same shares.

    Returns:
        (name -> share, the largest first, summing to 1; why there are none, else a caution). Parameters that some
        trials do not have are left out.
    """
    trials = findings.finished
    axes = [axis for axis in findings.axes if all(axis.values.get(trial.number) is not None for trial in trials)]
    axes = [axis for axis in axes if len({axis.values[trial.number] for trial in trials}) > 1]
    left = [axis.name for axis in findings.axes if axis not in axes]
    caution = f"Left out, because not all finished trials differ in it: {', '.join(left)}." if left else ""
    if not axes:
        return {}, "No parameter differs between the finished trials."
    if len(trials) < LEAST:
        return {}, f"{len(trials)} finished trials are too few to share the effect out ({LEAST} or more)."
    if len({trial.values[0] for trial in trials}) == 1:
        return {}, "All finished trials have the same score: nothing to explain."
    shares = _shares(findings, axes)
    return dict(sorted(shares.items(), key=lambda item: -item[1])), caution


def _shares(findings: SweepComparison, axes: list[Axis]) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=findings.sweep.directions[0])
    ranges = {axis.key: _range(axis, findings) for axis in axes}
    for trial in findings.finished:
        params = {axis.key: axis.values[trial.number] for axis in axes}
        study.add_trial(create_trial(value=trial.values[0], params=params, distributions=ranges))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna and scikit-learn about their own interfaces
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    names = {axis.key: axis.name for axis in axes}
    return {names[key]: float(share) for key, share in shares.items()}


def _range(axis: Axis, findings: SweepComparison) -> object:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    values = [axis.values[trial.number] for trial in findings.finished]
    numbers = [value for value in values if isinstance(value, float)]
    if axis.numeric:
        return FloatDistribution(min(numbers), max(numbers), log=axis.log)
    return CategoricalDistribution(list(dict.fromkeys(map(str, values))))
