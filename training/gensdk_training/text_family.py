"""What families of texts by an LSTM share: its settings, the network, maximum likelihood, and the export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, network_of, require_lengths
from gensdk_training.graphs.text_steps import text_plan
from gensdk_training.losses.policy_gradient import log_probability
from gensdk_training.networks.language_model import Ends, LanguageModel
from gensdk_training.plan import ExportPlan


class TextFamilyConfig(FamilyConfig):
    """Settings of a language model that is a generator.

    embedding: Features of a token.
    hidden: Features of an LSTM cell's states.
    layers: LSTM cells, one after the other.
    cuts: Whether the exported model takes top_k and top_p. Where they are asked for each step sorts the likeliest
        tokens, in a branch of its graph; false leaves the branch out, for runtimes that have none.
    """

    embedding: Annotated[int, Field(ge=1, le=65536)] = 64
    hidden: Annotated[int, Field(ge=1, le=65536)] = 128
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    cuts: bool = True
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


TextConfigT = TypeVar("TextConfigT", bound=TextFamilyConfig)


class TextFamily(Family[TextConfigT]):
    """A language model, ``generator``, of texts of at most the data's length."""

    makes: ClassVar[frozenset[str]] = frozenset(("texts",))
    ema_networks = ("generator",)

    def check(self) -> None:
        """Refuses texts without a begin."""
        if self.data.require_text().vocabulary.special.begin is None:
            raise InputError(f"the vocabulary of {self.data.name!r} has no begin token, which {self.name} needs")

    @property
    def ends(self) -> Ends:
        """How texts begin and end."""
        special = self.data.require_text().vocabulary.special
        rest = special.pad if special.pad is not None else special.end
        return Ends(begin=special.begin or 0, stop=special.end, rest=rest or 0)

    def build_generator(self, dropout: float) -> LanguageModel:
        """The network, which never draws begin or pad."""
        config, vocabulary = self.config, self.data.require_text().vocabulary
        special = vocabulary.special
        never = [token for token in (special.begin, special.pad) if token is not None and token != special.end]
        return LanguageModel(
            vocabulary.size, config.embedding, config.hidden, config.layers, never=never, dropout=dropout
        )

    def likelihood_loss(self, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The mean negative log-likelihood in nats of a token, the end among them; ``bits_per_token`` is
        logged."""
        generator = network_of(networks, "generator", LanguageModel)
        tokens, lengths = real_texts(batch), require_lengths(batch) - 1
        most = int(lengths.max())
        counts = torch.arange(most, device=tokens.device) < lengths.unsqueeze(1)
        states = generator.states(batch.images[:, :most], drop=True)[counts]
        total = -log_probability(generator.head(states), tokens[:, :most][counts]).mean()
        return Loss(total, {"bits_per_token": total.detach() / math.log(2)})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """A step with the states of the cells, and the likelihood of whole texts."""
        return text_plan(
            network_of(networks, "generator", LanguageModel),
            self.data.require_text(),
            self.ends,
            f"{self.data.name}-{self.name}",
            self.name,
            cuts=self.config.cuts,
        )


def real_texts(batch: Batch) -> Tensor:
    """The texts of the data, int64 [B, T], without their begin."""
    return batch.images[:, 1:]
