"""Names of classes, as the data sets list them, in the order of their numbers; words that were written together apart.

Facts of the data sets: PASCAL VOC 2012; PASCAL-Context (59 of its 459 classes); COCO-Stuff 164k; ADE20K
(SceneParse150); Cityscapes (training ids); and the relations that ARO's evaluation leaves out.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


VOC = _names(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, motorbike, person, "
    "potted plant, sheep, sofa, train, tv monitor"
)
"""20, numbered from 1; 0 is background."""
CONTEXT = _names(
    "aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, car, cat, "
    "ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, ground, "
    "horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, potted plant, road, rock, sheep, "
    "shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tv monitor, wall, water, window, "
    "wood"
)
"""59, numbered from 1 in alphabetical order, as the files converted for mmseg are; 0 is background."""
COCO = _names(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
"""80, numbered from 0."""
STUFF = _names(
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, "
    "ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, "
    "floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, "
    "furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, "
    "mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, "
    "railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, "
    "stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, "
    "wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, "
    "window-other, wood"
)
"""91, numbered from 80 behind those of COCO."""
ADE20K = _names(
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, "
    "toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, "
    "arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
    "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, "
    "poster, stage, van, ship, fountain, conveyor belt, canopy, washer, plaything, swimming pool, stool, barrel, "
    "basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, "
    "animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, "
    "fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
)
"""150, numbered from 1; 0 is everything else."""
CITYSCAPES = _names(
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle"
)
"""19, by training id from 0; 255 is everything else."""
BACKGROUND = _names(
    "sky, wall, tree, wood, grass, road, sea, river, mountain, sands, desk, bed, building, cloud, lamp, door, "
    "window, wardrobe, ceiling, shelf, curtain, stair, floor, hill, rail, fence"
)
"""What stands for background where it is a class: scenery that is none of the objects (arXiv 2312.01597)."""
SYMMETRIC_RELATIONS = _names(
    "adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning, climbing, "
    "close to, coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, "
    "driving, driving down, driving on, eating from, eating in, enclosing, exiting, facing, filled with, "
    "floating in, floating on, flying, flying above, flying in, flying over, flying through, full of, going down, "
    "going into, going through, grazing in, growing in, growing on, guiding, hanging from, hanging in, hanging off, "
    "hanging over, higher than, holding onto, hugging, in between, jumping off, jumping on, jumping over, kept in, "
    "larger than, leading, leaning over, leaving, licking, longer than, looking in, looking into, looking out, "
    "looking over, looking through, lying next to, lying on top of, making, mixed with, mounted on, moving, "
    "on the back of, on the edge of, on the front of, on the other side of, opening, painted on, parked at, "
    "parked beside, parked by, parked in, parked in front of, parked near, parked next to, perched on, petting, "
    "piled on, playing, playing in, playing on, playing with, pouring, reaching for, reading, reflected on, "
    "riding on, running in, running on, running through, seen through, sitting behind, sitting beside, sitting by, "
    "sitting in front of, sitting near, sitting next to, sitting under, skiing down, skiing on, sleeping in, "
    "sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on, standing against, standing around, "
    "standing behind, standing beside, standing in front of, standing near, standing next to, staring at, stuck in, "
    "surrounding, swimming in, swinging, talking to, topped with, touching, traveling down, traveling on, tying, "
    "typing on, underneath, wading in, waiting for, walking across, walking by, walking down, walking next to, "
    "walking through, working in, working on, worn on, wrapped around, wrapped in, by, of, near, next to, with, "
    "beside, on the side of, around"
)
"""Relations that ARO's evaluation leaves out: their sides may change places, or they are rare."""
