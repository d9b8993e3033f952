"""DetailCLIP's own: its preset, its terms, its switches."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.resolution import lowered
from rizbin.losses.contrast import clip_loss
from rizbin.losses.phrases import phrase_contrast, phrase_keys, text_weighted_similarity
from rizbin.methods.detailclip import DetailCLIP
from rizbin.nets.selection import block_scores, select
from rizbin.training.method import Progress
from rizbin.workflows.presets import preset
from tests.toys import batch_for, build, tiny


def test_the_paper_preset_has_the_papers_numbers() -> None:
    training = preset("detailclip", "paper")
    settings = training.settings
    assert (settings.keep_ratio, settings.block, settings.selection) == (0.5, 2, "attention")
    assert settings.cls_weight == settings.patch_weight == 1.0
    assert settings.reconstruction_weight == settings.contrast_weight == 1.0
    assert (settings.prototypes, settings.head_hidden, settings.head_bottleneck) == (8192, 2048, 256)
    assert (settings.decoder_width, settings.decoder_blocks, settings.decoder_heads) == (768, 1, 16)
    assert (settings.student_temperature, settings.teacher_temperature, settings.patch_temperature) == (0.1, 0.04, 0.07)
    assert (settings.momentum, settings.final_momentum) == (0.996, 1.0)
    assert settings.view.flip == 0.0 and settings.view.crop_area == (0.14, 1.0)
    assert settings.pair.pool == "cls" and settings.pair.vision.freeze_patch_embedding and settings.pair.text.quick_gelu
    assert (training.batch, training.trainer.learning_rate, training.trainer.weight_decay) == (4096, 5e-4, 0.5)


def test_a_step_equals_the_papers_sum_written_out() -> None:
    """Every term computed again from the parts, one picture and one token at a time, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        method = build("detailclip").double().eval()
        assert isinstance(method, DetailCLIP)
        assert method.teacher is not None and method.head is not None
        assert method.decoder is not None and method.to_pixels is not None
        with torch.no_grad():  # a teacher that differs from its student, centers that are not zero
            for parameter in method.teacher.parameters():
                parameter.mul_(1.1)
            method.cls_center.value.uniform_(-0.1, 0.1)
            method.patch_center.value.uniform_(-0.1, 0.1)
        settings, pair = method.settings, method.pair
        batch, progress = batch_for(method), Progress(5, 10)
        batch = replace(batch, views=[view.double() for view in batch.views])
        assert batch.texts is not None
        cls_center, patch_center = method.cls_center.value.clone(), method.patch_center.value.clone()
        wish = next(iter(method.step(batch, progress)))

        contrast = cls = patch = pixels = torch.zeros(())
        count = len(batch.views[0])
        texts = pair.encode_texts(batch.texts)
        vision, head = method.teacher["vision"], method.teacher["head"]
        told_cls: list[list[torch.Tensor]] = [[], []]
        said_cls: list[list[torch.Tensor]] = [[], []]
        for which, view in enumerate(batch.views[:2]):
            embeddings = []
            for image in view:
                whole = vision(image[None], attend=True)
                keep, removed = select(whole.attention, pair.grid, keep_ratio=settings.keep_ratio, block=settings.block)
                seen = pair.vision(image[None], keep)
                embeddings.append(F.normalize(pair.image_projection(seen.patches.mean(1)), dim=-1))
                told_cls[which].append(((head(whole.cls) - cls_center) / settings.teacher_temperature).softmax(-1))
                said_cls[which].append((method.head(seen.cls) / settings.student_temperature).log_softmax(-1))
                everywhere = method.decoder(seen.cls, seen.patches, keep, pair.grid)
                for place in removed[0].tolist():
                    target = ((head(whole.patches[:, place]) - patch_center) / settings.patch_temperature).softmax(-1)
                    guess = (method.head(everywhere[:, place]) / settings.student_temperature).log_softmax(-1)
                    patch = patch - (target * guess).sum() / (2 * count * removed.shape[1])
                    row, column = place // pair.grid[1] * pair.patch_size, place % pair.grid[1] * pair.patch_size
                    square = image[:, row : row + pair.patch_size, column : column + pair.patch_size]
                    truth = square.permute(1, 2, 0).flatten()
                    truth = (truth - truth.mean()) / (truth.var() + 1e-6).sqrt()
                    painted = method.to_pixels(everywhere[0, place])
                    pixels = pixels + ((painted - truth) ** 2).mean() / (2 * count * removed.shape[1])
            contrast = contrast + clip_loss(torch.cat(embeddings), texts, pair.scale) / 2
        for teacher, student in ((0, 1), (1, 0)):
            agreed = [t * s for t, s in zip(told_cls[teacher], said_cls[student], strict=True)]
            cls = cls - torch.cat(agreed).sum() / (2 * count)
        expected = {"contrast": contrast, "cls": cls, "patch": patch, "pixels": pixels}
        for name, value in expected.items():
            got = wish.records[name]
            assert isinstance(got, torch.Tensor) and isinstance(value, torch.Tensor)
            assert abs(got.item() - value.item()) < 1e-9, name
        assert abs(wish.loss.item() - sum(value.item() for value in expected.values())) < 1e-8
    finally:
        torch.set_default_dtype(torch.float32)


