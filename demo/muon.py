"""Muon in float32: momentum, orthogonalised by Newton-Schulz iterations (Jordan et al., 2024).

PyTorch's own `torch.optim.Muon` iterates in bfloat16, which a CPU without bf16 instructions emulates: 50 times slower.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices only. `lr` is scaled by sqrt(max(1, rows / columns)), as in the reference implementation."""

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(matrix)
                velocity = state["velocity"]
                velocity.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(torch.lerp(matrix.grad, velocity, group["momentum"]))  # Nesterov
                rows, columns = matrix.shape
                matrix.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Near to the nearest orthogonal matrix: singular values between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.T if tall else x
    return result
