"""What is wrong with an encoder that trains without labels, in words; from the numbers of `collapse.py`."""

from rizbin.evaluate.collapse import Health

LEAST_STD = 0.25
"""Healthy projections of every method measured stood at 0.4 and more at the end, collapsing ones at 0.2 and less
(docs/studies.md)."""
LEAST_RANK = 3.0
"""Fewer directions than this cannot tell a handful of categories apart, whatever the size of the projection."""


def collapse_alarms(projection: Health) -> tuple[str, ...]:
    """Sentences about projections of a trained encoder; none when they are healthy.

    Before the first some hundred updates every network looks collapsed (a random one has a standard deviation of 0.01),
    so ask only after the warm-up.
    """
    if projection.std < LEAST_STD:
        return (
            f"The projections are nearly constant ({projection.text()}): the encoder has collapsed or is about to. "
            "Turn on what keeps pictures apart (negatives; predictor and stop-gradient; centering and sharpening), or "
            "lower the learning rate.",
        )
    if projection.rank < LEAST_RANK:
        return (
            f"The projections lie in very few directions ({projection.text()}): all but those are lost. Lower the "
            "learning rate, strengthen the augmentations or enlarge the batch.",
        )
    return ()
