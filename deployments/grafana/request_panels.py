"""Rows about requests and members: answers, member calls, faults and overload."""

from __future__ import annotations

from typing import Final

from deployments.grafana.queries import (
    BOTH,
    BROKEN_OFF,
    COMPLETE,
    ENSEMBLE,
    EVERY,
    MEMBER,
    Line,
    Panel,
    Row,
    growing,
    level,
    quantiles,
    rate,
)

ANSWERS: Final = Row(
    "Answers",
    (
        Panel(
            "Answers by outcome",
            "reqps",
            [growing("ray_orchestrion_answers_total", "outcome", ENSEMBLE)],
            stacked=True,
        ),
        Panel(
            "Time to the first span",
            "s",
            quantiles("ray_orchestrion_first_span_seconds", "ensemble", ENSEMBLE),
        ),
        Panel(
            "Time to the end",
            "s",
            quantiles("ray_orchestrion_answer_seconds", "ensemble", ENSEMBLE),
            "Of answers that came to their end.",
        ),
        Panel(
            "In progress",
            "short",
            [
                level("ray_orchestrion_answers_in_progress", "ensemble", ENSEMBLE),
                Line("sum(ray_orchestrion_requests_in_progress)", "requests at the gateway"),
            ],
        ),
        Panel(
            "Tokens sent to clients",
            "short",
            [growing("ray_orchestrion_visible_tokens_total", "ensemble", ENSEMBLE)],
            "A second, counted when an answer ends.",
        ),
        Panel(
            "Who writes",
            "percentunit",
            [
                Line(
                    rate("ray_orchestrion_rounds_total", "ensemble, member", BOTH)
                    + " / ignoring (member) group_left () "
                    + rate("ray_orchestrion_rounds_total", "ensemble", ENSEMBLE),
                    "{{ensemble}}: {{member}}",
                )
            ],
            "Each member's share of the accepted spans.",
        ),
    ),
)

MEMBERS: Final = Row(
    "Members",
    (
        Panel(
            "Time of a call",
            "s",
            quantiles("ray_orchestrion_member_call_seconds", "member", BOTH),
            "As coordinators wait for it, messages and queues included.",
        ),
        Panel(
            "Time of a message in its replica",
            "s",
            quantiles("ray_orchestrion_member_message_seconds", "member", MEMBER),
        ),
        Panel(
            "Calls",
            "reqps",
            [growing("ray_orchestrion_member_calls_total", "member", BOTH)],
        ),
        Panel(
            "Retries and drops",
            "reqps",
            [
                growing("ray_orchestrion_member_retries_total", "member", BOTH, name="retried"),
                growing("ray_orchestrion_member_drops_total", "member", BOTH, name="dropped"),
            ],
        ),
        Panel(
            "In flight",
            "short",
            [
                level("ray_orchestrion_member_calls_in_progress", "member", MEMBER, name="calls"),
                level(
                    "ray_orchestrion_member_messages_in_progress", "member", MEMBER, name="messages"
                ),
            ],
        ),
        Panel(
            "Tokens",
            "short",
            [
                Line(
                    rate(f"ray_orchestrion_member_{kind}_tokens_total", "member", BOTH),
                    f"{{{{member}}}} {kind}",
                )
                for kind in ("prompt", "cached", "completion")
            ],
            "A second. Prompt: without those that the cache held.",
        ),
        Panel(
            "Prompt tokens from the cache",
            "percentunit",
            [
                Line(
                    rate("ray_orchestrion_member_cached_tokens_total", "member", BOTH)
                    + " / ("
                    + rate("ray_orchestrion_member_cached_tokens_total", "member", BOTH)
                    + " + "
                    + rate("ray_orchestrion_member_prompt_tokens_total", "member", BOTH)
                    + ")",
                    "{{member}}",
                )
            ],
        ),
        Panel(
            "Cost an hour",
            "short",
            [
                Line(
                    rate("ray_orchestrion_member_cost_total", "ensemble", BOTH) + " * 3600",
                    "{{ensemble}}",
                )
            ],
            "By the configured prices, in the configured currency.",
        ),
        Panel(
            "Batches of reward models and encoders",
            "short",
            [
                *quantiles("ray_orchestrion_aide_batch_seconds", "aide"),
                Line(
                    rate("ray_orchestrion_aide_questions_total", "aide")
                    + " / "
                    + rate("ray_orchestrion_aide_batch_seconds_count", "aide"),
                    "{{aide}} questions in one",
                ),
            ],
            "Seconds, and how many questions share one.",
        ),
    ),
)

FAULTS: Final = Row(
    "Faults and overload",
    (
        Panel(
            "Answers that broke off",
            "percentunit",
            [
                Line(
                    rate("ray_orchestrion_answers_total", "outcome", BROKEN_OFF)
                    + " / on () group_left () "
                    + f"sum(rate(ray_orchestrion_answers_total{{{ENSEMBLE}}}{EVERY}))",
                    "{{outcome}}",
                )
            ],
            "Share of all, by cause; cancelled: the client left.",
            stacked=True,
        ),
        Panel(
            "Refused requests",
            "reqps",
            [growing("ray_orchestrion_refused_total", "reason", ENSEMBLE)],
            stacked=True,
        ),
        Panel(
            "Resumed answers",
            "reqps",
            [growing("ray_orchestrion_resumed_total", "ensemble, cause", ENSEMBLE)],
            "A coordinator or a connection was lost, and the answer went on.",
        ),
        Panel(
            "Degraded answers",
            "percentunit",
            [
                Line(
                    rate("ray_orchestrion_degraded_total", "ensemble", ENSEMBLE)
                    + " / "
                    + rate(
                        "ray_orchestrion_answers_total",
                        "ensemble",
                        f'{ENSEMBLE},outcome=~"{COMPLETE}"',
                    ),
                    "{{ensemble}}",
                )
            ],
            "Share of those that came to their end.",
        ),
        Panel(
            "Calls cancelled for clients that left",
            "reqps",
            [growing("ray_orchestrion_cancelled_calls_total", "member", BOTH)],
        ),
        Panel(
            "HTTP replies with an error",
            "reqps",
            [growing("ray_serve_num_http_error_requests_total", "error_code")],
            stacked=True,
        ),
    ),
)
