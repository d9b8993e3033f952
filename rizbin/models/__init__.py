"""One typed protocol for encoders, and its adapters for networks of Rizbin, open_clip, timm and transformers."""
