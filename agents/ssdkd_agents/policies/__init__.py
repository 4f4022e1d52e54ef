"""Learning algorithms by name, and their policies in files: saved, exported, read again."""
