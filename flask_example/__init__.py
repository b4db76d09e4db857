"""The order board: a small Flask application that shows what pgfanout does."""

from .app import create_app

__all__ = ["create_app"]
