"""A loss or a gradient that is not finite ends a run: no later step would mend the weights."""

from collections.abc import Sequence

from potstill.errors import UserError


class DivergedError(UserError):
    """Training has left the finite numbers.

    Attributes:
        epoch: In which epoch, from 1.
        step: After which step of it, from 1; None where only the epoch is known.
        lr: The learning rate of the step.
        indices: The sentences of its batch, as indices in the dataset.
    """

    def __init__(
        self,
        epoch: int,
        step: int | None = None,
        lr: float | None = None,
        indices: Sequence[int] = (),
    ):
        self.epoch, self.step, self.lr, self.indices = epoch, step, lr, list(indices)
        where = f"epoch {epoch}" + (f", step {step}" if step else "")
        rate = f", at a learning rate of {lr:.3g}" if lr is not None else ""
        super().__init__(f"the loss or its gradient is not finite in {where}{rate}; lower `lr`.")


class NonFiniteError(ArithmeticError):
    """The gradients of a step are not finite; whoever knows the step makes a DivergedError."""
