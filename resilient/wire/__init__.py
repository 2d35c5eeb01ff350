"""Connections to servers: time limits, error classes, signing. The rooms above use it; users never see it."""
