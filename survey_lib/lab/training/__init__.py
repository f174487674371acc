"""How networks are trained, kept and made again."""