def test_each_technique_is_turned_off_by_one_flag() -> None:
    def records(**changes: object) -> set[str]:
        method = build("detailclip", changes)
        return set(next(iter(method.step(batch_for(method), Progress(5, 10)))).records) - {"scale"}

    assert records() == {"contrast", "cls", "patch", "pixels"}
    assert records(distillation=False) == {"contrast", "pixels"}
    assert records(reconstruction=False) == {"contrast", "cls", "patch"}
    assert records(selection="none") == {"contrast", "cls"}
    assert records(visible_weight=1.0) == {"contrast", "cls", "patch", "pixels", "visible"}
    assert records(late_start=0.9) == {"contrast"}


def test_the_clean_view_alone_is_seen_before_a_late_start() -> None:
    """A step then costs what CLIP's costs: one pass, no teacher."""
    method = build("detailclip", {"late_start": 0.9, "contrast_view": "clean", "patches_contrast_weight": 1.0})
    assert isinstance(method, DetailCLIP) and method.teacher is not None
    method.teacher["vision"].forward = lambda *_, **__: pytest.fail("the teacher ran")
    passes: list[int] = []
    method.pair.vision.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    batch = batch_for(method)
    assert batch.texts is not None
    wish = next(iter(method.step(batch, Progress(0, 10))))
    assert passes == [len(batch.views[2])]
    assert set(wish.records) == {"contrast", "patches_contrast", "scale"}
    expected = clip_loss(
        method.pair.encode_images(batch.views[2]), method.pair.encode_texts(batch.texts), method.pair.scale
    )
    assert torch.allclose(torch.as_tensor(wish.records["contrast"]), expected)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_fit_of_patches_equals_the_formula(dtype: torch.dtype, close: float) -> None:
    patches = F.normalize(torch.randn(3, 5, 4, dtype=torch.float64), dim=-1)
    texts = F.normalize(torch.randn(2, 4, dtype=torch.float64), dim=-1)
    found = text_weighted_similarity(patches.to(dtype), texts.to(dtype), 0.1)
    for i, picture in enumerate(patches):
        for j, text in enumerate(texts):
            cosines = [float(patch @ text) for patch in picture]
            weights = [math.exp(cosine / 0.1) for cosine in cosines]
            slow = sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights)
            assert abs(float(found[i, j]) - slow) < close
            assert abs(float(text_weighted_similarity(-patches.to(dtype), texts.to(dtype), 0.1)[i, j]) - slow) > 1e-3, (
                "a wrong sign"
            )


def test_patches_pooled_by_text_listen_to_what_fits() -> None:
    """One patch that says the caption among many that do not: the mean drowns it, the weights do not."""
    text = F.normalize(torch.randn(1, 16), dim=-1)
    others = F.normalize(torch.randn(1, 63, 16), dim=-1)
    patches = torch.cat([text[:, None], others], dim=1)
    assert float(text_weighted_similarity(patches, text, 0.1).squeeze()) > 0.7
    assert float(text_weighted_similarity(patches, text, 100.0).squeeze()) < 0.3


