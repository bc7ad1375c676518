"""Configuration that every ensemble has, whatever its method. Methods add their own fields."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.config.base import Strict
from runtime.types.query import Budget


class BudgetConfig(Strict):
    """Limits of one request; a request may only narrow them."""

    calls: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    cost: float | None = Field(None, ge=0)
    seconds: float | None = Field(None, gt=0)

    def budget(self) -> Budget:
        return Budget(self.calls, self.tokens, self.cost, self.seconds)


class PolicyConfig(Strict):
    """What every ensemble has, whatever its method. Methods add their own fields."""

    type: str
    members: tuple[str, ...] = Field(min_length=1)
    """Member names; their order breaks ties."""
    quorum: int = Field(1, ge=1)
    """Fewer members than this end the answer with an error."""
    reporting_member: str | None = None
    """Whose tokenizer counts the tokens a caller sees; absent: the first member."""
    max_tokens: int = Field(512, ge=1)
    """Visible tokens when the request names no limit."""
    budget: BudgetConfig = BudgetConfig()
    replicas: int = Field(1, ge=1)
    """Coordinator replicas."""
    coalesce: bool = True
    """Calls that leave the coordinator for one member in one loop tick travel as one message."""

    @property
    def method(self) -> str:
        """The method's name in answers and traces: ``type``, with its variant."""
        return self.type

    @property
    def takes_threshold(self) -> bool:
        """Whether a request may name a threshold of its own."""
        return False

    @property
    def judge(self) -> str | None:
        """The reward model that the method uses, if any."""
        return None

    @property
    def encoder_name(self) -> str | None:
        """The text encoder that the method uses, if any: a name under ``encoders``, or a member."""
        return None

    @model_validator(mode="after")
    def _names_agree(self) -> PolicyConfig:
        if len(set(self.members)) != len(self.members):
            raise ValueError(
                f"members {list(self.members)} names one member twice; to weigh a member more, "
                "use the method's weights"
            )
        if self.reporting_member is not None and self.reporting_member not in self.members:
            raise ValueError(
                f"reporting_member {self.reporting_member!r} is not among members "
                f"{list(self.members)}"
            )
        if self.quorum > len(self.members):
            raise ValueError(
                f"quorum {self.quorum} is more than the {len(self.members)} members; lower it"
            )
        return self
