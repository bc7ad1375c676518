"""The Grafana dashboard: ``panels.py`` says what it shows, ``orchestrion.json`` is imported."""
