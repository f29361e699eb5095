"""Tuner: searches architectures trial by trial, resumes after a kill, and keeps what an ensemble is made of."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import warnings

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from ensemble_keras import runs
from ensemble_keras._progress import progress_bar
from ensemble_keras._validation import check_at_least, check_choice, check_seed
from ensemble_keras._version import __version__
from ensemble_keras.data.labels import class_weights
from ensemble_keras.executors import ProcessExecutor, check_executor, run_units
from ensemble_keras.features.keys import augmentation_key
from ensemble_keras.members.curves import DIRECTIONS
from ensemble_keras.members.settings import Training
from ensemble_keras.runs import changes, fingerprint
from ensemble_keras.search.baselines import HyperbandOracle
from ensemble_keras.search.evaluation import Evaluation, Job, evaluate
from ensemble_keras.search.genome import active_values
from ensemble_keras.search.images import search_data
from ensemble_keras.search.options import (
    ALGORITHMS,
    COSTS,
    build_oracle,
    check_not_of_training,
    halving_of,
    objectives_of,
    shared_settings,
)
from ensemble_keras.search.records import SHORT, Records
from ensemble_keras.search.source import write_champion
from ensemble_keras.search.space import HyperImageClassifier
from ensemble_keras.search.tables import lineage_text, trials_table
from ensemble_keras.search.team import MOST_CANDIDATES, greedy_team, true_class_probabilities


class ArchitectureSearch(keras_tuner.Tuner):
    """Searches image classifiers by any algorithm; a KerasTuner tuner that resumes and never trains a genome twice.

    Args:
        hypermodel: A `HyperImageClassifier`; or any KerasTuner hypermodel, which KerasTuner then trains by itself:
            what is said of halving, data, kept weights, predictions and ensembles holds for the former.
        algorithm: `"genetic"`, `"local"`, `"random"`, `"bayesian"` or `"hyperband"`. Defaults to `"genetic"`.
        objective: `"val_accuracy"`, `"val_loss"` or `"val_auc"`; or a list that begins with one of these and goes on
            with costs, `["val_accuracy", "macs"]` (or `"parameters"`): then trials are compared by dominance, see
            `oracle.get_pareto_trials()`. Defaults to `"val_accuracy"`.
        max_trials: Int, how many trials are to succeed, those of earlier runs counted; with a higher number a
            finished search goes on. Defaults to 100.
        halving: A `SuccessiveHalving`, which stops poor trials early; `True`: with its defaults; or `None` or
            `False`: all trials have all epochs. Defaults to `None`.
        parents: `"population"`; or `"ensemble"`: parents come from the best team of the trials so far, so that the
            search looks for good teams (Neural Ensemble Search, Zaidi et al., 2020, 2006.08573); `"genetic"` only.
            Defaults to `"population"`.
        keep: Int, of how many best trials the weights are kept; those of the Pareto front and of the best team are,
            too. Defaults to 10.
        ensemble_size: Int, the size of that team. Defaults to 5.
        seed: Int. Of the sequence of trials, and of each trial's weights, order and augmentation. Defaults to 0.
        directory: Folder of searches, which share what they trained. Defaults to the current one, as KerasTuner's.
        project_name: String, the search's folder in it. Defaults to `"search"`.
        overwrite: Whether to begin anew where the folder holds a search. Defaults to `False`: to go on with it.
        oracle_options: Dict of further arguments of the algorithm's oracle, such as `{"population_size": 50}`.
            Defaults to `None`.
        **tuner_options: Further arguments of `keras_tuner.Tuner`. Those of training and of the size of networks are
            for a hypermodel of one's own: a `HyperImageClassifier` has genes, limits, and `settings` of `search`.

    Raises:
        ValueError: If an option is not as described.

    Example:

    >>> space = HyperImageClassifier(2, (8, 8, 1), families=["cnn"])
    >>> x, y = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), "uint8"), np.arange(60) % 2
    >>> folder = getfixture("tmp_path")
    >>> tuner = ArchitectureSearch(space, algorithm="random", max_trials=2, directory=folder)
    >>> tuner.search(x, y, epochs=1, verbose=0)
    >>> tuner.leaderboard()["status"].tolist()
    ['COMPLETED', 'COMPLETED']
    """

    # Of what kind its evaluations are, and the figures that they give besides the usual ones.
    _kind, _further = Evaluation, ()

    def __init__(
        self,
        hypermodel,
        *,
        algorithm="genetic",
        objective="val_accuracy",
        max_trials=100,
        halving=None,
        parents="population",
        keep=10,
        ensemble_size=5,
        seed=0,
        directory=None,
        project_name="search",
        overwrite=False,
        oracle_options=None,
        **tuner_options,
    ):
        check_choice("algorithm", algorithm, ALGORITHMS)
        check_choice("parents", parents, ("population", "ensemble"))
        check_seed(seed)
        check_at_least("keep", keep, 0)
        check_at_least("ensemble_size", ensemble_size, 1)
        self.seed, self.keep, self.team_size = seed, keep, ensemble_size
        self.halving = halving_of(halving)
        self._is_ours = isinstance(hypermodel, HyperImageClassifier)
        # What `search` sets.
        self.data = self._records = self._make_job = self._champion = self._end_reason = None
        self._seen = {}
        objectives, self._figure = objectives_of(objective)
        oracle_options = dict(oracle_options or {})
        # Those that a file can hold, and of which a change is worth a warning.
        told = {name: value for name, value in oracle_options.items() if name not in ("known", "parents")}
        self._described = {"algorithm": algorithm, "objective": objective, "parents": parents} | told
        given = {"objective": objectives, "max_trials": max_trials, "seed": seed}
        if self._is_ours:
            check_not_of_training(tuner_options)
            given |= {"hyperparameters": hypermodel.hyperparameters(), "refusal": hypermodel.refusal}
        elif self.halving is not None or parents == "ensemble":
            raise ValueError(
                "`halving` and `parents='ensemble'` need a HyperImageClassifier: KerasTuner alone trains any other "
                f"hypermodel. Received: {hypermodel!r}."
            )
        if parents == "ensemble":
            if algorithm != "genetic":
                raise ValueError(f"`parents='ensemble'` needs `algorithm='genetic'`. Received: {algorithm!r}.")
            given["parents"] = self._team
        oracle = build_oracle(algorithm, given, oracle_options)
        with _quiet():
            super().__init__(
                oracle,
                hypermodel,
                directory=directory,
                project_name=project_name,
                overwrite=overwrite,
                **tuner_options,
            )
        path = pathlib.Path(self.project_dir) / "run.json"
        if self._is_ours and path.exists():
            self._open_records(json.loads(path.read_text())["trained"])

    def search(
        self,
        x,
        y=None,
        *,
        validation_data=None,
        validation_split=0.2,
        comparison_split=0.5,
        epochs=10,
        batch_size=64,
        augmentation=None,
        class_weight=None,
        settings=None,
        callbacks=(),
        max_seconds_per_trial=None,
        executor=None,
        workers=None,
        verbose=1,
        **options,
    ):
        """Runs the trials that are left.

        The validation images are divided: one part chooses the epoch and the trials (`val_accuracy` and the others
        are of it), the other is only predicted, for an honest comparison of ensembles. A trial that fails, out of
        memory, with a loss that is no number, out of time or with an error, is noted with its reason, and the search
        goes on. Killed at any moment and started again, the search goes on; without an executor, and on a CPU, with
        the very sequence of trials and figures that it would have had.

        Args:
            x: An `ImageDataset`, or images of the space's `input_shape` with values in [0, 255].
            y: Labels `(n,)`, ints or strings; not needed with a labelled `ImageDataset`.
            validation_data: `(x, y)` or an `ImageDataset`. Defaults to a part of the training images.
            validation_split: Float in (0, 1), the share of that part, stratified. Defaults to 0.2.
            comparison_split: Float in (0, 1), the share of the validation images that only the comparison sees.
                Defaults to 0.5.
            epochs: Int, how long a trial trains that does not stop early. Defaults to 10.
            batch_size: Int, where it is no gene of the space. Defaults to 64.
            augmentation: As in `build_augmentation`, of images with three channels. Defaults to `None`.
            class_weight: `None`, `"balanced"`, or a dict from class to weight. Defaults to `None`.
            settings: Dict of further fields of `Training` for all trials, such as `{"label_smoothing": 0.1}`; not of
                what the space searches. `patience` is all epochs where it is not given. Defaults to `None`.
            callbacks: `keras.callbacks.Callback`s; with an executor they must be picklable. Defaults to none.
            max_seconds_per_trial: Float. Defaults to `None`: no limit.
            executor: Where trials run: `None`, in this process; an int, that many processes; a
                `concurrent.futures.Executor` such as `ensemble_keras.executors.RayExecutor()`; or a Dask client. To
                a cluster the images go with each trial. See `ensemble_keras.executors.run_units`. Defaults to `None`.
            workers: Int, how many trials at a time. Defaults to what the executor has.
            verbose: 0 shows no progress. Defaults to 1.
            **options: Arguments of `keras.Model.fit`, where the hypermodel is not a `HyperImageClassifier`.

        Raises:
            BadImagesError: If images of a dataset cannot be decoded.
            RuntimeError: If another process works in the folder, or no trial succeeds; it says why.
            ValueError: If an argument is not as described, or the folder holds a search on other images or with other
                settings, whose figures would not compare.
        """
        if isinstance(self.oracle, HyperbandOracle) and "max_epochs" not in self._described:
            self.oracle.max_epochs = epochs
        if not self._is_ours:
            ours = {"augmentation": augmentation, "settings": settings, "executor": executor, "workers": workers}
            ours |= {"max_seconds_per_trial": max_seconds_per_trial}
            options |= {"epochs": epochs, "batch_size": batch_size, "class_weight": class_weight, "verbose": verbose}
            options |= {"validation_data": validation_data, "validation_split": validation_split}
            self._search_by_keras_tuner(x, y, ours, callbacks=list(callbacks), **options)
            return
        if options:
            raise TypeError(f"`search` takes no argument {', '.join(map(repr, options))}.")
        check_executor(executor)
        data = self._images(x, y, validation_data, (validation_split, comparison_split))
        fixed = shared_settings(
            settings or {},
            searched=self.hypermodel.training,
            monitor=self._figure,
            epochs=epochs,
            batch_size=batch_size,
        )
        weights = class_weights(data.train.labels, data.classes, class_weight)
        augmented = augmentation_key(augmentation)
        if augmented and self.hypermodel.input_shape[2] != 3:
            raise ValueError(
                "`augmentation` takes images with three channels. Received: images of shape "
                f"{self.hypermodel.input_shape}. Give None, or repeat grey images over three channels."
            )
        # An optimizer is no JSON value, what tells of it is.
        told = Training(epochs=epochs, **fixed).config()
        trained = {
            "version": __version__,
            "data": data.fingerprints(),
            "epochs": epochs,
            "settings": {name: told[name] for name in fixed},
            "augmentation": augmented,
            "class_weight": weights,
            "halving": self.halving and dataclasses.asdict(self.halving),
            "max_seconds_per_trial": max_seconds_per_trial,
            "seed": self.seed,
            **self._depends_on(),
        }
        self._start_records(trained, data)
        further = {
            "hypermodel": self.hypermodel,
            "augmentation": augmentation,
            "class_weight": weights,
            "max_seconds": max_seconds_per_trial,
            "callbacks": tuple(callbacks),
        }
        with runs.Run(self.project_dir, {"trained": trained, "search": self._described}), _quiet():
            runs.remove_leftovers(self._records.project)
            if isinstance(executor, int | ProcessExecutor):
                data = data.stored(self._records.images)
            make = functools.partial(Job, **data.parts(), **further)
            self._make_job = functools.partial(self._job, make, fixed, epochs)
            # What was interrupted is given out again, also where this very object was searching.
            self.oracle.reload()
            self._run(executor, workers, verbose)
            self._records.remove_scratch()
        self._tell_of_an_early_end()

    def _search_by_keras_tuner(self, x, y, ours, *, validation_data, validation_split, **fit_arguments):
        """Leaves a hypermodel of the user's own to KerasTuner, and so to `keras.Model.fit`."""
        if unknown := [name for name, value in ours.items() if value is not None]:
            raise ValueError(
                f"`{unknown[0]}` needs a HyperImageClassifier: KerasTuner alone trains any other hypermodel. "
                f"Received: {self.hypermodel!r}."
            )
        held_out = {"validation_data": validation_data}
        if validation_data is None:
            held_out = {"validation_split": validation_split}
        with _quiet():
            super().search(x, y, **held_out, **fit_arguments)

    def _images(self, x, y, validation_data, shares):
        shape, classes = self.hypermodel.input_shape, self.hypermodel.num_classes
        data = search_data(x, y, validation_data, input_shape=shape, shares=shares, seed=self.seed)
        if len(data.classes) != classes:
            raise ValueError(f"The space is of {classes} classes. Received: images of {len(data.classes)}.")
        return data

    def run_trial(self, trial, *fit_args, **fit_kwargs):
        """Trains a network of a hypermodel of the user's own; KerasTuner calls it."""
        # Hyperband deals them out.
        dealt = trial.hyperparameters.values.get("tuner/epochs")
        if dealt is not None:
            fit_kwargs["epochs"] = dealt
        return super().run_trial(trial, *fit_args, **fit_kwargs)

    def leaderboard(self):
        """Returns the ended trials, the best first: see `ensemble_keras.search.tables.trials_table`."""
        table = self._table()
        lower = DIRECTIONS[self._figure] == "min"
        return table.sort_values("score", ascending=lower, kind="stable", na_position="last", ignore_index=True)

    def load_model(self, trial):
        """Returns the trained network of a trial: from its kept weights, or trained once more as it was.

        Raises:
            RuntimeError: If its weights are not kept, and the data are not known: before `search` in this process.
        """
        if not self._is_ours:
            return super().load_model(trial)
        weights = None if self._records is None else self._records.weights(self._name(trial))
        if weights is None:
            weights = self._train_again(trial).weights
            self._records.keep_weights(self._name(trial), weights)
        network = self._network(trial)
        network.set_weights(weights)
        return network

    def costs(self, trial):
        """Returns what the network of a completed trial costs: a dict of ints, `"parameters"` and `"macs"`."""
        return {name: int(trial.metrics.get_best_value(name)) for name in COSTS}

    def predictions(self, trials):
        """Returns what trials predicted for the validation images.

        Args:
            trials: List of completed trials.

        Returns:
            Two lists of float32 arrays `(n, num_classes)`: for the images that chose trials, and for those that only
            the comparison sees.

        Raises:
            RuntimeError: Before `search` in this process.
        """
        self._check_searched()
        cut = len(self.data.selection)
        tables = [self._evaluation(trial).predictions for trial in trials]
        return [table[:cut] for table in tables], [table[cut:] for table in tables]

    def completed_trials(self):
        """Returns the trials that succeeded, the best first."""
        sign = 1 if DIRECTIONS[self._figure] == "min" else -1
        return sorted(self.oracle.finished(), key=lambda trial: sign * trial.score)

    def has_weights(self, trial):
        """Returns whether the weights of a trial are kept."""
        return self._records is not None and self._records.has_weights(self._name(trial))

    def save(self):
        """Saves nothing further: the search is what its trials' files say."""
        self.oracle.save()

    def reload(self):
        """Takes up the trials in the folder."""
        self.oracle.reload()

    def _populate_initial_space(self):
        # All is declared in a space of ours; KerasTuner would build networks to find it out.
        if not self._is_ours:
            super()._populate_initial_space()
        self.oracle.reload()

    def _configure_tensorboard_dir(self, callbacks, trial, execution=0):
        # KerasTuner imports TensorBoard even where nobody asked for it.
        if any(isinstance(callback, keras.callbacks.TensorBoard) for callback in callbacks):
            super()._configure_tensorboard_dir(callbacks, trial, execution)

    def _start_records(self, trained, data):
        """Refuses a folder that holds another search; else opens its records."""
        trained = json.loads(json.dumps(trained))
        path = pathlib.Path(self.project_dir) / "run.json"
        if path.exists():
            differ = changes(json.loads(path.read_text())["trained"], trained)
            if differ:
                raise ValueError(
                    f"{self.project_dir!r} holds a search whose trials were trained otherwise ({differ}): figures "
                    "would not compare. Give another `project_name`, or `overwrite=True`."
                )
        self.data, self._seen = data, {}
        self._open_records(trained)

    def _open_records(self, trained):
        self._records = Records(self.project_dir, fingerprint(trained), self._kind)

    def _depends_on(self):
        """Returns what the figures of a trial depend on in a search of this kind alone, a dict of JSON values."""
        return {}

    def _work(self):
        """Returns the function from a `Job` to its evaluation, which other processes can run."""
        return evaluate

    def _train_again(self, trial):
        """Returns the evaluation of a completed trial, trained once more as it was.

        Raises:
            RuntimeError: If the data are not known: before `search` in this process.
        """
        if self._make_job is None:
            raise RuntimeError(
                f"The weights of trial {trial.trial_id} are not kept (keep={self.keep}). Call `search` with the "
                "arguments that it had: it finishes at once, and the trial can then be trained as it was."
            )
        epochs = int(trial.metrics.get_best_value("epochs"))
        return self._work()(self._make_job(trial, again_for=epochs))

    def _network(self, trial):
        """Returns the network of a trial, with new weights."""
        return self.hypermodel.network(trial.hyperparameters.values)

    def _measured(self, trial, evaluation):
        """Returns what the network of an evaluation costs."""
        return self.hypermodel.measure(trial.hyperparameters.values)

    def _run(self, executor, workers, verbose):
        with progress_bar(self._title(), self.oracle.max_trials, unit="trials", verbose=verbose) as advance:
            advance(len(self.completed_trials()))

            def ask():
                while True:
                    # As in KerasTuner, whoever has a running trial is given it again.
                    free = (f"worker{i}" for i in itertools.count() if f"worker{i}" not in self.oracle.ongoing_trials)
                    trial = self.oracle.create_trial(next(free))
                    if trial.status != TrialStatus.RUNNING:
                        self._end_reason = trial.message
                        return None
                    try:
                        job = self._make_job(trial)
                    except ValueError as error:
                        # Of a genome's settings: a warm-up longer than its epochs, for instance.
                        self._fail(trial, f"ValueError: {error}")
                        continue
                    known = self._records.evaluation(job.name)
                    if known is None:
                        return job
                    self._records.describe(job.name, known)
                    self._end(trial, known)
                    advance(description=self._title())

            def tell(job, outcome):
                trial = self.oracle.trials[job.trial_id]
                if outcome.error is not None:
                    self._fail(trial, outcome.error)
                    return
                self._records.keep(job.name, outcome.value)
                self._end(trial, outcome.value)
                advance(description=self._title())

            run_units(self._work(), ask, tell, executor=executor, workers=workers)
        if best := self.completed_trials():
            if self._records.read("trials.csv") != self._table().to_csv(index=False):
                # The search was killed as its last trial ended.
                self._tidy()
            self._write_champion(best[0])

    def _tell_of_an_early_end(self):
        """Says why there are fewer trials than asked for."""
        found = len(self.oracle.finished())
        if found >= self.oracle.max_trials:
            return
        reasons = [trial.message for trial in self.oracle.failed()] + list(self.oracle.refused.values())
        often = collections.Counter(reasons).most_common(1)
        text = (
            f"The search ended with {found} of {self.oracle.max_trials} trials. {self._end_reason}"
            + (f" Most often: {often[0][0]}" if often else "")
            + " See `leaderboard()`, and widen the space or its limits."
        )
        if not found:
            raise RuntimeError(text)
        warnings.warn(text, stacklevel=3)

    def _title(self):
        best, failed = self.completed_trials()[:1], len(self.oracle.failed())
        title = f"Searching, best {self._figure} {best[0].score:.4f}" if best else "Searching"
        return f"{title}, {failed} failed" if failed else title

    def _job(self, make, fixed, epochs, trial, *, again_for=None):
        """Returns the `Job` of a trial, or that of training it again for so many epochs as it had."""
        values = active_values(self.oracle.get_space(), trial.hyperparameters.values)
        # Hyperband deals them out.
        epochs = trial.hyperparameters.values.get("tuner/epochs", epochs)
        return make(
            trial_id=trial.trial_id,
            name=self._name(trial),
            values=values,
            settings=dataclasses.replace(self.hypermodel.settings(values, epochs), **fixed),
            seed=int(np.random.SeedSequence([self.seed, int(trial.genome_id[:8], 16)]).generate_state(1)[0]),
            bounds=self._bounds(epochs) if again_for is None else {},
            checkpoint=self._records.checkpoint(self._name(trial)),
            stop_after=again_for,
        )

    def _bounds(self, epochs):
        """Returns what a further trial of so many epochs must reach to go on, a dict as in `Judge`."""
        if self.halving is None:
            return {}
        curves = [self._remembered(trial)[0] for trial in self.completed_trials()]
        return self.halving.bounds(curves, epochs, self._figure)

    def _end(self, trial, evaluation):
        figures = {name: value for name, value in evaluation.figures().items() if name != "loss"}
        figures |= self._measured(trial, evaluation)
        figures |= {"epochs": len(evaluation.history["loss"]), "best_epoch": evaluation.best_epoch}
        self.oracle.update_trial(trial.trial_id, figures | {"seconds": evaluation.seconds}, evaluation.best_epoch)
        trial.status, trial.message = TrialStatus.COMPLETED, evaluation.note
        self.oracle.end_trial(trial)
        self._tidy()

    def _fail(self, trial, reason):
        trial.status, trial.message = TrialStatus.FAILED, reason
        self.oracle.end_trial(trial)
        self._write_tables()

    def _tidy(self):
        """Keeps the weights of the best trials and of the team, and the champion as code."""
        best = self.completed_trials()
        kept = best[: self.keep] + self.oracle.get_pareto_trials() + [best[i] for i in self._team_of(best)]
        self._records.keep_weights_of({self._name(trial) for trial in kept})
        self._write_tables()
        # Else at the end of the search: its weights may have been left with another search that trained it.
        if self._records.has_weights(self._name(best[0])):
            self._write_champion(best[0])

    def _write_champion(self, trial):
        if self._name(trial) != self._champion:
            write_champion(self.load_model(trial), self._records.project)
            self._champion = self._name(trial)

    def _write_tables(self):
        table = self._table()
        self._records.write("lineage.jsonl", lineage_text(table))
        self._records.write("trials.csv", table.to_csv(index=False))

    def _table(self):
        return trials_table(self.oracle, self._further)

    def _team(self, finished):
        """Returns the ids of the trials that are best together: the parents, where these are to come from a team."""
        best = [trial for trial in self.completed_trials() if trial in finished]
        return [best[i].trial_id for i in self._team_of(best)]

    def _team_of(self, best):
        """Returns the places of the team among trials, the best of which comes first."""
        if not best:
            return []
        self._check_searched()
        chances = [self._remembered(trial)[1] for trial in best[:MOST_CANDIDATES]]
        return np.flatnonzero(greedy_team(chances, size=self.team_size))

    def _evaluation(self, trial):
        """Returns the evaluation of a completed trial, without weights; if its file is gone, it is trained again."""
        found = self._records.evaluation(self._name(trial))
        if found is None:
            found = self._train_again(trial)
            self._records.keep(self._name(trial), found)
        return found

    def _remembered(self, trial):
        """Returns a completed trial's curve and, of the images for selection, its probabilities of their classes."""
        name = self._name(trial)
        if name not in self._seen:
            evaluation, labels = self._evaluation(trial), self.data.selection.labels
            chances = true_class_probabilities(evaluation.predictions[: len(labels)], labels)
            self._seen[name] = evaluation.history[self._figure], chances
        return self._seen[name]

    @staticmethod
    def _name(trial):
        """Returns what the files of a trial are called: one genome may be tried with several numbers of epochs."""
        dealt = trial.hyperparameters.values.get("tuner/epochs")
        return trial.genome_id[:SHORT] + ("" if dealt is None else f"-{dealt}epochs")

    def _check_searched(self):
        if self.data is None:
            raise RuntimeError("Call `search` first, with the data: of a finished search it returns at once.")


