"""From a folder of images to a model that was trained, validated, evaluated and recorded."""

__version__ = "0.1.0"
