"""The whole document: the runtime's configuration with the methods' own, read from Serve YAML.

One file serves ``serve run``, ``serve deploy`` and ``orchestrion serve``: a Ray Serve config whose
application imports ``deployments.app:build_app`` and carries our document as its ``args``.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from deployments.config.error_messages import nearest
from deployments.config.needs import unmet
from policies import policy_configs
from runtime.config.aux_models import EncoderConfig
from runtime.config.document import RuntimeConfig
from runtime.config.ensembles import PolicyConfig
from runtime.config.members import MemberConfig
from runtime.config.plugins import OneOf
from runtime.config.reward_models import RewardModelConfig

AnyPolicyConfig: TypeAlias = Annotated[PolicyConfig, OneOf(policy_configs)]


class AppConfig(RuntimeConfig):
    """Members and ensembles by name; every name is a model of the endpoint."""

    ensembles: dict[str, AnyPolicyConfig] = {}
    reward_models: dict[str, RewardModelConfig] = {}
    """Process reward models, by the names that ensembles use."""

    encoders: dict[str, EncoderConfig] = {}
    """Text encoders, by the names that ensembles use."""

    models_app: str | None = None
    """Another Serve application that runs the models (``deployments.models:build_models`` with the
    same ``members``), so that changed ensembles do not restart them; absent: this one. On a single
    machine, ``orchestrion serve`` runs them itself in any case."""

    def whole(self) -> AppConfig:
        """Everything in one application."""
        return self.model_copy(update={"models_app": None})

    @property
    def served(self) -> dict[str, MemberConfig]:
        """All that has weights and replicas: the members, and reward models and encoders alike."""
        judges = {
            name if number == 1 else f"{name} ({number})": member
            for name, judge in self.reward_models.items()
            for number, member in enumerate(judge.as_members(), 1)
        }
        encoders = {name: encoder.as_member() for name, encoder in self.encoders.items()}
        return self.members | judges | encoders

    def own_encoder(self, policy: PolicyConfig) -> str | None:
        """The entry of ``encoders`` that an ensemble uses; ``None`` where a member encodes, or no
        encoder is needed."""
        name = policy.encoder_name
        return None if name is None or name in policy.members else name

    @model_validator(mode="after")
    def _references_exist(self) -> AppConfig:
        sections = (self.members, self.ensembles, self.reward_models, self.encoders)
        for kind, section in (("a reward model", sections[2]), ("an encoder", sections[3])):
            for name in section:
                if sum(name in other for other in sections) > 1:
                    raise ValueError(f"{name!r} names {kind} and something else; rename one")
        for name, ensemble in self.ensembles.items():
            if name in self.members:
                raise ValueError(f"{name!r} names both a member and an ensemble; rename one")
            if ensemble.judge is not None and ensemble.judge not in self.reward_models:
                known = list(self.reward_models)
                raise ValueError(
                    f"ensemble {name!r} names reward model {ensemble.judge!r}, which is not under "
                    "reward_models" + (nearest(ensemble.judge, known) if known else "")
                )
            encoder = self.own_encoder(ensemble)
            if encoder is not None and encoder not in self.encoders:
                known = [*self.encoders, *ensemble.members]
                raise ValueError(
                    f"ensemble {name!r} names encoder {encoder!r}, which is neither under encoders "
                    "nor among its members" + nearest(encoder, known)
                )
            for member in ensemble.members:
                if member not in self.members:
                    raise ValueError(
                        f"ensemble {name!r} names member {member!r}, which is not configured"
                        + nearest(member, list(self.members))
                    )
        return self

    @model_validator(mode="after")
    def _members_provide_what_methods_need(self) -> AppConfig:
        wrong = [
            InitErrorDetails(
                type=PydanticCustomError("unmet_need", "{text}", {"text": text}),
                loc=("ensembles", name),
                input=policy,
            )
            for name, policy in self.ensembles.items()
            for text in unmet(name, policy, self.members)
        ]
        if wrong:
            raise ValidationError.from_exception_data("AppConfig", wrong)
        return self

    def policy_configs(self) -> dict[str, PolicyConfig]:
        return dict(self.ensembles)
