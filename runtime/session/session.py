"""The session classes that policies import, one for each kind of method.

``Session`` is for methods that write token by token, ``RequestSession`` for those that only combine
whole answers.
"""

from __future__ import annotations

from runtime.session.answer import Session
from runtime.session.membership import RequestSession

__all__ = ["RequestSession", "Session"]
