"""NAS-GA on CIFAR-10: a genetic algorithm evolves AlexNet-like networks, generation by generation.

    python examples/cifar10_genetic.py --output evolved              # 25 generations of 50, five epochs each
    python examples/cifar10_genetic.py --output evolved --resume     # goes on after a kill
    python examples/cifar10_genetic.py --output evolved --smoke      # a minute or two, on digits

The genome: filters and kernel of every convolution, units of the dense layers, dropout and learning rate. The best
of a generation pass to the next one, the others are children of parents that won a tournament. No genome is trained
twice. In the output folder: `search/stats/<genome>/<epoch>.json`, `search/architectures/<genome>.py`,
`search/trials.csv`, `search/lineage.jsonl`, and the best network as `search/champion.py` with its weights.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np
from _images import load

import ensemble_keras as ek


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="cifar10, digits or an .npz file (default: cifar10; with --smoke digits)")
    parser.add_argument("--output", default="evolved", help="folder for the search (default: %(default)s)")
    parser.add_argument("--population", type=int, help="networks of a generation (default: 50)")
    parser.add_argument("--generations", type=int, help="default: 25")
    parser.add_argument("--epochs", type=int, help="epochs of a network (default: 5)")
    parser.add_argument("--smoke", action="store_true", help="small: 4 networks, 2 generations, 1 epoch, digits")
    parser.add_argument("--resume", action="store_true", help="go on with the search in --output")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data, population, generations, epochs = ("digits", 4, 2, 1) if options.smoke else ("cifar10", 50, 25, 5)
    population, generations = options.population or population, options.generations or generations
    output = pathlib.Path(options.output)
    if (output / "search").exists() and not options.resume:
        parser.error(f"{output} holds a search: --resume goes on with it, another --output begins a new one.")
    start = time.perf_counter()

    (x, y), (x_test, y_test) = load(options.data or data)
    tuner = ek.search.GeneticSearch(
        ek.search.HyperImageClassifier(len(np.unique(y)), x.shape[1:], families=["alexnet"]),
        # The best network of a generation stays on in the next one.
        max_trials=population + (generations - 1) * (population - 1),
        population_size=population,
        mode="generational",
        seed=options.seed,
        directory=output,
        project_name="search",
    )
    tuner.search(x, y, epochs=options.epochs or epochs)

    trials = tuner.leaderboard().sort_values("trial", ignore_index=True)
    done = trials[trials["status"] == "COMPLETED"]
    generation = 1 + np.maximum(0, (np.arange(len(done)) - 1) // (population - 1))
    print(done.groupby(generation)["score"].agg(["max", "mean"]).rename_axis("generation").round(4).to_string())
    draw(trials, output)
    champion = tuner.get_best_models()[0]
    accuracy = np.mean(champion.predict(x_test, batch_size=256, verbose=0).argmax(axis=1) == y_test)
    best = tuner.leaderboard().iloc[0]
    print(
        f"The champion, trial {best['trial']}: accuracy {best['val_accuracy']:.4f} on the images that chose it, "
        f"{accuracy:.4f} on {len(y_test):,} test images; {best['parameters']:,} parameters, {best['macs']:,} MACs.\n"
        f"It is in {output / 'search' / 'champion.py'}, and needs nothing but Keras."
    )
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    return accuracy


def draw(trials, output):
    """Draws progress and lineage."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    ek.plot_search_progress(trials, ax=axes[0])
    ek.plot_lineage(trials, ax=axes[1])
    figure.savefig(output / "search.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
