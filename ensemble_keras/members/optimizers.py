"""Optimizers: a Keras optimizer as the settings ask for it, with its schedule and a rate for each layer."""

import keras

# Keras' own default is plain gradient descent, which nobody trains a network with.
_OPTIONS = {"sgd": {"momentum": 0.9, "nesterov": True}}


def build_optimizer(settings, variables, *, steps_per_epoch, rates=None):
    """Returns an optimizer, built for variables.

    Args:
        settings: A `Training` or `FineTuning`.
        variables: List of the variables that train.
        steps_per_epoch: Int, by which the learning rate rises and falls; `None`: it stays as it is.
        rates: Dict from a variable's `id` to the factor of its learning rate; 1 for those not in it.

    Returns:
        A `keras.optimizers.Optimizer`.
    """
    if isinstance(settings.optimizer, keras.optimizers.Optimizer):
        cls, config = type(settings.optimizer), settings.optimizer.get_config()
    else:
        cls, config = type(keras.optimizers.get(settings.optimizer)), _config(settings, steps_per_epoch)
    factors = [(rates or {}).get(id(variable), 1.0) for variable in variables]
    optimizer = (_with_rates(cls, factors) if set(factors) - {1.0} else cls).from_config(config)
    # Decay would pull scales and shifts to 0, which regularises nothing.
    without_decay = [v for v in variables if len(v.shape) < 2]
    if optimizer.weight_decay and without_decay:
        optimizer.exclude_from_weight_decay(var_list=without_decay)
    optimizer.build(variables)
    return optimizer


def _config(settings, steps_per_epoch):
    ema = settings.ema_momentum
    return {
        "learning_rate": _schedule(settings, steps_per_epoch),
        "weight_decay": settings.weight_decay,
        "global_clipnorm": settings.global_clipnorm,
        **({"use_ema": True, "ema_momentum": ema} if ema is not None else {}),
        **_OPTIONS.get(settings.optimizer, {}),
    }


def _schedule(settings, steps_per_epoch):
    """Linear warm-up, then half a cosine down to 0 at the last step."""
    if steps_per_epoch is None:
        return settings.learning_rate
    steps, warmup = settings.epochs * steps_per_epoch, round(settings.warmup_epochs * steps_per_epoch)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=settings.learning_rate, warmup_steps=warmup
    )


def _with_rates(cls, factors):
    """Returns a class of optimizers that multiply the learning rate of each variable by a factor.

    Keras has one rate for all. Scaling the gradients instead would change nothing under Adam.
    """

    class WithRates(cls):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate * self._factor(variable))

        def _apply_weight_decay(self, variables):
            # Decay goes by the learning rate, which Keras reads anew here.
            decay = self.weight_decay
            for variable in variables if decay else ():
                self.weight_decay = decay * self._factor(variable)
                super()._apply_weight_decay([variable])
            self.weight_decay = decay

        def _factor(self, variable):
            return factors[self._get_variable_index(variable)]

    WithRates.__name__ = cls.__name__
    return WithRates
