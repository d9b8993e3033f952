"""Images and words in, boxes out: open-vocabulary detection with Grounding DINO."""
