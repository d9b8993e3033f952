"""The order in which a finite source is read: a new permutation each epoch, computed and never stored."""

_ROUNDS = 6
_MASK = 2**64 - 1


def index_at(seed: int, position: int, length: int) -> int:
    """The index, 0 to length - 1, that comes at `position` of the endless reading of a source of `length` samples.

    Positions 0 to length - 1 are the first epoch: every index once, in an order that `seed` decides; then comes the
    next epoch in another order. Constant time and no memory: a Feistel network permutes the smallest even number of
    bits that holds `length`, and is applied again while it falls outside (cycle walking; Black and Rogaway, Ciphers
    with Arbitrary Finite Domains, 2002).
    """
    if length < 1:
        raise ValueError("an empty source has no order")
    epoch, index = divmod(position, length)
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    key = _mix(_mix(seed & _MASK) ^ epoch)
    keys = [_mix(key + number) for number in range(_ROUNDS)]
    while True:
        index = _permute(index, half, keys)
        if index < length:
            return index


def positions_of(step: int, batch: int, rank: int, world: int) -> range:
    """The positions that process `rank` of `world` reads in a step: its contiguous slice of step * batch and on.

    The slices of all processes are the step's positions in order, however many processes there are; so a run that goes
    on with another number of them loses no sample and repeats none. Raises ValueError where they cannot share evenly.
    """
    if batch < 1 or world < 1 or batch % world or not 0 <= rank < world:
        raise ValueError(f"process {rank} of {world} has no even share of a batch of {batch}")
    share = batch // world
    first = step * batch + rank * share
    return range(first, first + share)


def _permute(value: int, half: int, keys: list[int]) -> int:
    """A permutation of 0 to 4**half - 1."""
    low_bits = (1 << half) - 1
    left, right = value >> half, value & low_bits
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & low_bits)
    return left << half | right


def _mix(value: int) -> int:
    """64 well-mixed bits of 64 bits (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
