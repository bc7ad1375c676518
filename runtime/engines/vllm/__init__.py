"""The vLLM engine. Import it only where vLLM is installed."""
