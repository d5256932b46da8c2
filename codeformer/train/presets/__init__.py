"""Presets of training runs, one TOML file each."""
