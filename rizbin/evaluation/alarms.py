"""Warnings about encoders that are trained without labels, from the numbers of `collapse.py`."""

from rizbin.evaluation.collapse import Health

LEAST_STD = 0.25
"""Healthy projections of every method measured stood at 0.4 and more at the end, collapsing ones at 0.2 and less
(docs/studies.md)."""
LEAST_RANK = 6.0
"""At the end healthy projections lay in 7.1 directions and more (DINO's; all others in 11 and more), those of SimCLR
without negatives, whose batch norm keeps them spread, in 4.3 to 6.4; other collapses in fewer (docs/studies.md)."""


def collapse_alarms(projection: Health) -> tuple[str, ...]:
    """Sentences about projections of a trained encoder; none when they are healthy.

    Before the first some hundred updates every network looks collapsed (a random one has a standard deviation of 0.01),
    so ask only after the warm-up.
    """
    if projection.std < LEAST_STD:
        return (
            f"The projections are nearly constant ({projection.text()}): the encoder has collapsed or is about to. "
            "Turn on what keeps images apart (negatives; predictor and stop-gradient; centering and sharpening), or "
            "lower the learning rate.",
        )
    if projection.rank < LEAST_RANK:
        return (
            f"The projections lie in very few directions ({projection.text()}): all but those are lost, unless "
            "there are no more kinds of images. Turn on what keeps images apart (negatives; predictor and "
            "stop-gradient; a slow teacher), or lower the learning rate.",
        )
    return ()
