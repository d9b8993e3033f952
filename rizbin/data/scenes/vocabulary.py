"""The categories of the embedded world, in a fixed order, and which of them (and which pairs) training never sees.

Each entry is an OpenMoji code point and the name we give its drawing: short, lower case, singular, as people say it.
Where OpenMoji has two drawings of one thing (a cat's body, a cat's face) only the one that is clearer at 20 px is here,
so that no drawing has two right names. Left out: drawings without a clear subject, scenes, hands, people, flags, and
boats (OpenMoji draws the water too: a blue rectangle).
"""

import zlib
from itertools import combinations

# Training takes the first N of these. The first 32 were chosen by eye to differ in color and outline at 16 px; after
# them food, animals, plants and vehicles take turns.
_TRAIN = """
1F355 pizza, 1F993 zebra, 1F438 frog, 1F680 rocket, 1F353 strawberry, 1F43C panda, 1F40B whale, 1F34C banana,
1F69C tractor, 1F344 mushroom, 1F98A fox, 1F34D pineapple, 1F427 penguin, 1F695 taxi, 1F346 eggplant, 1F422 turtle,
1F349 watermelon, 1F418 elephant, 1F9A9 flamingo, 1F335 cactus, 1F354 hamburger, 1F41D bee, 1F68D bus, 1F419 octopus,
1F955 carrot, 1F437 pig, 1F369 doughnut, 1F99C parrot, 1F681 helicopter, 1F951 avocado, 1F98B butterfly, 1F42F tiger,
1F34E apple, 1F42E cow, 1F692 fire engine, 1F33D corn cob, 1F994 hedgehog, 1F368 sundae, 1F40A crocodile, 1F699 jeep,
1F332 pine tree, 1F436 dog, 1F347 bunch of grapes, 1F992 giraffe, 1F694 police car, 1F370 cake, 1F988 shark,
1F33B sunflower, 1F32D hot dog, 1F9A2 swan, 1F6A6 traffic light, 1F36A cookie, 1F99B hippo, 1F35F box of fries,
1F986 duck, 1F684 bullet train, 1F33A hibiscus, 1F431 cat, 1F96D mango, 1F987 bat, 1F682 locomotive, 1F36D lollipop,
1F40D snake, 1F952 cucumber, 1F413 rooster, 1F6AA door, 1F32E taco, 1F434 horse, 1F334 palm tree, 1F41F fish,
1F37A beer mug, 1F998 kangaroo, 1F697 car, 1F351 peach, 1F435 monkey, 1F377 wine glass, 1F982 scorpion,
1F359 rice ball, 1F9A5 sloth, 1F339 rose, 1F43B bear, 1F36F honey pot, 1F42B camel, 1F68A tram, 1F330 chestnut,
1F409 dragon, 1F37F box of popcorn, 1F98C deer, 1F9AA oyster, 1F43A wolf, 1F68E trolleybus, 1F36B chocolate bar,
1F425 chick, 1F96F bagel, 1F99A peacock, 1F340 clover, 1F34B lemon, 1F98D gorilla, 1F6A0 cable car, 1F411 sheep,
1F37C baby bottle, 1F41B caterpillar, 1F336 chili pepper, 1F9A8 skunk, 1F69B truck, 1F361 dango, 1F42C dolphin,
1F333 leafy tree, 1F964 paper cup, 1F99D raccoon, 1F690 van, 1F95E stack of pancakes, 1F983 turkey, 1F36C candy,
1F98F rhino, 1F6A7 barrier, 1F34A tangerine, 1F420 angelfish, 1F68F bus stop, 1F373 frying pan, 1F997 grasshopper,
1F965 coconut, 1F9A7 orangutan, 1F99E lobster, 1F957 salad, 1F410 goat, 1F69D monorail, 1F969 steak, 1F985 eagle,
1F36E pudding, 1F421 pufferfish, 1F32F burrito, 1F406 leopard, 1F378 cocktail, 1F98E lizard,
1F95C peanut, 1F995 brontosaurus, 1F35E loaf of bread, 1F417 boar, 1F439 hamster, 1F37E champagne bottle,
1F990 shrimp, 1F961 takeout box, 1F999 llama, 1F991 squid, 1F357 chicken leg, 1F42D mouse, 1F967 pie, 1F403 buffalo,
1F96B tin can, 1F9A6 otter, 1F371 lunch box, 1F9A4 dodo, 1F956 baguette, 1F41A seashell, 1F95F dumpling,
1F9A3 mammoth, 1F954 potato, 1F996 t-rex, 1F35C noodle bowl, 1F9AD seal, 1F96C cabbage, 1F99F mosquito, 1F40F ram,
1F375 teacup, 1F9A1 badger, 1F9AC bison, 1F9AB beaver, 1F41C ant, 1F429 poodle, 1F35A bowl of rice,
1F360 sweet potato
"""

