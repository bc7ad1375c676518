"""Methods that combine the members' next-token distributions, token by token."""