@pytest.mark.parametrize("pool", ["mean", "text"])
def test_the_patches_term_is_the_mean_of_both_views(pool: str) -> None:
    method = build("detailclip", {"patches_contrast_weight": 1.0, "patches_pool": pool, "selection": "none"})
    assert isinstance(method, DetailCLIP)
    batch = batch_for(method)
    assert batch.texts is not None
    got = next(iter(method.eval().step(batch, Progress(5, 10)))).records["patches_contrast"]
    pair, texts = method.pair, method.pair.encode_texts(batch.texts)
    expected = torch.zeros(())
    for view in batch.views:
        patches = pair.vision(view).patches
        if pool == "mean":
            means = F.normalize(pair.image_projection(patches.mean(dim=1)), dim=-1)
            expected = expected + clip_loss(means, texts, pair.scale) / 2
        else:
            logits = pair.scale * text_weighted_similarity(
                F.normalize(pair.image_projection(patches), dim=-1), texts, 0.1
            )
            own = torch.arange(len(texts))
            expected = expected + (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 4
    assert torch.allclose(torch.as_tensor(got), expected, atol=1e-5)


def test_late_start_costs_no_teacher_pass_without_attention_selection() -> None:
    method = build("detailclip", {"late_start": 0.9, "selection": "random"})
    assert isinstance(method, DetailCLIP) and method.teacher is not None
    method.teacher["vision"].forward = lambda *_, **__: pytest.fail("the teacher ran")
    next(iter(method.step(batch_for(method), Progress(0, 10))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio is 0"),
        ({"late_start": 1.0}, "late_start"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"patches_temperature": 0.0}, "patches_temperature"),
        ({"phrase_temperature": -1.0}, "phrase_temperature is -1"),
        ({"hide_ratio": 1.0}, "hide_ratio is 1"),
        ({"decoder_blocks": 5}, "decoder_blocks is 5; choose a number from 1 to 4"),
        ({"early_image_size": 20}, "early_image_size is 20; choose a multiple of the patch size, 8"),
        ({"early_share": 0.0}, "early_share"),
    ],
)
def test_impossible_settings_get_a_sentence(change: dict[str, float], words: str) -> None:
    with pytest.raises(RizbinError, match=words):
        DetailCLIP(tiny("detailclip", change))


def test_what_look_paints_is_the_picture_where_nothing_was_removed() -> None:
    method = build("detailclip").eval()
    images = torch.randn(2, 3, 32, 32)
    look = method.look(images)
    assert look is not None and look.reconstruction is not None
    seen = ~look.removed.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(images)
    assert torch.allclose(look.reconstruction[seen], images[seen])
    assert not torch.allclose(look.reconstruction[~seen], images[~seen], atol=1e-2)


def test_what_is_hidden_is_apart_from_what_is_kept() -> None:
    """The caption meets what selection keeps; the predicting student sees what `hide` leaves, in a pass of its own."""
    changes = {"hide": "attention", "hide_ratio": 0.75, "selection": "attention", "keep_ratio": 0.25, "block": 1}
    method = build("detailclip", changes).eval()
    assert isinstance(method, DetailCLIP) and method.teacher is not None
    seen: list[torch.Tensor | None] = []
    method.pair.vision.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    batch = batch_for(method)
    records = next(iter(method.step(batch, Progress(5, 10)))).records
    assert {"contrast", "cls", "patch", "pixels"} <= set(records)
    visible, kept = seen
    assert visible is not None and kept is not None
    attention = method.teacher["vision"](torch.cat(batch.views), attend=True).attention
    order = attention.argsort(dim=1, descending=True)
    # Of 16 patches: int(16 / 4) + 1 stay visible, the least attended; as many are kept, the most attended.
    assert (visible == order[:, 11:].sort(dim=1).values).all()
    assert (kept == order[:, :5].sort(dim=1).values).all()


