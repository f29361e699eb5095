"""Budget: what an ensemble may cost for each image, and which members are joined where not all fit."""

import dataclasses
import math
import numbers

import numpy as np

from ensemble_keras.combiners.selection import fits, select_members
from ensemble_keras.measures.cost import measure_latencies
from ensemble_keras.measures.macs import count_macs

# Limit -> what it is a number of.
UNITS = {"max_macs": "multiply-accumulates", "max_parameters": "parameters", "max_latency_ms": "ms"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What members cost, and what those that are joined may cost together, for one image.

    The cost of several members is the sum of theirs. So it is with multiply-accumulates and parameters; one model of
    several members takes less time than they take one after another.

    Attributes:
        limits: Dict from `"max_macs"`, `"max_parameters"` or `"max_latency_ms"` to a number, at least one of them.
        costs: Dict from a member's name to its costs, floats in the order of `limits`.
        own: Such costs of the combiner itself. Defaults to nothing.
    """

    limits: dict
    costs: dict
    own: tuple = ()

    def fits(self, names):
        """Returns whether members are within the limits together."""
        return bool(fits(self._total(names), self._limits))

    def fits_any(self):
        """Returns whether a member is within the limits alone."""
        return any(self.fits([name]) for name in self.costs)

    def check(self):
        """Raises `ValueError` if no member is within the limits alone; it names the cheapest and what it costs."""
        if not self.fits_any():
            cheapest = min(self.costs, key=lambda name: np.max(self._total([name]) / self._limits))
            limits = " and ".join(f"`{name}` of {limit:,.12g}" for name, limit in self.limits.items())
            raise ValueError(
                f"Not one member is within {limits}. The cheapest is {cheapest!r} with {self.text([cheapest])}. "
                "Raise the limit, or add a smaller backbone."
            )

    def text(self, names):
        """Returns what members, joined, cost together: `"12,345 multiply-accumulates, 3.1 ms"`."""
        return ", ".join(
            f"{total:.1f} ms" if limit == "max_latency_ms" else f"{total:,.0f} {UNITS[limit]}"
            for limit, total in zip(self.limits, self._total(names), strict=True)
        )

    def column(self, limit):
        """Returns what each member costs by one limit, a dict by name; `None` where it is not limited."""
        if limit not in self.limits:
            return None
        place = list(self.limits).index(limit)
        return {name: costs[place] for name, costs in self.costs.items()}

    def sentence(self, cost):
        """Returns what an ensemble costs (a `text`), beside the limits, and which members were too costly."""
        limits = " and ".join(f"{limit:,.12g} {UNITS[name]}" for name, limit in self.limits.items())
        left = [name for name in self.costs if not self.fits([name])]
        too_costly = f" Too costly: {', '.join(left)}." if left else ""
        return f"It costs {cost} of at most {limits}.{too_costly}"

    def select(self, names, predictions, y, *, sample_weight=None):
        """Returns those members that are joined: all if they fit together, else a greedy selection.

        Args:
            names: List of names.
            predictions: `(n, members, num_classes)`, out-of-fold, of these members.
            y: Int array `(n,)`.
            sample_weight: Array `(n,)` or `None`.

        Returns:
            Int array of places in `names`.
        """
        if self.fits(names):
            return np.arange(len(names))
        costs = np.array([self.costs[name] for name in names])
        left = self._limits - self._total([])
        return np.flatnonzero(select_members(predictions, y, costs=costs, max_cost=left, sample_weight=sample_weight))

    @property
    def _limits(self):
        return np.array(list(self.limits.values()), "float64")

    def _total(self, names):
        own = self.own or np.zeros(len(self.limits))
        return np.sum([own, *(self.costs[name] for name in names)], axis=0)


def check_limits(**limits):
    """Returns the limits that are given, not `None`, or raises `ValueError` unless each is a number above 0."""
    given = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in given.items():
        if isinstance(limit, bool) or not isinstance(limit, numbers.Real) or not 0 < limit < math.inf:
            raise ValueError(f"`{name}` must be a number above 0, or None. Received: {limit!r}.")
    return given


def measure(members, limits, *, copies=None, views=1):
    """Measures what members cost for one image, as far as limits ask for it.

    Args:
        members: Dict from name to `keras.Model`; the weights do not matter.
        limits: Dict, from `check_limits`.
        copies: Dict from a member's name to how many networks of its kind it is the average of. Defaults to 1 each.
        views: Int. Views of each image that members see.

    Returns:
        A `Budget`.

    Raises:
        ValueError: If multiply-accumulates are limited and those of a layer are not known.
    """
    columns = {}
    if "max_macs" in limits:
        columns["max_macs"] = [views * _known_macs(name, member) for name, member in members.items()]
    if "max_parameters" in limits:
        columns["max_parameters"] = [member.count_params() for member in members.values()]
    if "max_latency_ms" in limits:
        columns["max_latency_ms"] = [views * ms for ms in measure_latencies(list(members.values()))]
    rows = zip(*(columns[limit] for limit in limits), strict=True)
    costs = {name: [(copies or {}).get(name, 1) * c for c in row] for name, row in zip(members, rows, strict=True)}
    return Budget(limits, costs)


def with_own_cost(budget, name, cost, *, views=1):
    """Returns a budget that counts what a combiner costs itself.

    Args:
        budget: A `Budget`.
        name: String, the combiner's name.
        cost: What `own_cost` gives.
        views: Int, as in `measure`.

    Raises:
        ValueError: If multiply-accumulates are limited and those of one of its layers are not known.
    """
    macs, parameters, unknown = cost
    if "max_macs" in budget.limits:
        _check_known(name, unknown)
    own = {"max_macs": views * macs, "max_parameters": parameters, "max_latency_ms": 0}
    return dataclasses.replace(budget, own=tuple(own[limit] for limit in budget.limits))


def _known_macs(name, member):
    count = count_macs(member)
    _check_known(name, count.unknown)
    return count.total


def _check_known(name, unknown):
    if unknown:
        raise ValueError(
            f"`max_macs` needs layers whose multiply-accumulates are known. Received: {name!r}, with layers of which "
            f"they are not: {', '.join(unknown[:5])}. Take `max_parameters` or `max_latency_ms`."
        )


class Selection:
    """The members that a combiner joins within a budget: selected once for each set of members and each fold.

    Args:
        budget: A `Budget`.
        names: List of the members' names.
        predictions: `(n, members, num_classes)`, out-of-fold.
        y: Int array `(n,)`.
        folds: Int array `(n,)`: what is judged on a fold is selected on the others.
        class_weight: List of `num_classes` floats or `None`.
    """

    def __init__(self, budget, names, predictions, y, folds, *, class_weight=None):
        self._budget, self._names, self._predictions, self._y, self._folds = budget, names, predictions, y, folds
        self._weights = None if class_weight is None else np.asarray(class_weight)[y]
        self._found = {}

    def fits(self, members):
        """Returns whether members, a list of places, are within the budget together."""
        return self._budget.fits([self._names[i] for i in members])

    def of(self, members, *, without=None):
        """Returns those of some members that are joined, a list of places, selected on the rows outside of a fold."""
        key = tuple(members), without
        if key not in self._found:
            rows = slice(None) if without is None else self._folds != without
            found = self._budget.select(
                [self._names[i] for i in members],
                self._predictions[rows][:, members],
                self._y[rows],
                sample_weight=None if self._weights is None else self._weights[rows],
            )
            self._found[key] = [members[i] for i in found]
        return self._found[key]
