"""A training on the screen, while it goes."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.night import Night
from student.recipe import Progress, Step

LINES = 10
"""So many lines a training leaves where there is no terminal to draw a bar on."""


@contextmanager
def shown(night: Night, what: str) -> Iterator[Progress]:
    """A bar with loss, learning rate and tokens a second; a line now and then where the screen is no terminal."""
    screen, done = night.screen, 0
    with screen.bar(what, None) as advance:

        def progress(step: Step) -> None:
            nonlocal done
            said = f"loss {step.loss:.3f}, rate {step.learning_rate:.1g}, {step.tokens_per_second:,.0f} tokens/s"
            drawn = screen.console.is_terminal
            advance(step.step - done, said if drawn else "", step.steps)
            if not drawn and step.step * LINES // step.steps > done * LINES // step.steps:
                screen.say(f"  step {step.step:,} of {step.steps:,}: {said}")
            done = step.step

        yield progress
