"""What a distillation leaves beside its student: curves, images, the generator."""
