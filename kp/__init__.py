"""kp: train and measure an interest-point detector whose whole world is geometry."""

__version__ = "0.1.0"
