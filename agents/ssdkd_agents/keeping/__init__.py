"""What runs gave, kept in one folder: compressed lines, what documents show of them, and a manifest."""