@pytest.mark.parametrize("hide", ["removed", "random"])
def test_removal_ends_with_its_share_of_the_run(hide: str) -> None:
    """What meets the caption is half of the tokens before, all of them after; where these were to be predicted, nothing
    is."""
    method = build("detailclip", {"hide": hide, "selection_share": 0.5})
    assert isinstance(method, DetailCLIP)
    met: list[int] = []
    embed = method.pair.embed
    method.pair.embed = lambda features: met.append(features.patches.shape[1]) or embed(features)  # type: ignore[method-assign]
    records = [next(iter(method.step(batch_for(method), Progress(step, 10)))).records for step in (4, 5)]
    assert met == [12, 16]  # of 4 squares of 4 patches int(4 / 2) + 1 stay
    assert "pixels" in records[0] and ("pixels" in records[1]) == (hide == "random")


def test_hiding_what_selection_removes_is_the_papers_one_pass() -> None:
    method = build("detailclip")
    passes: list[int] = []
    method.encoder.get_submodule("vision").register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    batch = batch_for(method)
    next(iter(method.step(batch, Progress(5, 10))))
    assert passes == [2 * len(batch.views[0])]


@pytest.mark.parametrize("rule", ["attention", "random", "block", "inverse"])
def test_look_shows_what_training_hides(rule: str) -> None:
    method = build("detailclip", {"hide": rule, "hide_ratio": 0.5, "block": 1}).eval()
    images = torch.randn(3, 3, 32, 32)
    look = method.look(images)
    assert look is not None and look.reconstruction is not None
    assert look.removed.flatten(1).sum(dim=1).tolist() == [7, 7, 7]  # 9 of 16 stay
    hidden, shown = look.attention[look.removed].mean(), look.attention[~look.removed].mean()
    if rule in ("attention", "inverse"):
        assert (hidden > shown) == (rule == "attention")


