"""The subcommands of ``orchestrion``, one module a group."""
