"""Finding clips: `question` is what is looked for, `rank` orders rows by it, `selection` keeps the ids of some."""