def test_a_block_is_one_compact_piece() -> None:
    scores = block_scores(torch.rand(50, 3, generator=torch.Generator().manual_seed(0)), (8, 8))
    _, hidden = select(-scores, (8, 8), keep_ratio=0.75, block=1)
    for places in hidden.tolist():
        rows, columns = {place // 8 for place in places}, {place % 8 for place in places}
        assert len(places) == 15
        assert (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1) <= 36, "spread over the image"


def test_a_low_resolution_starts_as_bicubic_and_keeps_brightness() -> None:
    changes = {"hide": "random", "low_resolution": 2, "distillation": False, "contrast_view": "clean"}
    method = build("detailclip", changes).eval()
    images = torch.randn(2, 3, 32, 32) + torch.tensor([2.0, -2.0])[:, None, None, None]
    nothing = torch.zeros(2, 4, 4, dtype=torch.bool)
    painted = method.reconstruct(images, nothing, 2)
    assert painted is not None and torch.allclose(painted, lowered(images, 2), atol=1e-6)
    records = next(iter(method.step(batch_for(method), Progress(5, 10)))).records
    assert {"pixels", "residual"} <= set(records)
    assert torch.as_tensor(records["residual"]).item() == pytest.approx(1.0), "nothing is added at the start"
    assert method.reconstruct(images, nothing, 1) is not None
    assert build("detailclip").eval().reconstruct(images, nothing, 2) is None, "it never saw a low resolution"


def test_reconstruct_hides_exactly_what_it_is_told() -> None:
    """No hidden pixel reaches the network: other pixels there change nothing but the deviation that is put back."""
    method = build("detailclip", {"hide": "random"}).eval()
    images, removed = torch.randn(1, 3, 32, 32), torch.zeros(1, 4, 4, dtype=torch.bool)
    removed[0, 1, 2] = removed[0, 3, 0] = True
    covered = removed.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(images)
    painted = method.reconstruct(images, removed)
    # Mirrored patches have the same mean and deviation.
    mirrored = torch.where(covered, images.unflatten(3, (4, 8)).flip(-1).flatten(3), images)
    again = method.reconstruct(mirrored, removed)
    assert painted is not None and again is not None
    assert torch.allclose(painted[covered], again[covered], atol=1e-5)
    assert torch.equal(painted[~covered], images[~covered])


def test_features_as_targets_teach_from_the_first_step() -> None:
    """A perfect guess costs nothing; to guess the mean costs one."""
    changes = {"hide": "random", "patch_target": "features", "visible_weight": 1.0, "patch_weight": 0.0}
    method = build("detailclip", changes).eval()
    assert isinstance(method, DetailCLIP) and method.to_features is not None and method.teacher is not None
    features = torch.randn(200, method.pair.vision.dim)
    targets = F.layer_norm(features, features.shape[-1:])
    with torch.no_grad():
        method.to_features.weight.zero_()
        method.to_features.bias.zero_()
    assert method._patch_loss(features, targets).item() == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        method.to_features.weight.copy_(torch.eye(method.pair.vision.dim))
    assert method._patch_loss(targets, targets).item() < 1e-9


def test_a_head_alone_as_teacher_keeps_no_second_tower() -> None:
    method = build("detailclip", {"teacher_part": "head"})
    assert isinstance(method, DetailCLIP) and method.teacher is not None and set(method.teacher) == {"head"}
    statistics = [norm.running_mean.clone() for norm in method.pair.vision._stem_norms]
    method.train()._whole(torch.randn(2, 3, 32, 32), attend=True)
    assert method.pair.vision.training, "the student goes on training"
    after = [norm.running_mean for norm in method.pair.vision._stem_norms]
    assert all(torch.equal(a, b) for a, b in zip(statistics, after, strict=True)), "looking changes no statistics"


def test_views_are_small_until_the_last_part_of_the_run() -> None:
    method = build("detailclip", {"early_image_size": 16, "early_share": 0.8, "hide": "random", "block": 1})
    sizes: list[int] = []
    method.encoder.get_submodule("vision").register_forward_hook(
        lambda _, inputs, __: sizes.append(inputs[0].shape[-1])
    )
    for step in (7, 8):
        next(iter(method.step(batch_for(method), Progress(step, 10))))
    assert sizes == [16, 16, 32, 32]


def test_the_phrase_term_meets_what_the_caption_meets() -> None:
    method = build("detailclip", {"phrase_weight": 1.0, "contrast_view": "clean", "distillation": False}).eval()
    assert isinstance(method, DetailCLIP) and method.most_phrases == 4
    batch = batch_for(method)
    assert batch.phrases is not None
    value = torch.as_tensor(next(iter(method.step(batch, Progress(5, 10)))).records["phrase"])
    pair = method.pair
    patches = F.normalize(pair.image_projection(pair.vision(batch.views[-1]).patches), dim=-1)
    rows = [pair.encode_texts(row) for row in batch.phrases]
    settings = {"patch_temperature": 0.1, "phrase_temperature": 0.1}
    keys = phrase_keys(batch.phrases)
    expected = phrase_contrast(patches, torch.stack(rows), keys, pair.scale, None, **settings)
    assert torch.allclose(value, expected, atol=1e-5)


def test_training_may_begin_with_other_weights() -> None:
    """The teacher begins there too; weights of another shape are refused in a sentence."""
    first, method = build("detailclip"), build("detailclip")
    with torch.no_grad():
        for parameter in first.encoder.parameters():
            parameter.add_(0.01)
    method.begin_with(first.encoder.state_dict(), "a run")
    assert isinstance(method, DetailCLIP) and method.teacher is not None
    for own, other in zip(
        method.pair.vision.parameters(), first.encoder.get_submodule("vision").parameters(), strict=True
    ):
        assert torch.equal(own, other)
    for own, other in zip(method.teacher["vision"].parameters(), method.pair.vision.parameters(), strict=True):
        assert torch.equal(own, other)
    weights = dict(first.encoder.state_dict())
    name = next(iter(weights))
    with pytest.raises(RizbinError, match=f"a run do not fit this encoder: 1 tensor has another shape .{name} is "):
        method.begin_with({**weights, name: weights[name][None]}, "a run")
    with pytest.raises(RizbinError, match=f"{len(weights)} tensors are missing .* and 1 tensor is foreign .other"):
        method.begin_with({"other": torch.zeros(1)}, "a run")
