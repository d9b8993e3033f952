"""The decoder: what it makes of some places alone is what it makes of all."""

import torch

from rizbin.nets.decoder import Decoder


def test_chosen_places_alone_are_those_of_a_whole_pass() -> None:
    torch.manual_seed(0)
    for blocks in (1, 2):
        decoder = Decoder(24, 32, blocks=blocks, heads=4).double()
        cls, kept = torch.randn(3, 24).double(), torch.randn(3, 5, 24).double()
        places = torch.stack([torch.randperm(16) for _ in range(3)])
        keep, removed = places[:, :5].sort(dim=1).values, places[:, 5:].sort(dim=1).values
        alone = decoder(cls, kept, keep, (4, 4), removed)
        everywhere = decoder(cls, kept, keep, (4, 4))
        picked = everywhere.gather(1, removed.unsqueeze(-1).expand(-1, -1, 32))
        assert torch.allclose(alone, picked, rtol=0, atol=1e-12)
        parameters = list(decoder.parameters())
        gradients = [torch.autograd.grad((part**3).sum(), parameters) for part in (alone, picked)]
        assert all(torch.allclose(mine, all_of, rtol=0, atol=1e-9) for mine, all_of in zip(*gradients, strict=True))
