"""Many tweens at once: shots from a file, made one by one so that any machine may be lost on the way."""
