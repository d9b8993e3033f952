"""Pure functions of tensors that two or more methods share."""