class GeneticSearch(ArchitectureSearch):
    """Searches image classifiers by a genetic algorithm; see `ArchitectureSearch` for what is not described here.

    Args:
        hypermodel: A `HyperImageClassifier`, or any KerasTuner hypermodel.
        objective: As in `ArchitectureSearch`.
        max_trials: As in `ArchitectureSearch`.
        population_size: Int. Defaults to 20.
        mode: `"aging"`: each child replaces the oldest (Real et al., 2019, "Regularized evolution", 1802.01548); or
            `"generational"`. Defaults to `"aging"`.
        elitism: Int, how many of the best a new generation takes over; `"generational"` only. Defaults to 1.
        oracle_options: As in `ArchitectureSearch`.
        **options: Those of `GeneticOracle` (`tournament_size`, `crossover`, `crossover_prob`, `mutation_prob`) and
            those of `ArchitectureSearch`.

    Example:

    >>> space = HyperImageClassifier(2, (8, 8, 1), families=["cnn"])
    >>> tuner = GeneticSearch(space, max_trials=2, population_size=4, directory=getfixture("tmp_path"))
    >>> tuner.oracle.max_trials
    2
    """

    def __init__(
        self,
        hypermodel,
        *,
        objective="val_accuracy",
        max_trials=100,
        population_size=20,
        mode="aging",
        elitism=1,
        oracle_options=None,
        **options,
    ):
        names = ("tournament_size", "crossover", "crossover_prob", "mutation_prob")
        genetic = {name: options.pop(name) for name in names if name in options}
        genetic |= {"population_size": population_size, "mode": mode, "elitism": elitism}
        super().__init__(
            hypermodel,
            algorithm="genetic",
            objective=objective,
            max_trials=max_trials,
            oracle_options={**genetic, **(oracle_options or {})},
            **options,
        )


@contextlib.contextmanager
def _quiet():
    """Hides what KerasTuner says about its own use of old names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="keras_tuner")
        yield
