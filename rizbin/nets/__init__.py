"""Networks that two or more packages use.

Importing this package registers Rizbin's small backbones with timm.
"""

from rizbin.nets import backbones as _backbones
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.vision import Features, VisionEncoder

__all__ = ["Features", "ImageTextPair", "VisionEncoder"]
del _backbones