# Never in training, whatever N is; as clear as the first 32.
_HELD_OUT = """
1F981 lion, 1F350 pear, 1F691 ambulance, 1F989 owl, 1F352 cherry, 1F984 unicorn, 1F968 pretzel, 1F40C snail,
1F6A8 siren, 1F337 tulip, 1F980 crab, 1F345 tomato, 1F341 maple leaf, 1F430 rabbit, 1F950 croissant, 1F41E ladybug,
1F43F squirrel, 1F95A egg, 1F96A sandwich, 1F366 ice cream cone, 1F428 koala, 1F95D kiwi fruit, 1F426 sparrow,
1F95B glass of milk
"""

# Never asked about in any split, so nothing that is measured names them and nothing held out is seen by showing them:
# tools, clothes, furniture and the like, where the categories are food, animals, plants and vehicles.
_DISTRACTORS = """
1F511 key, 1F528 hammer, 1F3B8 guitar, 1F4A1 light bulb, 1F4F7 camera, 1F3A9 top hat, 1F45F sneaker, 1F9E2 cap,
1F4DA books, 1F3C6 trophy, 26BD soccer ball, 1F3C0 basketball, 1F3B7 saxophone, 1F3BA trumpet, 1F3BB violin, 1F941 drum,
231A watch, 23F0 alarm clock, 1F4BC briefcase, 1F392 backpack, 1F45C handbag, 1F455 t-shirt, 1F456 jeans, 1F457 dress,
1F9E6 socks, 1F9E4 gloves, 1F9E3 scarf, 1F453 glasses, 1F484 lipstick, 1F48E gem, 1F514 bell, 1F50B battery,
1F50D magnifier, 1F56F candle, 1F6CB couch, 1FA91 chair, 1F6BD toilet, 1F6C1 bathtub, 1F381 gift, 1F388 balloon,
1F3B2 die, 1F9F2 magnet, 2702 scissors, 1F4CE paperclip, 1F4CC pushpin, 1F9F9 broom, 1F9FA basket, 1FAA3 bucket,
1FAA5 toothbrush, 1F6D2 shopping cart, 1F4FA television, 1F4BB laptop, 260E telephone, 1F4E6 package, 1F52D telescope,
1F52C microscope, 1F9ED compass, 2693 anchor
"""


def _parse(table: str) -> dict[str, str]:
    rows = (row.split(maxsplit=1) for row in table.replace("\n", " ").split(",") if row.strip())
    return {name.strip(): code for code, name in rows}


CODES: dict[str, str] = _parse(_TRAIN) | _parse(_HELD_OUT)
"""Name to OpenMoji file name without ending."""

CATEGORIES: tuple[str, ...] = tuple(_parse(_TRAIN))
"""The names that training may show, in the order in which `categories=N` takes them."""

HELD_OUT: tuple[str, ...] = tuple(_parse(_HELD_OUT))
"""The names of `split="heldout"`, never in training."""

DISTRACTORS: dict[str, str] = _parse(_DISTRACTORS)
"""Name to OpenMoji file name of what may stand in a scene without being named."""

FEWEST_FOR_PAIRS = 8
"""Fewer categories than this and no pair is held out: too little would be left to see together."""


def is_held_out_pair(first: str, second: str) -> bool:
    """Whether training never shows these two together: a tenth of all pairs, fixed by the two names alone."""
    low, high = sorted((first, second))
    return zlib.crc32(f"{low}\n{high}".encode()) % 10 == 0


def held_out_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The held-out pairs among `names`, as positions; none when there are fewer than `FEWEST_FOR_PAIRS` names."""
    if len(names) < FEWEST_FOR_PAIRS:
        return ()
    pairs = combinations(range(len(names)), 2)
    return tuple((i, j) for i, j in pairs if is_held_out_pair(names[i], names[j]))
