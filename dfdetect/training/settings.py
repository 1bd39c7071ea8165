"""Settings of a training, from the flags of every training script, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dfdetect.training import optimizers


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        model_dir: Folder of checkpoints, TensorBoard events and the best weights.
        steps: Optimizer steps in all.
        best_metric: Validation figure that decides what is best; with a minus sign
            before it if less is better.
        seed: Seed of the random numbers within the model, such as dropout.
        optimizer: One of `optimizers.RULES`.
        learning_rate: Peak, reached after the warm-up.
        schedule: One of `optimizers.SCHEDULES`, for the time after the warm-up.
        warmup_steps: Steps of linear rise.
        decay_factor: Factor of the schedule "step".
        decay_every: Steps between the decays of the schedule "step".
        momentum: Momentum of the optimizer "sgd".
        weight_decay: Decoupled weight decay of kernels.
        clip_norm: Greatest global norm of the gradient; 0 for no limit.
        ema_decay: Decay of the averaged weights, which are then evaluated and kept; 0
            for no average.
        accumulate: Number of parts of a batch that are computed one after the other.
        loss_scaling: Whether to scale losses so that gradients fit into float16.
        eval_every: Steps between evaluations.
        checkpoint_every: Steps between checkpoints; each evaluation has one as well.
        keep: Number of checkpoints to keep.
        log_every: Steps between log lines and scalars.
        patience: Evaluations without a better one after which to stop; 0 for never.
        histograms: Whether to write histograms of the weights at each evaluation.
        profile_steps: First and last step to profile; empty for none.
        hparams: Settings of the run that TensorBoard shows.

    Raises:
        ValueError: A value is out of its range.
    """

    model_dir: str
    steps: int
    best_metric: str
    seed: int = 0
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 0
    decay_factor: float = 0.1
    decay_every: int = 1000
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    ema_decay: float = 0.0
    accumulate: int = 1
    loss_scaling: bool = False
    eval_every: int = 500
    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 50
    patience: int = 0
    histograms: bool = False
    profile_steps: tuple[int, ...] = ()
    hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "learning_rate",
            "decay_factor",
            "decay_every",
            "accumulate",
            "eval_every",
            "checkpoint_every",
            "keep",
            "log_every",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "clip_norm", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or above, got {vars(self)[name]}.")
        for name in ("ema_decay", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {vars(self)[name]}.")
        for name, known in (
            ("optimizer", optimizers.RULES),
            ("schedule", optimizers.SCHEDULES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}.")
        profiled = self.profile_steps
        if profiled and (len(profiled) != 2 or not 0 < profiled[0] <= profiled[1]):
            raise ValueError(
                f"profile_steps must be a first and a last step, got {profiled}."
            )

    def check_warmup(self) -> None:
        """Refuses a warm-up that does not end before the run; not for one that is done.

        Raises:
            ValueError: It is as long as the run, or longer.
        """
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps must be in [0, {self.steps}), got {self.warmup_steps}."
            )

    def learning_rate_at(self, step: Any) -> Any:
        """Computes the learning rate of a step, 0 the first, a float32 scalar."""
        return optimizers.learning_rate(
            step,
            self.learning_rate,
            self.schedule,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            decay_factor=self.decay_factor,
            decay_every=self.decay_every,
        )
